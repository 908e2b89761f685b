// What blocks.hpp declares and needs no inlining.
#include "ops/products/blocks.hpp"

#include "core/dispatch.hpp"

namespace dropwise::ops {

template <>
const ProductKernels<float>& product_kernels<float>() {
    return kernels().products_f32;
}
template <>
const ProductKernels<double>& product_kernels<double>() {
    return kernels().products_f64;
}

template <class T>
void copy_matrix(const ProductKernels<T>& kern, Matrix<const T> from, Matrix<T> to) {
    if (to.col_stride == 1) {
        kern.copy(to.rows, to.cols, from.data, from.row_stride, from.col_stride, to.data,
                  to.row_stride);
    } else if (to.row_stride == 1) {
        copy_matrix(kern, from.transposed(), to.transposed());
    } else {
        for (size_t i = 0; i < to.rows; ++i)
            for (size_t j = 0; j < to.cols; ++j) *to.at(i, j) = *from.at(i, j);
    }
}

template void copy_matrix(const ProductKernels<float>&, Matrix<const float>, Matrix<float>);
template void copy_matrix(const ProductKernels<double>&, Matrix<const double>, Matrix<double>);

}  // namespace dropwise::ops
