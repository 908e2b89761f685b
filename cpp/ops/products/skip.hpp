// Products that skip the zeros of an operand.
//
// Rows of a are compressed first: a word says which of 64 elements are not zero, and their values
// stand side by side.  Then tiles of b stay in L1 while the compressed rows pass over them.
#pragma once

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

// How rows are compressed and multiplied.
struct SkipPlan {
    bool pairs;    // two rows share the elements that both have, which pays where these are many
    size_t words;  // taken at a time; more than one: as lists, which pays where a word has few ones
};
inline SkipPlan skip_plan(double nonzero_density, size_t rows) {
    constexpr size_t kManyRows = 256;  // for a tile that does not fit the first-level cache
    const bool lists = nonzero_density < 0.06 && rows >= kManyRows;
    return {nonzero_density > 0.35, lists ? kListDepth / kWordBits : 1};
}

// c = a b and the epilogue, skipping the zeros of a; any strides.  c's columns are contiguous
// unless the epilogue is not needed.  On up to `threads` threads.  Throws std::bad_alloc.
template <class T>
void multiply_skipping(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                       size_t threads);

}  // namespace dropwise::ops
