// Dense products.
#pragma once

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

template <class T>
bool few_rows(const ProductKernels<T>& kern, size_t m, Matrix<const T> b) {
    return b.col_stride == 1 && m <= (far_apart(b) ? 1 : 2) * kern.few_rows;
}

// Dot products do not care how many columns there are; tiles leave part of their last vector empty.
template <class T>
bool dots_pay(const ProductKernels<T>& kern, size_t n, size_t k) {
    return k >= kern.lanes &&
           (n <= 16 || (n < 4 * kern.lanes && 8 * n < 7 * round_up(n, kern.lanes)));
}

template <class T>
bool by_dots(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return a.col_stride == 1 && dots_pay(kern, b.cols, a.cols);
}
template <class T>
bool by_dots_transposed(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return b.row_stride == 1 && b.col_stride != 1 && dots_pay(kern, a.rows, a.cols);
}
// By way of the transpose a's rows need no packing, but the result has to be turned back.
template <class T>
bool few_columns(Matrix<const T> a, size_t n) {
    return a.row_stride == 1 && 2 * n < a.rows && (n <= 16 || (n <= 32 && 4 * n <= a.cols));
}

// c = a b and the epilogue.  The way depends on shapes and strides only.  c's columns are
// contiguous unless there is no epilogue.
template <class T>
void dense(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish);

}  // namespace dropwise::ops
