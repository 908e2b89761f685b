// A matrix somewhere in memory, with any strides.
#pragma once

#include <cstddef>

namespace dropwise {

// Element (i, j) is data[i * row_stride + j * col_stride].
template <class T>
struct Matrix {
    T* data;
    std::size_t rows, cols;
    std::ptrdiff_t row_stride, col_stride;

    T* at(std::size_t i, std::size_t j) const {
        return data + static_cast<std::ptrdiff_t>(i) * row_stride +
               static_cast<std::ptrdiff_t>(j) * col_stride;
    }
    Matrix block(std::size_t i, std::size_t j, std::size_t m, std::size_t n) const {
        return {at(i, j), m, n, row_stride, col_stride};
    }
    Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

// The same matrix, with a unit stride wherever an extent of one makes the stride meaningless.
template <class T>
Matrix<T> normalized(Matrix<T> a) {
    if (a.cols <= 1) a.col_stride = 1;
    if (a.rows <= 1) a.row_stride = a.col_stride == 1 ? static_cast<std::ptrdiff_t>(a.cols) : 1;
    return a;
}

}  // namespace dropwise
