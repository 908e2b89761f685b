#include "ops/products/product.hpp"

#include <atomic>
#include <cmath>
#include <new>

#include "ops/elementwise.hpp"
#include "ops/products/choice.hpp"
#include "ops/products/dense.hpp"
#include "ops/products/kept.hpp"
#include "ops/products/skip.hpp"

namespace dropwise::ops {

namespace {

template <class T>
void compute(Strategy strategy, Matrix<const T> a, Matrix<const T> b, const Finish<T>& finish,
             Skip skip) {
    const Matrix<T> c = finish.c;
    // A product that skips all it may has no NaN to look for.
    const Epilogue<T>& e = finish.epilogue;
    const bool plain = e.bias == nullptr && !e.relu && e.bits == nullptr && e.nonzero == nullptr;
    const Finish<T> nothing{finish.kernels, c, {}, false, nullptr};
    switch (strategy) {
        case Strategy::kChosen:
        case Strategy::kDense:
            return dense(a, b, c, finish);
        case Strategy::kSkipA:
            return skip_a(a, b, c, plain && !skip.b ? nothing : finish, true);
        case Strategy::kSkipB: {
            skip_a(b.transposed(), a.transposed(), c.transposed(), nothing, false);
            return plain && !skip.a ? void() : finish.all();
        }
        case Strategy::kKept:
            return keep_only(a, b, c, finish);
    }
}

// The sum of one output again, without the terms that may be skipped.
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

// Dense products multiply zeros too, and 0 * inf is NaN where a skipping product has nothing.  If
// there is a factor that can do this, compute again past the zeros that it may meet, so that what
// is chosen does not show.  If zeros of both operands may be skipped and both have such factors,
// single outputs are done once more; true NaN ends their sums at once.
template <class T>
void repair_nan(Matrix<const T> a, Matrix<const T> b, const Finish<T>& finish, Skip skip) {
    const auto is_zero = [](T x) { return x == 0; };
    const auto not_finite = [](T x) { return !std::isfinite(x); };
    const bool by_a = skip.a && any(a, is_zero) && any(b, not_finite);
    const bool by_b = skip.b && any(b, is_zero) && any(a, not_finite);
    if (!by_a && !by_b) return;
    compute(by_a ? Strategy::kSkipA : Strategy::kSkipB, a, b, finish, Skip{by_a, by_b});
    if (!by_a || !by_b) return;
    for (size_t i = 0; i < finish.c.rows; ++i)
        for (size_t j = 0; j < finish.c.cols; ++j) {
            T& c = *finish.c.at(i, j);
            if (c == c) continue;
            const T sum = sum_without_zeros(a, b, i, j, skip);
            if (sum != sum) continue;
            c = sum;
            finish(i, j, 1, 1);
        }
}

// True only if all of a is finite (and not so large that the sum of a few elements is not).
template <class T>
bool is_finite(const ProductKernels<T>& kern, Matrix<const T> a) {
    if (a.col_stride != 1) a = a.transposed();
    // Without a step nothing is written.
    return a.col_stride == 1 &&
           !kern.finish(a.rows, a.cols, const_cast<T*>(a.data), a.row_stride, Epilogue<T>{});
}

// True if the zeros that may be skipped meet finite factors only, so that no output needs to be
// looked at for what they did.  Not asked where the factors are more than the outputs.
template <class T>
bool harmless_zeros(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
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
    Epilogue<T> epilogue{product.bias, product.relu,  product.bits,   0,
                         out.cols,     product.scale, product.nonzero};
    if (out.rows == 0 || out.cols == 0) return;
    const ProductKernels<T>& kern = product_kernels<T>();
    const bool skipping = skip.a || skip.b;
    // Bits can be written along with the outputs where no two rows or tasks share a byte of them.
    std::uint8_t* const nonzero = epilogue.nonzero;
    const bool bits_along = out.cols % 8 == 0 && kern.tile_cols % 8 == 0;
    if (!bits_along) epilogue.nonzero = nullptr;
    const bool steps = epilogue.bias != nullptr || epilogue.relu || epilogue.bits != nullptr ||
                       epilogue.nonzero != nullptr;
    const bool needed = steps || (skipping && !harmless_zeros(kern, a, b, skip));

    const bool direct = out.col_stride == 1 || !needed;
    const Scratch<T> rows(Slot::kOutput, direct ? 0 : out.rows * out.cols);
    if (!direct && rows.get() == nullptr) throw std::bad_alloc();
    const Matrix<T> to =
        direct ? out
               : Matrix<T>{rows.get(), out.rows, out.cols, static_cast<ptrdiff_t>(out.cols), 1};
    std::atomic<bool> saw_nan{false};
    const Finish<T> finish{kern, to, epilogue, needed, &saw_nan};
    compute(strategy_of(product), a, b, finish, skip);
    if (skipping && saw_nan.load(std::memory_order_relaxed)) repair_nan(a, b, finish, skip);
    if (!direct) copy_matrix(kern, read_only(to), out);
    if (nonzero != nullptr && !bits_along)
        nonzero_bits(kElementOf<T>, out.data, out.rows * out.cols, nonzero);
}

template void multiply(const Product<float>&);
template void multiply(const Product<double>&);

}  // namespace dropwise::ops
