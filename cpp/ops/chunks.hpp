// Cuts a run of elements into the chunks of the mask kernels and deals them out to threads: what
// masks and elementwise functions share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/kernel_table.hpp"
#include "core/threads.hpp"

namespace dropwise {

// A chunk's packed mask on its way between a kernel's words and the caller's bytes.
struct ChunkMask {
    alignas(64) std::uint64_t words[kMaskWords];

    void load(const std::uint8_t* bits, std::size_t first, std::size_t n) noexcept {
        std::memcpy(words, bits + first / 8, (n + 7) / 8);
    }
    void save(std::uint8_t* bits, std::size_t first, std::size_t n) const noexcept {
        std::memcpy(bits + first / 8, words, (n + 7) / 8);
    }
};

// Chunks that one thread works on in turn: of n elements, from a multiple of kMaskChunk on.
struct Span {
    std::size_t n, first_chunk, end_chunk;

    // Calls body(first, count) for each chunk, the last one first: Linux clears a huge page toward
    // the address that faulted, and on the machines measured takes half the time when that is near
    // the page's end.  That matters for outputs that were just allocated, and for no others.
    template <class Body>
    void for_each_chunk(Body&& body) const {
        for (std::size_t chunk = end_chunk; chunk-- > first_chunk;) {
            const std::size_t first = chunk * kMaskChunk;
            body(first, n - first < kMaskChunk ? n - first : kMaskChunk);
        }
    }
};

// What one element costs, in nanoseconds: to make its mask, and for each of its bytes to read it
// and write the result.  Between what the instruction sets need, and what cache and memory do.
constexpr double kMaskCost = 0.05, kByteCost = 0.03;

// Calls body(span) for spans that make up n elements, of which each costs so much.
template <class Body>
void for_each_span(std::size_t n, double cost, Body&& body) {
    constexpr std::size_t kLongest = 8;  // chunks
    const std::size_t n_chunks = (n + kMaskChunk - 1) / kMaskChunk;
    const int threads = threads_worth(cost * static_cast<double>(n));
    if (threads == 1) {
        body(Span{n, 0, n_chunks});
    } else {
        const std::size_t even = n_chunks / (2 * static_cast<std::size_t>(threads));
        const std::size_t length = even < 1 ? 1 : even < kLongest ? even : kLongest;
        const std::size_t n_spans = (n_chunks + length - 1) / length;
        const auto run_span = [&](std::size_t spans_after) {
            const std::size_t first = (n_spans - 1 - spans_after) * length;
            body(Span{n, first, first + length < n_chunks ? first + length : n_chunks});
        };
        parallel_for(n_spans, run_span, threads);
    }
}

// Calls body(first, count) for the chunks of n elements, of which each costs so much.
template <class Body>
void for_each_chunk(std::size_t n, double cost, Body&& body) {
    for_each_span(n, cost, [&](const Span& span) { span.for_each_chunk(body); });
}

}  // namespace dropwise
