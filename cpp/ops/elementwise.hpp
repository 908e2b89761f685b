// Dropout, its gradient and ReLU on contiguous arrays of n elements.
//
// Arrays are aligned to their elements; `out` is `x` or shares no memory with it.  Packed masks
// have ceil(n / 8) bytes.  No result depends on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"

namespace dropwise {

// out = scale * x where the mask of elements [offset, offset + n) keeps, else +0.0.  The mask goes
// to `bits` unless that is null.
void dropout_forward(Element element, const void* x, void* out, std::size_t n, std::uint8_t* bits,
                     const MaskSpec& spec, std::uint64_t offset, double scale);

// out = scale * x where the bit is 1, else +0.0.
void apply_bits(Element element, const void* x, void* out, std::size_t n, const std::uint8_t* bits,
                double scale);

// out = +0.0 and bit 0 where x <= 0, else x and bit 1.
void relu(Element element, const void* x, void* out, std::size_t n, std::uint8_t* bits);

// Bit 1 where x != 0.
void nonzero_bits(Element element, const void* x, std::size_t n, std::uint8_t* bits);

}  // namespace dropwise
