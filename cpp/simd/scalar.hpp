// The vector vocabulary of the portable set: SSE2 where it is the baseline, plain C++ elsewhere.
//
// DROPWISE_NO_SSE2 forces plain C++, so that it can be tested on any machine.
#pragma once

#include <cstdint>

#include "simd/single.hpp"

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(DROPWISE_NO_SSE2)
#include "simd/sse2.hpp"
#else
#include "simd/plain.hpp"
#endif

namespace {
namespace simd {

inline Words bit_xor(Words a, Words b, Words c) {
    return bit_xor(bit_xor(a, b), c);
}

inline int popcount(std::uint64_t w) {
    w -= w >> 1 & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
    return static_cast<int>(((w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}
inline int trailing_zeros(std::uint64_t w) {
    return popcount(~w & (w - 1));
}

}  // namespace simd
}  // namespace
