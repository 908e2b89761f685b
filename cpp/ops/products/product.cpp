// Runs one product by its strategy, and repairs NaN that skipped zeros must not make.
#include "ops/products/product.hpp"

#include <atomic>
#include <cmath>

#include "ops/elementwise.hpp"
#include "ops/products/choice.hpp"
#include "ops/products/dense.hpp"
#include "ops/products/kept.hpp"
#include "ops/products/skip.hpp"

namespace dropwise::ops {

namespace {

template <class T>
void compute(Strategy strategy, Matrix<const T> a, Matrix<const T> b,
             const EpilogueCaller<T>& epilogue, Skip skip, size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    const Matrix<T>& c = epilogue.c;
    // A product that skips all it may has met no zero, and so made no NaN that needs repair.
    const Epilogue<T>& e = epilogue.origin;
    const bool plain = e.bias == nullptr && !e.relu && e.bits == nullptr && e.nonzero == nullptr;
    switch (strategy) {
        case Strategy::kChosen:
        case Strategy::kDense:
            return multiply_dense(a, b, epilogue, threads);
        case Strategy::kSkipA:
            return multiply_skipping(
                a, b, plain && !skip.b ? EpilogueCaller<T>::none(kern, c) : epilogue, threads);
        case Strategy::kSkipB:
            multiply_skipping(b.transposed(), a.transposed(),
                              EpilogueCaller<T>::none(kern, c.transposed()), threads);
            if (!plain || skip.a) epilogue.apply_to_all();
            return;
        case Strategy::kKept:
            return multiply_kept(a, b, epilogue, threads);
    }
}

// The sum of one output, without the terms that may be skipped.
template <class T>
T sum_without_zeros(Matrix<const T> a, Matrix<const T> b, size_t i, size_t j, Skip skip) {
    T sum = 0;
    for (size_t p = 0; p < a.cols && sum == sum; ++p) {
        const T x = *a.at(i, p), y = *b.at(p, j);
        if ((skip.a && x == 0) || (skip.b && y == 0)) continue;
        sum += x * y;
    }
    return sum;
}

template <class T, class Predicate>
bool any(Matrix<const T> a, Predicate&& predicate) {
    for (size_t i = 0; i < a.rows; ++i)
        for (size_t j = 0; j < a.cols; ++j)
            if (predicate(*a.at(i, j))) return true;
    return false;
}

// Dense products multiply zeros too: 0 * inf is NaN, where a skipping product adds nothing.  If an
// operand has factors that are not finite, the product is computed again, skipping the zeros of the
// other one, so that the result does not depend on the strategy.  If both operands have zeros that
// may be skipped and factors that are not finite, outputs that are still NaN are computed once
// more, one by one; the sum of an output that stays NaN ends early.
template <class T>
void repair_nan(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue, Skip skip,
                size_t threads) {
    const auto is_zero = [](T x) { return x == 0; };
    const auto not_finite = [](T x) { return !std::isfinite(x); };
    const bool by_a = skip.a && any(a, is_zero) && any(b, not_finite);
    const bool by_b = skip.b && any(b, is_zero) && any(a, not_finite);
    if (!by_a && !by_b) return;
    compute(by_a ? Strategy::kSkipA : Strategy::kSkipB, a, b, epilogue, Skip{by_a, by_b}, threads);
    if (!by_a || !by_b) return;
    for (size_t i = 0; i < epilogue.c.rows; ++i)
        for (size_t j = 0; j < epilogue.c.cols; ++j) {
            T& output = *epilogue.c.at(i, j);
            if (output == output) continue;
            const T sum = sum_without_zeros(a, b, i, j, skip);
            if (sum != sum) continue;
            output = sum;
            epilogue.apply_to_block(i, j, 1, 1);
        }
}

// True only if all of a is finite (and not so large that the sum of a few elements overflows).
template <class T>
bool is_finite(const ProductKernels<T>& kern, Matrix<const T> a) {
    if (a.col_stride != 1) a = a.transposed();
    if (a.col_stride != 1) return false;
    // An epilogue without a step writes nothing: it only looks for NaN.
    const Epilogue<T> no_step{};
    return !kern.apply_epilogue(a.rows, a.cols, const_cast<T*>(a.data), a.row_stride, no_step);
}

// True if the zeros that may be skipped meet finite factors only, so that outputs need not be
// searched for NaN.  False where there are more factors than outputs: then the search costs less.
template <class T>
bool only_finite_factors(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
                         Skip skip) {
    const size_t factors = a.cols * ((skip.a ? b.cols : 0) + (skip.b ? a.rows : 0));
    return factors < a.rows * b.cols && (!skip.a || is_finite(kern, b)) &&
           (!skip.b || is_finite(kern, a));
}

}  // namespace

template <class T>
void multiply(const Product<T>& product) {
    const Matrix<const T> a = normalized(product.a), b = normalized(product.b);
    const Matrix<T> out = normalized(product.out);
    const Skip skip = product.skip;
    Epilogue<T> epilogue{product.bias, product.relu,  product.bits, 0,
                         out.cols,     product.scale, nullptr};
    if (out.rows == 0 || out.cols == 0) return;
    const ProductKernels<T>& kern = product_kernels<T>();
    const bool skipping = skip.a || skip.b;
    // Bits can be written along with the outputs where no two rows or tasks share a byte of them.
    const bool bits_along = out.cols % 8 == 0 && kern.tile_cols % 8 == 0;
    if (bits_along) epilogue.nonzero = product.nonzero;
    const bool steps = epilogue.bias != nullptr || epilogue.relu || epilogue.bits != nullptr ||
                       epilogue.nonzero != nullptr;
    const bool needed = steps || (skipping && !only_finite_factors(kern, a, b, skip));

    // The epilogue works on contiguous rows.
    const bool direct = out.col_stride == 1 || !needed;
    const Scratch<T> rows(Slot::kOutput, direct ? 0 : out.rows * out.cols);
    rows.require();
    const Matrix<T> c = direct ? out : contiguous(rows.get(), out.rows, out.cols);
    std::atomic<bool> saw_nan{false};
    const EpilogueCaller<T> caller{kern, c, epilogue, needed, &saw_nan};
    const Choice choice = choose(product);
    const auto threads = static_cast<size_t>(threads_worth(choice.nanoseconds));
    compute(choice.strategy, a, b, caller, skip, threads);
    if (skipping && saw_nan.load(std::memory_order_relaxed))
        repair_nan(a, b, caller, skip, threads);
    if (!direct) copy_matrix(kern, read_only(c), out);
    if (product.nonzero != nullptr && !bits_along)
        nonzero_bits(kElementOf<T>, out.data, out.rows * out.cols, product.nonzero);
}

template void multiply(const Product<float>&);
template void multiply(const Product<double>&);

}  // namespace dropwise::ops
