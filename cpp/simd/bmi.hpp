// Words and bytes of bits on x86-64 with BMI: what AVX2 and AVX-512 share.
//
// Included by the headers of these sets only, after <immintrin.h>.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

inline void fence_streams() {
    _mm_sfence();
}

inline int trailing_zeros(std::uint64_t w) {
    return static_cast<int>(_tzcnt_u64(w));
}
inline int popcount(std::uint64_t w) {
    return static_cast<int>(_mm_popcnt_u64(w));
}
// The positions of a byte's ones plus `first`, side by side in to[], and anything after them up
// to 8.
inline void list_bits(std::uint64_t byte, std::size_t first, std::uint8_t* to) {
    const std::uint64_t lanes = _pdep_u64(byte, 0x0101010101010101) * 0xff;
    const std::uint64_t list = _pext_u64(0x0706050403020100 + first * 0x0101010101010101, lanes);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                     _mm_cvtsi64_si128(static_cast<long long>(list)));
}
inline void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace simd
}  // namespace
