// Products of which only the outputs that a mask keeps are computed (SDDMM).
//
// The mask is the epilogue's.  Chunks of rows of a and 64 columns of b at a time stay in cache
// while the kept outputs are computed, each as a dot product.
#pragma once

#include <algorithm>

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

constexpr size_t kBlocksPerChunk = 2;  // blocks of 64 columns that one chunk of rows is read for

// Whether rows are copied first: if they are not contiguous, or so far apart that they would
// compete for the same sets of the caches.
template <class T>
bool must_copy_rows(Matrix<const T> a) {
    return a.col_stride != 1 || (a.rows > 64 && far_apart(a));
}

// How k is cut: chunks of equal depth, whole vectors, and what is left.
struct KeptChunks {
    size_t depth, count, tail;

    template <class T>
    KeptChunks(const ProductKernels<T>& kern, size_t k)
        : depth(even_piece(std::max<size_t>(1, k), kern.kept_depth, kern.lanes)),
          count(ceil_div(k, depth)),
          tail(k - (count - 1) * depth) {}
};

// c = a b and the epilogue, which has bits, on up to `threads` threads; c's columns are contiguous.
// Throws std::bad_alloc.
template <class T>
void multiply_kept(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                   size_t threads);

}  // namespace dropwise::ops
