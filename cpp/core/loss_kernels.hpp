// Contracts of the kernels for losses: a part of kernel_table.hpp.
//
// Included by kernel objects too, so nothing may be included here but <cstddef>, <cstdint> and
// structs, and no inline function may stand here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// Rows of one call at most.
constexpr std::size_t kSoftmaxRows = 32;

// What a softmax of some rows leaves, for each of them.
struct SoftmaxRows {
    double top[kSoftmaxRows];        // the largest score; undefined if one is NaN
    double log_total[kSoftmaxRows];  // log(sum of exp(score - top)), which is NaN then
};

// On rows of n >= 1 elements in C order.  Computed in double, in an order that n alone decides, so
// that each set and each backend gives the same bits.
template <class T>
struct LossKernels {
    // p = exp(x - top) / total.
    void (*softmax)(std::size_t rows, std::size_t n, const T* x, T* p, SoftmaxRows& found);
    // out = dy * (1 - y) * y, where `out` may be dy or y.
    void (*sigmoid_gradient)(std::size_t n, const T* y, const T* dy, T* out);
};

}  // namespace dropwise
