// Samples of how much of an operand or a mask is not zero.
//
// A sample costs less than a hundredth of the product that it is taken for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "core/matrix.hpp"

namespace dropwise::ops {

// The share of elements of a that are not zero, from 64 elements each in some of the rows; 1 if
// neither rows nor columns are contiguous.  `work`: the multiply-adds of the dense product.
template <class T>
double nonzero_density(const ProductKernels<T>& kern, Matrix<const T> a, std::size_t work);

// The share of ones in a packed mask of n bits, likewise.
double mask_density(const std::uint8_t* bits, std::size_t n, std::size_t work);

}  // namespace dropwise::ops
