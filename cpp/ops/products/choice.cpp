// Counts what each strategy would do, and weighs the counts with the costs of the kernel table.
#include "ops/products/choice.hpp"

#include "core/cost_terms.hpp"
#include "core/cpu_features.hpp"
#include "ops/products/dense.hpp"
#include "ops/products/density.hpp"
#include "ops/products/kept.hpp"
#include "ops/products/skip.hpp"

namespace dropwise::ops {

namespace {

// The size of a product, for counting.
struct Size {
    double m, k, n;

    template <class T>
    Size(Matrix<const T> a, Matrix<const T> b)
        : m(static_cast<double>(a.rows)),
          k(static_cast<double>(a.cols)),
          n(static_cast<double>(b.cols)) {}
};

template <class T>
double padded_to_lanes(const ProductKernels<T>& kern, size_t n) {
    return static_cast<double>(round_up(n, kern.lanes));
}

// Adds to one of two counts.
void add_to(bool first, double count, double& if_first, double& otherwise) {
    (first ? if_first : otherwise) += count;
}

// `masked`: outputs that a mask drops are computed too, and cleared.
template <class T>
DenseTerms<double> dense_terms(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
                               bool masked) {
    DenseTerms<double> terms{};
    const Size size(a, b);
    const double outputs = size.m * size.n;
    terms.calls = 1;
    terms.masked_outputs = masked ? outputs : 0;
    const bool dots = takes_dots(kern, a, b);
    if (dots || takes_dots_transposed(kern, a, b)) {
        const double multiply_adds = outputs * padded_to_lanes(kern, a.cols);
        terms.dot_multiply_adds = multiply_adds;
        terms.dot_outputs = outputs;
        terms.transposed = b.col_stride == 1 ? size.k * size.n : 0;
        // Rows that start in the middle of a vector are slower to load, and here nothing is packed.
        const ptrdiff_t stride = dots ? a.row_stride : b.col_stride;
        const bool aligned = stride % static_cast<ptrdiff_t>(kern.lanes) == 0;
        terms.misaligned_multiply_adds = aligned ? 0 : multiply_adds;
        return terms;
    }
    const bool transposed = takes_transpose(a, b.cols);
    if (transposed) {
        const Matrix<const T> at = a.transposed();
        a = b.transposed();
        b = at;
    }
    const Size tiled(a, b);
    const bool unpacked = !transposed && reads_b_unpacked(kern, a.rows, b);
    const auto passes = static_cast<double>(ceil_div(a.rows, kern.max_unpacked_rows));
    terms.tile_multiply_adds = tiled.m * tiled.k * padded_to_lanes(kern, b.cols);
    add_to(a.col_stride == 1, tiled.m * tiled.k, terms.packed_a_by_rows, terms.packed_a_by_columns);
    if (unpacked)
        terms.unpacked_b = passes * tiled.k * tiled.n;
    else
        add_to(b.col_stride == 1, tiled.k * tiled.n, terms.packed_b_by_rows,
               terms.packed_b_by_columns);
    terms.tile_outputs = outputs;
    terms.transposed = transposed ? outputs : 0;
    return terms;
}

// Of skipping the zeros of a.  `transpose_c`: the product is b^T a^T of what the caller wants.
template <class T>
SkipTerms<double> skip_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                             Matrix<const T> b, bool transpose_c) {
    SkipTerms<double> terms{};
    const Size size(a, b);
    const double outputs = size.m * size.n;
    const double padded = padded_to_lanes(kern, b.cols);
    const auto tiles = static_cast<double>(ceil_div(b.cols, kern.skip_width));
    const SkipPlan plan = skip_plan(density, a.rows);
    // What two rows have in common, if zeros are scattered at random.
    const double both = plan.pairs ? density * density : 0;
    const auto units = static_cast<double>(ceil_div(a.cols, plan.words * kWordBits));
    terms.calls = 1;
    terms.multiply_adds = density * size.m * size.k * padded;
    terms.tile_rows = density * size.m * size.k * tiles;
    terms.shared_multiply_adds = -both * size.m * size.k * padded;
    terms.words = size.m * units * tiles;
    add_to(a.col_stride == 1, size.m * size.k, terms.compressed_by_rows,
           terms.compressed_by_columns);
    add_to(b.col_stride == 1, size.k * size.n, terms.copied_b_by_rows, terms.copied_b_by_columns);
    if (transpose_c)
        terms.transposed_outputs = outputs;
    else if (padded != size.n)
        terms.copied_outputs = outputs;
    terms.outputs = outputs;
    return terms;
}

template <class T>
KeptTerms<double> kept_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                             Matrix<const T> b) {
    KeptTerms<double> terms{};
    const Size size(a, b);
    const double outputs = size.m * size.n;
    const KeptChunks chunks(kern, a.cols);
    const auto count = static_cast<double>(chunks.count);
    const size_t blocks = ceil_div(b.cols, kWordBits);
    const auto groups = static_cast<double>(ceil_div(blocks, kBlocksPerChunk));
    const auto padded_tail = static_cast<double>(chunks.tail % kern.lanes == 0 ? 0 : chunks.tail);
    terms.calls = 1;
    terms.multiply_adds = density * size.m * size.n * padded_to_lanes(kern, a.cols);
    terms.words = size.m * static_cast<double>(blocks) * count;
    add_to(b.row_stride == 1, size.k * size.n, terms.copied_b_by_columns, terms.copied_b_by_rows);
    terms.outputs = outputs;
    if (must_copy_rows(a))
        add_to(a.col_stride == 1, size.m * size.k, terms.copied_a_by_rows,
               terms.copied_a_by_columns);
    terms.sums = density * size.m * size.n * count;
    terms.padded_a = size.m * padded_tail * groups;
    return terms;
}

// Calls visit(name, number) for the terms of any strategy.
#define DROPWISE_VISIT(name) visit(#name, terms.name);
template <class Visit>
void for_each_term(const DenseTerms<double>& terms, Visit&& visit) {
    DROPWISE_DENSE_TERMS(DROPWISE_VISIT)
}
template <class Visit>
void for_each_term(const SkipTerms<double>& terms, Visit&& visit) {
    DROPWISE_SKIP_TERMS(DROPWISE_VISIT)
}
template <class Visit>
void for_each_term(const KeptTerms<double>& terms,
                   Visit&& visit){DROPWISE_KEPT_TERMS(DROPWISE_VISIT)}
#undef DROPWISE_VISIT

// Picoseconds.
#define DROPWISE_ADD(name) sum += terms.name * static_cast<double>(costs.name);
double cost(const DenseTerms<double>& terms, const DenseTerms<float>& costs) {
    double sum = 0;
    DROPWISE_DENSE_TERMS(DROPWISE_ADD)
    return sum;
}
double cost(const SkipTerms<double>& terms, const SkipTerms<float>& costs) {
    double sum = 0;
    DROPWISE_SKIP_TERMS(DROPWISE_ADD)
    return sum;
}
double cost(const KeptTerms<double>& terms, const KeptTerms<float>& costs) {
    double sum = 0;
    DROPWISE_KEPT_TERMS(DROPWISE_ADD)
    return sum;
}
#undef DROPWISE_ADD

template <class T>
Strategy cheapest(Matrix<const T> a, Matrix<const T> b, const std::uint8_t* bits, Skip skip) {
    const ProductKernels<T>& kern = product_kernels<T>();
    const size_t m = a.rows, k = a.cols, n = b.cols;
    constexpr size_t kFewest = 4;  // rows, columns or terms that another strategy pays for
    if (m < kFewest || n < kFewest || k < kFewest) return Strategy::kDense;
    const size_t work = m * n * k;
    const Costs& costs = kern.costs[static_cast<size_t>(cpu_kind())];
    Strategy best = Strategy::kDense;
    double best_cost = cost(dense_terms(kern, a, b, bits != nullptr), costs.dense);
    // Takes a sample only where it matters: where the strategy is cheaper at some densities and
    // dearer at others.
    const auto offer = [&](Strategy strategy, auto&& cost_at, auto&& sample) {
        if (cost_at(0.0) >= best_cost) return;
        double found = cost_at(1.0);
        if (found >= best_cost) found = cost_at(sample());
        if (found >= best_cost) return;
        best = strategy;
        best_cost = found;
    };
    if (bits != nullptr)
        offer(
            Strategy::kKept, [&](double d) { return cost(kept_terms(kern, d, a, b), costs.kept); },
            [&] { return mask_density(bits, m * n, work); });
    if (skip.a)
        offer(
            Strategy::kSkipA,
            [&](double d) { return cost(skip_terms(kern, d, a, b, false), costs.skip); },
            [&] { return nonzero_density(kern, a, work); });
    if (skip.b && k >= 4 * kFewest)  // with fewer terms, the outputs to transpose are too many
        offer(
            Strategy::kSkipB,
            [&](double d) {
                return cost(skip_terms(kern, d, b.transposed(), a.transposed(), true), costs.skip);
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
std::vector<std::pair<const char*, double>> product_terms(const Product<T>& product,
                                                          double density) {
    const ProductKernels<T>& kern = product_kernels<T>();
    const Matrix<const T> a = normalized(product.a), b = normalized(product.b);
    std::vector<std::pair<const char*, double>> named;
    const auto add = [&](const char* name, double count) { named.emplace_back(name, count); };
    switch (product.strategy) {
        case Strategy::kChosen:
        case Strategy::kDense:
            for_each_term(dense_terms(kern, a, b, product.bits != nullptr), add);
            break;
        case Strategy::kSkipA:
            for_each_term(skip_terms(kern, density, a, b, false), add);
            break;
        case Strategy::kSkipB:
            for_each_term(skip_terms(kern, density, b.transposed(), a.transposed(), true), add);
            break;
        case Strategy::kKept:
            for_each_term(kept_terms(kern, density, a, b), add);
            break;
    }
    return named;
}

template Strategy strategy_of(const Product<float>&);
template Strategy strategy_of(const Product<double>&);
template std::vector<std::pair<const char*, double>> product_terms(const Product<float>&, double);
template std::vector<std::pair<const char*, double>> product_terms(const Product<double>&, double);

}  // namespace dropwise::ops
