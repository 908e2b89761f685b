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

// out[M, N] = a[M, K] b[K, N], plus bias[N] unless null, then ReLU if asked.  Any strides.  T is
// float or double.  `nonzero`, unless null, gets the packed mask of what is not zero in out (then
// in C order).  The result depends neither on the number of threads nor on their timing.
template <class T>
void matmul(Matrix<const T> a, Matrix<const T> b, Matrix<T> out, const T* bias, bool relu,
            Skip skip, std::uint8_t* nonzero = nullptr);

// The same times scale where the bit is 1, +0.0 elsewhere; bits is the packed mask over the C order
// of out.
template <class T>
void matmul_kept(Matrix<const T> a, Matrix<const T> b, const std::uint8_t* bits, Matrix<T> out,
                 const T* bias, bool relu, T scale, Skip skip, std::uint8_t* nonzero = nullptr);

// What the choice of a way counts for one of them, at that density; bench/costs.py fits what each
// count is worth.  `kept`: outputs that a mask drops are computed and cleared.
template <class T>
std::vector<double> product_terms(Matrix<const T> a, Matrix<const T> b, Way way, bool kept,
                                  double density);

}  // namespace dropwise::ops
