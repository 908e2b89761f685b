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

// Calls body(first, count) for consecutive runs of at most kMaskChunk elements, each starting at a
// multiple of kMaskChunk.  What runs where does not depend on the data or the number of threads.
template <class Body>
void for_each_chunk(std::size_t n, Body&& body) {
    constexpr std::size_t kTask = 4 * kMaskChunk;
    const auto run = [&](std::size_t from, std::size_t to) {
        for (std::size_t first = from; first < to; first += kMaskChunk)
            body(first, to - first < kMaskChunk ? to - first : kMaskChunk);
    };
    // Waking another thread costs about as much as a task.
    if (n <= 2 * kTask || num_threads() == 1) {
        run(0, n);
    } else {
        parallel_for((n + kTask - 1) / kTask, [&](std::size_t task) {
            const std::size_t from = task * kTask;
            run(from, n - from < kTask ? n : from + kTask);
        });
    }
}

}  // namespace dropwise
