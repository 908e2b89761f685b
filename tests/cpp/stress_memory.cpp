// Stress of core/memory, meant to run under the sanitizers.  What a thread writes to a block that
// it holds must stay, whatever others take, give back and clear.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "core/memory.hpp"

namespace {

std::atomic<int> failures{0};

void check(bool ok, const char* what) {
    if (ok) return;
    if (failures.fetch_add(1) == 0) std::fprintf(stderr, "failed: %s\n", what);
}

struct Held {
    unsigned char* data;
    std::size_t bytes;
    unsigned char mark;
};

bool is_whole(const Held& held) {
    for (const std::size_t at : {std::size_t{0}, held.bytes / 2, held.bytes - 1})
        if (held.data[at] != held.mark) return false;
    return true;
}

void work(unsigned seed, int rounds) {
    std::vector<Held> held;
    for (int round = 0; round < rounds; ++round) {
        seed = seed * 1664525u + 1013904223u;
        if (held.size() < 8 && (seed >> 30) != 0) {
            // Sizes of a few classes, and now and then one of huge pages.
            const std::size_t bytes = (seed >> 8) % ((seed >> 26) == 5 ? 6000000 : 600000) + 1;
            const auto mark = static_cast<unsigned char>(seed >> 16);
            auto* const data = static_cast<unsigned char*>(dropwise::take_block(bytes));
            check(reinterpret_cast<std::uintptr_t>(data) % 64 == 0, "blocks are aligned");
            std::memset(data, mark, bytes);
            held.push_back({data, bytes, mark});
        } else if (!held.empty()) {
            std::swap(held[seed % held.size()], held.back());
            check(is_whole(held.back()), "what a block holds stays");
            dropwise::give_block(held.back().data);
            held.pop_back();
        }
        if (round % 512 == 100) dropwise::clear_kept_memory();
        if (round % 128 == 50) dropwise::set_memory_limit((seed >> 12) % (8 << 20));
    }
    for (const Held& block : held) {
        check(is_whole(block), "what a block holds stays");
        dropwise::give_block(block.data);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 5000;
    for (const unsigned n_threads : {1u, 4u}) {
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < n_threads; ++i) threads.emplace_back(work, i + 1, rounds);
        for (std::thread& thread : threads) thread.join();
        const dropwise::KeptMemory kept = dropwise::kept_memory();
        check(kept.bytes <= kept.limit, "no more than the limit is kept");
        dropwise::clear_kept_memory();
        check(dropwise::kept_memory().bytes == 0 && dropwise::kept_memory().blocks == 0,
              "clearing leaves nothing");
    }
    std::printf("%s\n", failures == 0 ? "ok" : "FAILED");
    return failures == 0 ? 0 : 1;
}
