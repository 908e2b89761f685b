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

// What each strategy of a product costs, in picoseconds, at a density of what it reads.
template <class T>
class StrategyCosts {
  public:
    explicit StrategyCosts(const Product<T>& product)
        : kern_(product_kernels<T>()),
          costs_(kern_.costs[static_cast<size_t>(cpu_kind())]),
          a_(normalized(product.a)),
          b_(normalized(product.b)),
          bits_(product.bits) {}

    double at(Strategy strategy, double density) const {
        switch (strategy) {
            case Strategy::kSkipA:
                return cost(skip_terms(kern_, density, a_, b_, false), costs_.skip);
            case Strategy::kSkipB:
                return cost(skip_terms(kern_, density, b_.transposed(), a_.transposed(), true),
                            costs_.skip);
            case Strategy::kKept:
                return cost(kept_terms(kern_, density, a_, b_), costs_.kept);
            default:
                return cost(dense_terms(kern_, a_, b_, bits_ != nullptr), costs_.dense);
        }
    }
    // The density that the strategy goes by, from a sample.
    double density(Strategy strategy) const {
        const size_t m = a_.rows, n = b_.cols, work = m * n * a_.cols;
        switch (strategy) {
            case Strategy::kSkipA:
                return nonzero_density(kern_, a_, work);
            case Strategy::kSkipB:
                return nonzero_density(kern_, b_, work);
            case Strategy::kKept:
                return mask_density(bits_, m * n, work);
            default:
                return 1;
        }
    }

  private:
    const ProductKernels<T>& kern_;
    const Costs& costs_;
    Matrix<const T> a_, b_;
    const std::uint8_t* bits_;
};

template <class T>
Choice cheapest(const Product<T>& product, const StrategyCosts<T>& costs) {
    const size_t m = product.a.rows, k = product.a.cols, n = product.b.cols;
    constexpr size_t kFewest = 4;  // rows, columns or terms that another strategy pays for
    Strategy best = Strategy::kDense;
    double best_cost = costs.at(best, 1);
    // Takes a sample only where it matters: where the strategy is cheaper at some densities and
    // dearer at others.
    const auto offer = [&](Strategy strategy) {
        if (costs.at(strategy, 0) >= best_cost) return;
        double found = costs.at(strategy, 1);
        if (found >= best_cost) found = costs.at(strategy, costs.density(strategy));
        if (found >= best_cost) return;
        best = strategy;
        best_cost = found;
    };
    if (m >= kFewest && n >= kFewest && k >= kFewest) {
        if (product.bits != nullptr) offer(Strategy::kKept);
        if (product.skip.a) offer(Strategy::kSkipA);
        // With fewer terms, the outputs to transpose are too many.
        if (product.skip.b && k >= 4 * kFewest) offer(Strategy::kSkipB);
    }
    return {best, best_cost / 1000};
}

}  // namespace

template <class T>
Choice choose(const Product<T>& product) {
    const Skip skip = product.skip;
    if (product.a.cols == 0) return {Strategy::kDense, 0};
    const Strategy forced =
        !skip.a && !skip.b && product.bits == nullptr ? Strategy::kDense : product.strategy;
    // Counting would take longer than it can save.
    constexpr size_t kTinyWork = size_t{1} << 15;
    if (forced == Strategy::kDense && product.a.rows * product.a.cols * product.b.cols <= kTinyWork)
        return {forced, 0};
    const StrategyCosts<T> costs(product);
    if (forced == Strategy::kChosen) return cheapest(product, costs);
    return {forced, costs.at(forced, costs.density(forced)) / 1000};
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

template Choice choose(const Product<float>&);
template Choice choose(const Product<double>&);
template std::vector<std::pair<const char*, double>> product_terms(const Product<float>&, double);
template std::vector<std::pair<const char*, double>> product_terms(const Product<double>&, double);

}  // namespace dropwise::ops
