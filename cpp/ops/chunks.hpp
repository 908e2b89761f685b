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
    constexpr std::size_t kTaskChunks = 4;
    const std::size_t n_chunks = (n + kMaskChunk - 1) / kMaskChunk;
    const auto run = [&](std::size_t from, std::size_t to) {
        for (std::size_t chunk = to; chunk-- > from;) {
            const std::size_t first = chunk * kMaskChunk;
            body(first, n - first < kMaskChunk ? n - first : kMaskChunk);
        }
    };
    // Waking another thread costs about as much as a task.
    if (n_chunks <= 2 * kTaskChunks || num_threads() == 1) {
        run(0, n_chunks);
    } else {
        const std::size_t n_tasks = (n_chunks + kTaskChunks - 1) / kTaskChunks;
        parallel_for(n_tasks, [&](std::size_t task) {
            const std::size_t from = (n_tasks - 1 - task) * kTaskChunks;
            run(from, from + kTaskChunks < n_chunks ? from + kTaskChunks : n_chunks);
        });
    }
}

}  // namespace dropwise
