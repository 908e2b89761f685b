// Cuts a run of elements into the chunks of the mask kernels and shares these out.
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

// Calls body(first, count) for runs of at most kMaskChunk elements, each starting at a multiple of
// kMaskChunk.  What is cut where does not depend on the data or the number of threads.
//
// The last run comes first: Linux clears a huge page toward the address that faulted, and on the
// machines measured takes half the time when that is near the page's end.  That matters for outputs
// that were just allocated, and makes no difference for others.
template <class Body>
void for_each_chunk(std::size_t n, Body&& body) {
    const std::size_t n_chunks = (n + kMaskChunk - 1) / kMaskChunk;
    const auto run = [&](std::size_t chunks_before) {
        const std::size_t first = (n_chunks - 1 - chunks_before) * kMaskChunk;
        body(first, n - first < kMaskChunk ? n - first : kMaskChunk);
    };
    // Waking another thread costs about as much as a chunk.
    if (n_chunks <= 2 || num_threads() == 1)
        for (std::size_t i = 0; i < n_chunks; ++i) run(i);
    else
        parallel_for(n_chunks, run);
}

}  // namespace dropwise
