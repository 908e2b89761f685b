// Vector operations lane by lane, for sets that have no instruction for them: NEON and the portable
// set.
//
// V is a Vec of the set.  Included by the headers of these sets only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

template <class V, class T>
typename V::Reg load_lanes(const T* p, std::size_t n) {
    T part[V::kLanes] = {};
    for (std::size_t l = 0; l < n; ++l) part[l] = p[l];
    return V::load(part);
}

template <class V, class T>
void store_lanes(T* p, typename V::Reg v, std::size_t n) {
    T part[V::kLanes];
    V::store(part, v);
    for (std::size_t l = 0; l < n; ++l) p[l] = part[l];
}

template <class V, class T>
typename V::Reg expand_lanes(std::uint64_t bits, const T* from) {
    T lanes[V::kLanes];
    for (std::size_t l = 0; l < V::kLanes; ++l, bits >>= 1) {
        lanes[l] = bits & 1 ? *from : 0;
        from += bits & 1;
    }
    return V::load(lanes);
}

// Writes up to one element past those whose bit is 1.
template <class V, class T>
void compress_lanes(std::uint64_t bits, typename V::Reg v, T* to) {
    T lanes[V::kLanes];
    V::store(lanes, v);
    for (std::size_t l = 0; l < V::kLanes; ++l, bits >>= 1) {
        *to = lanes[l];
        to += bits & 1;
    }
}

// The positions of a byte's ones plus `first`, side by side in to[], and anything after them up
// to 8.
inline void list_bits(std::uint64_t byte, std::size_t first, std::uint8_t* to) {
    for (std::size_t i = 0; i < 8; ++i, byte >>= 1) {
        *to = static_cast<std::uint8_t>(first + i);
        to += byte & 1;
    }
}

}  // namespace simd
}  // namespace
