// Products: dense, and skipping what is zero or not wanted.
#pragma once

#include <cstdint>

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

// out[M, N] = a[M, K] b[K, N], plus bias[N], then ReLU, then times scale where the bit is 1 and
// +0.0 elsewhere.  Any strides; T is float or double.  Null pointers leave a step out.  `bits` is a
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
    // In a chain: whether it adds up the rows that the chain is about, which are its k, with none
    // of the steps above.  Otherwise they are the rows of a and out.
    bool over_rows = false;
    // In a chain: whether out, which is contiguous, serves only as an operand (all of it, perhaps
    // transposed) of products that follow.  It may then be left as it is.
    bool temporary = false;
};

// The result depends neither on the number of threads nor on their timing.
template <class T>
void multiply(const Product<T>& product);

}  // namespace dropwise::ops
