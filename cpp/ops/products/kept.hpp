// Products that compute only what a mask keeps.
#pragma once

#include <algorithm>

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

constexpr size_t kKeptBlocks = 2;  // blocks of 64 columns that reuse a chunk of those rows

template <class T>
bool must_copy(Matrix<const T> a) {
    return a.col_stride != 1 || (a.rows > 64 && far_apart(a));
}

// How the terms of kept outputs are cut: chunks of equal depth, whole vectors, and what is left.
struct KeptChunks {
    size_t depth, count, tail;

    template <class T>
    KeptChunks(const ProductKernels<T>& kern, size_t k)
        : depth(even_piece(std::max<size_t>(1, k), kern.kept_depth, kern.lanes)),
          count(ceil_div(k, depth)),
          tail(k - (count - 1) * depth) {}
};

// c = a b and the epilogue, only where the epilogue's bits are 1; c's columns are contiguous.
template <class T>
void keep_only(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish);

}  // namespace dropwise::ops
