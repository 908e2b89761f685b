// Packed dropout masks of any length, from any offset.
//
// Cuts them into the chunks of the mask kernels; the contract itself is in kernels/mask.inl.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/kernel_table.hpp"

namespace dropwise {

// rate in [0, 1], stream < 2**56.
MaskSpec make_mask_spec(double rate, std::uint64_t key, std::uint64_t stream) noexcept;

// Writes the mask of elements [offset, offset + n) to ceil(n / 8) bytes: element e is bit e % 8 of
// byte e / 8, 1 = kept; bits past the last are 0.
void mask_bits(const MaskSpec& spec, std::uint64_t offset, std::size_t n, std::uint8_t* bits);

// A part of a global array: the elements `first` + the sum of index * stride, for the indices below
// `lengths` in C order, modulo 2**64.  There is a last dimension, and its stride is 1.
struct Box {
    std::uint64_t first;
    std::vector<std::uint64_t> lengths, strides;

    std::size_t size() const;
};

// Writes the mask of the elements of a box, in their order, as mask_bits does.
void mask_box(const MaskSpec& spec, const Box& box, std::uint8_t* bits);

}  // namespace dropwise
