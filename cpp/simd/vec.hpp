// The vector vocabulary: includes the header of the instruction set this unit is compiled for.
//
// Every set defines the same names in an unnamed namespace; kernels are written against them once.
// Grown only on first use.
#pragma once

#if defined(DROPWISE_ISA_avx512)
#include "simd/avx512.hpp"
#elif defined(DROPWISE_ISA_avx2)
#include "simd/avx2.hpp"
#elif defined(DROPWISE_ISA_neon)
#include "simd/neon.hpp"
#else
#include "simd/scalar.hpp"
#endif

#include <cstddef>
#include <cstdint>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

// Short loops over a constant number of registers, before which the compiler must not hesitate.
#if defined(__clang__)
#define DROPWISE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define DROPWISE_UNROLL _Pragma("GCC unroll 16")
#else
#define DROPWISE_UNROLL
#endif

namespace {
namespace simd {

inline std::size_t count_trailing_zeros(std::uint64_t word) {  // word != 0
#if defined(__GNUC__)
    return static_cast<std::size_t>(__builtin_ctzll(word));
#else
    unsigned long index;
    _BitScanForward64(&index, word);
    return index;
#endif
}

}  // namespace simd
}  // namespace
