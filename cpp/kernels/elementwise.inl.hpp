// Dropout, its gradient and ReLU on one chunk, for one instruction set.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  Pointers are aligned to their elements only.
// Nothing here allocates, throws or starts threads; ops/elementwise.cpp cuts the work into chunks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace elementwise {

// 64 bits of a packed mask from element e on; words[e / 64 + 1] must exist.
inline std::uint64_t bits_at(const std::uint64_t* words, std::size_t e) {
    const std::size_t w = e / 64, bit = e % 64;
    return words[w] >> bit | words[w + 1] << 1 << (63 - bit);
}

// Fewer than K::kLanes elements, as a vector whose other lanes are zero.
template <class K>
inline typename K::Vec load_part(const typename K::Element* p, std::size_t n) {
    typename K::Element lanes[K::kLanes] = {};
    for (std::size_t i = 0; i < n; ++i) lanes[i] = p[i];
    return K::load(lanes);
}

template <class K>
inline void store_part(typename K::Element* p, typename K::Vec v, std::size_t n) {
    typename K::Element lanes[K::kLanes];
    K::store(lanes, v);
    for (std::size_t i = 0; i < n; ++i) p[i] = lanes[i];
}

template <class K, bool kStream>
void apply_range(const dropwise::MaskedChunk& chunk, std::size_t from, std::size_t to) {
    const auto* const x = static_cast<const typename K::Element*>(chunk.x);
    auto* const out = static_cast<typename K::Element*>(chunk.out);
    const std::uint64_t* const words = chunk.words;
    const typename K::Scale s = K::scale(chunk.scale);
    const auto part = [&](std::size_t e, std::size_t count) {
        const auto v = K::multiply(load_part<K>(x + e, count), s);
        store_part<K>(out + e, K::keep(v, bits_at(words, e)), count);
    };

    // Stores that cross cache lines cost more than loads that do.
    constexpr std::size_t kAlign = sizeof(typename K::Vec);
    const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(out + from) % kAlign;
    std::size_t e = from + (kAlign - misaligned) % kAlign / sizeof(typename K::Element);
    if (e > to) e = to;
    if (e != from) part(from, e - from);
    for (; e + 64 <= to; e += 64) {
        const std::uint64_t bits = bits_at(words, e);
        DROPWISE_UNROLL for (std::size_t lane = 0; lane < 64; lane += K::kLanes) {
            const auto v = K::multiply(K::load(x + e + lane), s);
            const auto kept = K::keep(v, bits >> lane);
            if (kStream)
                K::stream(out + e + lane, kept);
            else
                K::store(out + e + lane, kept);
        }
    }
    for (; e + K::kLanes <= to; e += K::kLanes)
        K::store(out + e, K::keep(K::multiply(K::load(x + e), s), bits_at(words, e)));
    if (e < to) part(e, to - e);
    if (kStream && to == chunk.n) simd::fence_streams();
}

template <class K>
void apply(const dropwise::MaskedChunk& chunk, std::size_t from, std::size_t to) {
    if (chunk.stream)
        apply_range<K, true>(chunk, from, to);
    else
        apply_range<K, false>(chunk, from, to);
}

// Calls body(vector, position, count) on x from left to right and stores the bits that it returns.
template <class K, class Body>
inline void collect_bits(const typename K::Element* x, std::uint64_t* words, std::size_t n,
                         Body body) {
    for (std::size_t e = 0; e < n; e += 64) {
        const std::size_t end = n - e < 64 ? n - e : 64;
        std::uint64_t word = 0;
        std::size_t lane = 0;
        for (; lane + K::kLanes <= end; lane += K::kLanes)
            word |= body(K::load(x + e + lane), e + lane, K::kLanes) << lane;
        if (lane < end)
            word |= body(load_part<K>(x + e + lane, end - lane), e + lane, end - lane) << lane;
        words[e / 64] = word;
    }
}

template <class K>
void relu(const void* x, void* out, std::uint64_t* words, std::size_t n) {
    auto* to = static_cast<typename K::Element*>(out);
    const auto body = [to](typename K::Vec v, std::size_t e, std::size_t count) {
        const std::uint64_t bits = K::positive(v);
        if (count == K::kLanes)
            K::store(to + e, K::keep(v, bits));
        else
            store_part<K>(to + e, K::keep(v, bits), count);
        return bits;
    };
    collect_bits<K>(static_cast<const typename K::Element*>(x), words, n, body);
}

template <class K>
void nonzero(const void* x, std::uint64_t* words, std::size_t n) {
    collect_bits<K>(static_cast<const typename K::Element*>(x), words, n,
                    [](typename K::Vec v, std::size_t, std::size_t) { return K::nonzero(v); });
}

template <class K>
constexpr dropwise::ElementKernels kernels() {
    return {&apply<K>, &relu<K>, &nonzero<K>};
}

}  // namespace elementwise
}  // namespace
