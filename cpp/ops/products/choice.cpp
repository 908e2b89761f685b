#include "ops/products/choice.hpp"

#include <array>

#include "core/cpu_features.hpp"
#include "ops/products/dense.hpp"
#include "ops/products/density.hpp"
#include "ops/products/kept.hpp"
#include "ops/products/skip.hpp"

namespace dropwise::ops {

namespace {

using Terms = std::array<double, kCostTerms>;

// A count that is paid for in one of two places.
struct Either {
    double yes, no;
    Either(bool condition, double count) : yes(condition ? count : 0), no(condition ? 0 : count) {}
};

// What a dense product has to do.
template <class T>
Terms dense_terms(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b, bool kept) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const double outputs = kept ? m * n : 0;
    if (takes_dots(kern, a, b) || takes_dots_transposed(kern, a, b)) {
        const auto padded = static_cast<double>(round_up(a.cols, kern.lanes));
        const double copied = b.col_stride == 1 ? k * n : 0;
        // Rows that start in the middle of a vector are slower to load, and here nothing is packed.
        const ptrdiff_t stride = takes_dots(kern, a, b) ? a.row_stride : b.col_stride;
        const bool aligned = stride % static_cast<ptrdiff_t>(kern.lanes) == 0;
        return {1,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                m * n * padded,
                m * n,
                copied,
                outputs,
                aligned ? 0 : m * n * padded};
    }
    const bool transposed = takes_transpose(a, b.cols);
    if (transposed) {
        const Matrix<const T> at = a.transposed();
        a = b.transposed();
        b = at;
    }
    const auto padded = static_cast<double>(round_up(b.cols, kern.lanes));
    const auto rows = static_cast<double>(a.rows), cols = static_cast<double>(b.cols);
    const bool in_place = !transposed && reads_b_unpacked(kern, a.rows, b);
    const auto passes = static_cast<double>(ceil_div(a.rows, kern.max_unpacked_rows));
    const Either pack_a(a.col_stride == 1, rows * k);
    const Either pack_b(b.col_stride == 1, in_place ? 0 : k * cols);
    return {1,
            rows * k * padded,
            pack_a.yes,
            pack_a.no,
            pack_b.yes,
            pack_b.no,
            in_place ? passes * k * cols : 0,
            m * n,
            0,
            0,
            transposed ? m * n : 0,
            outputs};
}

// What skipping the zeros of a has to do.  Rows in pairs share what they have in common.
template <class T>
Terms skip_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                 Matrix<const T> b, bool transpose_c) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const auto padded = static_cast<double>(round_up(b.cols, kern.lanes));
    const auto tiles = static_cast<double>(ceil_div(b.cols, kern.skip_width));
    const SkipPlan plan = skip_plan(density, a.rows);
    const double both = plan.pairs ? density * density : 0;
    const auto units = static_cast<double>(ceil_div(a.cols, plan.words * kWordBits));
    const Either find(a.col_stride == 1, m * k), copy(b.col_stride == 1, k * n);
    const Either copy_out(transpose_c, transpose_c || padded != n ? m * n : 0);
    return {1,
            density * m * k * padded,
            density * m * k * tiles,
            -both * m * k * padded,
            m * units * tiles,
            find.yes,
            find.no,
            copy.yes,
            copy.no,
            copy_out.yes,
            copy_out.no,
            m * n};
}

// What computing the kept outputs alone has to do.
template <class T>
Terms keep_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                 Matrix<const T> b) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const KeptChunks chunks(kern, a.cols);
    const auto padded = static_cast<double>(round_up(a.cols, kern.lanes));
    const auto blocks = static_cast<double>(ceil_div(b.cols, kWordBits));
    const auto groups = static_cast<double>(ceil_div(ceil_div(b.cols, kWordBits), kBlocksPerChunk));
    const auto times = static_cast<double>(chunks.count);
    const Either copy(b.row_stride == 1, k * n);
    const Either copy_a(a.col_stride == 1, must_copy_rows(a) ? m * k : 0);
    const auto ragged = static_cast<double>(chunks.tail % kern.lanes == 0 ? 0 : chunks.tail);
    return {1,
            density * m * n * padded,
            m * blocks * times,
            copy.yes,
            copy.no,
            m * n,
            copy_a.no,
            copy_a.yes,
            density * m * n * times,
            m * ragged * groups};
}

double cost(const Terms& terms, const float (&costs)[kCostTerms]) {
    double sum = 0;
    for (size_t t = 0; t < kCostTerms; ++t) sum += terms[t] * static_cast<double>(costs[t]);
    return sum;
}

template <class T>
Strategy cheapest(Matrix<const T> a, Matrix<const T> b, const std::uint8_t* bits, Skip skip) {
    const ProductKernels<T>& kern = product_kernels<T>();
    const size_t m = a.rows, k = a.cols, n = b.cols;
    constexpr size_t kFewest = 4;
    if (m < kFewest || n < kFewest || k < kFewest) return Strategy::kDense;
    const size_t work = m * n * k;
    Strategy best = Strategy::kDense;
    const Costs& costs = kern.costs[static_cast<size_t>(cpu_kind())];
    double best_cost = cost(dense_terms(kern, a, b, bits != nullptr), costs.dense);
    // `cost_at` and `measure` are asked for as little as will do: nothing is counted for a strategy
    // that is the better one at any density, or at none.
    const auto offer = [&](Strategy strategy, auto&& cost_at, auto&& measure) {
        if (cost_at(0.0) >= best_cost) return;
        double found = cost_at(1.0);
        if (found >= best_cost) found = cost_at(measure());
        if (found >= best_cost) return;
        best = strategy;
        best_cost = found;
    };
    if (bits != nullptr)
        offer(
            Strategy::kKept,
            [&](double d) { return cost(keep_terms(kern, d, a, b), costs.keeping); },
            [&] { return mask_density(bits, m * n, work); });
    if (skip.a)
        offer(
            Strategy::kSkipA,
            [&](double d) { return cost(skip_terms(kern, d, a, b, false), costs.skipping); },
            [&] { return nonzero_density(kern, a, work); });
    if (skip.b && k >= 4 * kFewest)  // with fewer terms, outputs are copied for too little
        offer(
            Strategy::kSkipB,
            [&](double d) {
                return cost(skip_terms(kern, d, b.transposed(), a.transposed(), true),
                            costs.skipping);
            },
            [&] { return nonzero_density(kern, b, work); });
    return best;
}

}  // namespace

template <class T>
Strategy strategy_of(const Product<T>& product) {
    const Skip skip = product.skip;
    if (product.a.cols == 0 || (!skip.a && !skip.b && product.bits == nullptr))
        return Strategy::kDense;
    if (product.strategy != Strategy::kChosen) return product.strategy;
    return cheapest(normalized(product.a), normalized(product.b), product.bits, skip);
}

template <class T>
std::vector<double> product_terms(Matrix<const T> a, Matrix<const T> b, Strategy strategy,
                                  bool kept, double density) {
    const ProductKernels<T>& kern = product_kernels<T>();
    a = normalized(a);
    b = normalized(b);
    const Terms terms = strategy == Strategy::kSkipA ? skip_terms(kern, density, a, b, false)
                        : strategy == Strategy::kSkipB
                            ? skip_terms(kern, density, b.transposed(), a.transposed(), true)
                        : strategy == Strategy::kKept ? keep_terms(kern, density, a, b)
                                                      : dense_terms(kern, a, b, kept);
    return {terms.begin(), terms.end()};
}

template Strategy strategy_of(const Product<float>&);
template Strategy strategy_of(const Product<double>&);
template std::vector<double> product_terms(Matrix<const float>, Matrix<const float>, Strategy, bool,
                                           double);
template std::vector<double> product_terms(Matrix<const double>, Matrix<const double>, Strategy,
                                           bool, double);

}  // namespace dropwise::ops
