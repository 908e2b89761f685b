// Products that skip zeros.
#pragma once

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

// How rows are taken past their zeros: in pairs, where two of them share much; and how many words
// at a time, by lists if it is more than one, where there is little in a word.
struct Passes {
    bool pairs;
    size_t words;
};
inline Passes passes_at(double density, size_t rows) {
    constexpr size_t kMany = 256;  // rows, for a tile that does not fit the first-level cache
    return {density > 0.35, density < 0.06 && rows >= kMany ? kListDepth / kWordBits : 1};
}

// c = a b and the epilogue, skipping the zeros of a.  Any strides.
template <class T>
void skip_a(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish, bool fused);

}  // namespace dropwise::ops
