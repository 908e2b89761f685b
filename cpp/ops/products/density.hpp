// Samples of what is not zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "core/matrix.hpp"

namespace dropwise::ops {

// The share of elements that are not zero, from words in some of the rows.
template <class T>
double density(const ProductKernels<T>& kern, Matrix<const T> a, std::size_t work);

// The share of ones in a packed mask of n bits, likewise.
double bit_density(const std::uint8_t* bits, std::size_t n, std::size_t work);

}  // namespace dropwise::ops
