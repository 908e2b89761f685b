// Dense products: every multiply-add is done.
//
// How one is cut into blocks depends on shapes and strides only.  The predicates are public for
// the sake of the choice, which counts what a dense product would have to do.
#pragma once

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

// Whether B is read where it lies rather than packed: it is read once for each tile of rows, and
// with few rows that costs less than packing.
template <class T>
bool reads_b_unpacked(const ProductKernels<T>& kern, size_t m, Matrix<const T> b) {
    return b.col_stride == 1 && m <= (far_apart(b) ? 1 : 2) * kern.max_unpacked_rows;
}

// Whether dot products along k beat tiles.  Tiles leave part of their last vector empty where n is
// not a multiple of lanes; dot products do not.
template <class T>
bool dots_pay(const ProductKernels<T>& kern, size_t n, size_t k) {
    return k >= kern.lanes &&
           (n <= 16 || (n < 4 * kern.lanes && 8 * n < 7 * round_up(n, kern.lanes)));
}
template <class T>
bool takes_dots(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return a.col_stride == 1 && dots_pay(kern, b.cols, a.cols);
}
template <class T>
bool takes_dots_transposed(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return b.row_stride == 1 && b.col_stride != 1 && dots_pay(kern, a.rows, a.cols);
}

// Whether c^T = b^T a^T is computed instead: then A needs no packing, but the result must be
// transposed.
template <class T>
bool takes_transpose(Matrix<const T> a, size_t n) {
    return a.row_stride == 1 && 2 * n < a.rows && (n <= 16 || (n <= 32 && 4 * n <= a.cols));
}

// c = a b and the epilogue, on up to `threads` threads; c is the epilogue's.  Throws
// std::bad_alloc.
template <class T>
void multiply_dense(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                    size_t threads);

}  // namespace dropwise::ops
