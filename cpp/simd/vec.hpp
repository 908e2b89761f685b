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

// What stands without it, here and in avx512.hpp, is for Microsoft's compiler on x86-64, which has
// NEVER compiled it.
#if defined(__GNUC__) || defined(__clang__)
#define DROPWISE_HAS_BUILTINS 1
#else
#include <intrin.h>
#endif

// Keeps a value in a register, for compilers that fold its load into arithmetic where that is slow.
#if !defined(DROPWISE_KEEP_APART)
#define DROPWISE_KEEP_APART(v) static_cast<void>(0)
#endif

// Before a short loop over a constant number of registers that the compiler must unroll.
#if defined(__clang__)
#define DROPWISE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define DROPWISE_UNROLL _Pragma("GCC unroll 16")
#else
#define DROPWISE_UNROLL
#endif

namespace {
namespace simd {

// Of a word that is not 0; trailing_zeros() of each set takes 0 too.
inline std::size_t count_trailing_zeros(std::uint64_t word) {
#if defined(DROPWISE_HAS_BUILTINS)
    return static_cast<std::size_t>(__builtin_ctzll(word));
#else
    unsigned long index;
    _BitScanForward64(&index, word);
    return index;
#endif
}

// Loops over these become vectors, where compilers know them.
inline float square_root(float x) {
#if defined(DROPWISE_HAS_BUILTINS)
    return __builtin_sqrtf(x);
#else
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#endif
}
inline double square_root(double x) {
#if defined(DROPWISE_HAS_BUILTINS)
    return __builtin_sqrt(x);
#else
    return _mm_cvtsd_f64(_mm_sqrt_pd(_mm_set1_pd(x)));
#endif
}

// Eight bytes of a packed mask, wherever they lie.
inline std::uint64_t load_word(const std::uint8_t* p) {
    std::uint64_t word = 0;
#if defined(DROPWISE_HAS_BUILTINS)
    __builtin_memcpy(&word, p, sizeof(word));
#else
    for (int b = 0; b < 8; ++b) word |= std::uint64_t{p[b]} << (8 * b);
#endif
    return word;
}
inline void store_word(std::uint8_t* p, std::uint64_t word) {
#if defined(DROPWISE_HAS_BUILTINS)
    __builtin_memcpy(p, &word, sizeof(word));
#else
    for (int b = 0; b < 8; ++b) p[b] = static_cast<std::uint8_t>(word >> (8 * b));
#endif
}

}  // namespace simd
}  // namespace
