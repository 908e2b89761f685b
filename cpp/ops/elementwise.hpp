// Dropout, its gradient and ReLU on contiguous arrays.
//
// Packed masks have ceil(n / 8) bytes.  Nothing here needs scratch memory, and no result depends on
// the number of threads.  Strides, shapes and noise shapes are the business of the Python side.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"

namespace dropwise {

// n elements of one type, aligned; `out` is `x` or shares no memory with it.
struct Elements {
    Element type;
    const void* x;
    void* out;
    std::size_t n;
};

// out = scale * x where the mask of elements [offset, offset + n) keeps, else +0.0.  The mask goes
// to `bits` unless that is null.
void dropout_forward(const Elements& elements, std::uint8_t* bits, const MaskSpec& spec,
                     std::uint64_t offset, double scale);

// out = scale * x where the bit is 1, else +0.0.
void apply_bits(const Elements& elements, const std::uint8_t* bits, double scale);

// out = +0.0 and bit 0 where x <= 0, else x and bit 1.
void relu(const Elements& elements, std::uint8_t* bits);

// Bit 1 where x != 0.
void nonzero_bits(Element type, const void* x, std::size_t n, std::uint8_t* bits);

// Copies rows of `bytes` bytes of x, in this order; each index is that of a row of x.
void take_rows(const void* x, std::size_t bytes, const std::int64_t* rows, std::size_t n,
               void* out);

}  // namespace dropwise
