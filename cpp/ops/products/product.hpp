// One product: the record that says what to compute, and the function that computes it.
//
// What is not here: how it is computed (dense, skip, kept), which of these pays (choice), and
// several products at once (chain).
#pragma once

#include <cstdint>

#include "core/matrix.hpp"

namespace dropwise::ops {

// How a product is computed: densely, past the zeros of an operand, or only where bits are 1.
// kChosen leaves that to the measured density.  Tests and benches force one of the others, which
// must be one that the operands allow.
enum class Strategy { kChosen, kDense, kSkipA, kSkipB, kKept };

// The operands whose exact zeros need not be multiplied.  A zero of such an operand contributes
// nothing, not even NaN against an infinity.
struct Skip {
    bool a, b;
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
    // In a chain: whether it sums over the rows that the chain shares, which are then its k, with
    // none of the steps above.  Otherwise those are the rows of a and out.
    bool over_rows = false;
    // In a chain: whether only later products of the chain read out, which is contiguous: all of
    // it, perhaps transposed.  What out holds in the end is then undefined.
    bool temporary = false;
    Strategy strategy = Strategy::kChosen;
};

// The result depends neither on the number of threads nor on their timing.  Throws std::bad_alloc
// if there is no memory for packed operands; out is undefined then.
template <class T>
void multiply(const Product<T>& product);

}  // namespace dropwise::ops
