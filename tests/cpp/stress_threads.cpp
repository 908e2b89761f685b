// Stress of core/threads, meant to run under ThreadSanitizer (which cannot follow a fork; the
// Python tests do that).  Every task of every job must run exactly once, whatever else goes on.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/threads.hpp"

namespace {

std::atomic<int> failures{0};

void check(bool ok, const char* what) {
    if (ok) return;
    if (failures.fetch_add(1) == 0) std::fprintf(stderr, "failed: %s\n", what);
}

// The tasks write plain memory: a task run twice, or a return before all are done, is a race.
void run_job(std::size_t n_tasks, std::vector<std::uint32_t>& ran) {
    ran.assign(n_tasks, 0);
    dropwise::parallel_for(n_tasks, [&](std::size_t task) { ran[task] += 1; });
    for (const std::uint32_t times : ran) check(times == 1, "each task runs exactly once");
}

void run_nested_job(std::size_t n_outer, std::size_t n_inner, std::vector<std::uint32_t>& ran) {
    ran.assign(n_outer * n_inner, 0);
    dropwise::parallel_for(n_outer, [&](std::size_t outer) {
        dropwise::parallel_for(n_inner,
                               [&](std::size_t inner) { ran[outer * n_inner + inner] += 1; });
    });
    for (const std::uint32_t times : ran) check(times == 1, "each nested task runs exactly once");
}

void caller(unsigned seed, int jobs) {
    std::vector<std::uint32_t> ran;
    for (int job = 0; job < jobs; ++job) {
        seed = seed * 1664525u + 1013904223u;
        const std::size_t n_tasks = seed >> 25;  // 0 to 127
        if (job % 16 == 7)
            run_nested_job(n_tasks, 3, ran);
        else
            run_job(n_tasks, ran);
        if (job % 64 == 9) dropwise::set_num_threads(1 + static_cast<int>(seed >> 8 & 7));
        // Long enough for the workers to go to sleep, now and then.
        if (job % 256 == 200) std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
}

// A runner as OpenMP's: a team of four.
void run_team(void (*fn)(void*), void* data, unsigned, unsigned) {
    std::vector<std::thread> others;
    for (int i = 0; i < 3; ++i) others.emplace_back(fn, data);
    fn(data);
    for (std::thread& t : others) t.join();
}

void run_callers(int n_callers, int jobs) {
    dropwise::set_num_threads(4);
    std::vector<std::thread> callers;
    for (int i = 0; i < n_callers; ++i)
        callers.emplace_back(caller, static_cast<unsigned>(i + 1), jobs / n_callers);
    for (std::thread& t : callers) t.join();
}

}  // namespace

int main(int argc, char** argv) {
    const int jobs = argc > 1 ? std::atoi(argv[1]) : 5000;
    for (const int n_callers : {1, 2, 5}) run_callers(n_callers, jobs);
    dropwise::set_team_runner(run_team);
    for (const int n_callers : {1, 2, 5}) run_callers(n_callers, jobs / 5);
    // Back to the pool, while others are in a team.
    std::thread change([] { dropwise::set_team_runner(nullptr); });
    run_callers(2, jobs / 5);
    change.join();
    std::printf("%d failures\n", failures.load());
    return failures.load() == 0 ? 0 : 1;
}
