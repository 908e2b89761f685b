// Products: dense, and skipping what is zero or not wanted.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matrix.hpp"

namespace dropwise::ops {

// How a product is computed: densely, skipping the zeros of an operand, or only where bits are 1.
enum class Way { kChoose, kDense, kSkipA, kSkipB, kKeep };

// The operands whose exact zeros need not be multiplied.  A zero of such an operand contributes
// nothing, not even NaN against an infinity.  `way` is left to the measured density, but for tests
// and benches, which must not ask for one that the operands do not allow.
struct Skip {
    bool a, b;
    Way way = Way::kChoose;
};

// out[M, N] = a[M, K] b[K, N], plus bias[N], then ReLU, then times scale where the bit is 1 and +0.0
// elsewhere.  Any strides; T is float or double.  Null pointers leave a step out.  `bits` is a
// packed mask over the C order of out; `nonzero` gets that of what is not zero in out (then in C
// order).
template <class T>
struct Product {
    Matrix<const T> a, b;
    Matrix<T> out;
    const T* bias = nullptr;
    bool relu = false;
    const std::uint8_t* bits = nullptr;
    T scale = 1;
    Skip skip{false, false};
    std::uint8_t* nonzero = nullptr;
    // Among products over the same rows: whether it adds these up (they are its k), without any of
    // the steps.  Otherwise they are those of a and out.
    bool over_rows = false;
    // Whether only the products after it need what it writes: out may then be left as it is.
    bool temporary = false;
};

// The result depends neither on the number of threads nor on their timing.
template <class T>
void multiply(const Product<T>& product);

// One product after the other, each with what those before it wrote.  If they have the same rows
// and each is a small matter for a row, some rows go through all of them before the next do, so
// that what one product writes is still in the cache when another reads it.
template <class T>
void multiply_all(const std::vector<Product<T>>& products);

// What the choice of a way counts for one of them, at that density; bench/costs.py fits what each
// count is worth.  `kept`: outputs that a mask drops are computed and cleared.
template <class T>
std::vector<double> product_terms(Matrix<const T> a, Matrix<const T> b, Way way, bool kept,
                                  double density);

}  // namespace dropwise::ops
