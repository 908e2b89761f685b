// The pool: one job at a time, workers that spin for a while before they sleep, and a new pool in
// the child of a fork.
#include "core/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "core/cpu_count.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define DROPWISE_HAS_FORK 1
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace dropwise {
namespace {

// How long a thread polls: longer than the Python code between two calls of a training step, but
// much shorter than a time slice.
constexpr auto kSpin = std::chrono::microseconds(100);

const int cpus = usable_cpus().n;
std::atomic<int> thread_count{0};  // 0: not asked for yet
std::atomic<const char*> thread_source{""};

std::atomic<TeamRunner> team_runner{nullptr};

std::atomic<int> most_threads{1};

void note_threads(int n) {
    int most = most_threads.load(std::memory_order_relaxed);
    while (most < n && !most_threads.compare_exchange_weak(most, n, std::memory_order_relaxed)) {
    }
}

// True in a worker, in a caller while it takes part, and after set_serial(true): a parallel_for in
// there is serial.
thread_local bool inside_task = false;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");  // "yield" does nothing on most cores
#else
    std::this_thread::yield();
#endif
}

// Polls until done() or until kSpin is over; says whether it was done.
template <class Done>
bool spin_until(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            relax();
        }
        std::this_thread::yield();  // the thread to wait for may need this CPU
    } while (std::chrono::steady_clock::now() < deadline);
    return false;
}

// One job at a time.  Threads join and leave a job under mutex_; only claiming a task is lock-free.
//
// Workers are detached and the pool is never destroyed, so a process may exit at any moment: there
// is no destructor to race with a worker, and nothing to join.
class Pool {
  public:
    struct Job {
        detail::TaskFn fn;
        void* context;
        std::size_t n_tasks;
    };

    // How many threads the job was shared out to: 0, with nothing done, if another one is running.
    // 2 <= n_threads <= n_tasks.
    int try_run(const Job& job, int n_threads) {
        if (busy_.exchange(true, std::memory_order_acquire)) return 0;
        if (const TeamRunner runner = team_runner.load(std::memory_order_relaxed)) {
            n_threads = run_in_team(runner, job, n_threads);
        } else {
            const int helpers = n_threads - 1;
            grow(helpers);
            publish(job, helpers);
            work(job);
            retire();
        }
        busy_.store(false, std::memory_order_release);
        return n_threads;
    }

  private:
    // A runtime that starts a team smaller than its last one may end the threads that are left
    // over, and start new ones for the next: so all of a team come, and those beyond n_threads
    // leave at once.
    int run_in_team(TeamRunner runner, const Job& job, int n_threads) {
        struct Team {
            Pool* pool;
            const Job* job;
            int places;
            std::atomic<int> arrived{0};
        } team{this, &job, n_threads};
        next_task_.store(0, std::memory_order_relaxed);
        runner(
            [](void* data) {
                auto& t = *static_cast<Team*>(data);
                if (t.arrived.fetch_add(1, std::memory_order_relaxed) >= t.places) return;
                const bool before = std::exchange(inside_task, true);
                t.pool->work(*t.job);
                inside_task = before;
            },
            &team, 0, 0);
        return std::min(n_threads, team.arrived.load(std::memory_order_relaxed));
    }

    void grow(int workers) {
        for (; workers_ < workers; ++workers_) {
            try {
                std::thread(&Pool::worker, this).detach();
            } catch (const std::exception&) {
                return;  // the system has no more: fewer threads compute the same
            }
        }
    }

    void publish(const Job& job, int helpers) {
        int wake;
        {
            const std::lock_guard lock(mutex_);
            job_ = job;
            open_places_ = helpers;
            next_task_.store(0, std::memory_order_relaxed);
            epoch_.store(epoch_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
            // A worker that is not asleep looks at the epoch before it goes to sleep.
            wake = helpers - (workers_ - asleep_);
        }
        for (; wake > 0; --wake) wake_.notify_one();
    }

    void work(const Job& job) {
        for (;;) {
            const std::size_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
            if (task >= job.n_tasks) return;
            job.fn(job.context, task);
        }
    }

    // Lets no more workers join and waits for those that have.
    void retire() {
        {
            const std::lock_guard lock(mutex_);
            open_places_ = 0;
        }
        const auto done = [this] { return at_work_.load(std::memory_order_acquire) == 0; };
        if (spin_until(done)) return;
        std::unique_lock lock(mutex_);
        done_.wait(lock, done);
    }

    void worker() {
        inside_task = true;
        for (std::uint64_t seen = 0;;) {
            const auto published = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
            // With more threads than CPUs, a thread that spins would keep a working one waiting.
            if (thread_count.load(std::memory_order_relaxed) <= cpus) spin_until(published);
            Job job;
            {
                std::unique_lock lock(mutex_);
                ++asleep_;
                wake_.wait(lock, published);
                --asleep_;
                seen = epoch_.load(std::memory_order_relaxed);
                if (open_places_ == 0) continue;
                --open_places_;
                at_work_.fetch_add(1, std::memory_order_relaxed);
                job = job_;
            }
            work(job);
            const std::lock_guard lock(mutex_);
            if (at_work_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
        }
    }

    std::atomic<bool> busy_{false};  // held by the caller whose job it is
    int workers_ = 0;                // guarded by busy_

    std::mutex mutex_;  // guards the rest, except what is atomic
    std::condition_variable wake_, done_;
    Job job_{};
    int open_places_ = 0;  // workers that may still join the job
    int asleep_ = 0;
    std::atomic<int> at_work_{0};

    // Polled by spinning workers, and written for every task: a cache line each.
    alignas(64) std::atomic<std::uint64_t> epoch_{0};
    alignas(64) std::atomic<std::size_t> next_task_{0};
};

// A union, so that nothing destroys the pool at exit.
union PoolStorage {
    PoolStorage() : pool() {
#if defined(DROPWISE_HAS_FORK)
        pthread_atfork(nullptr, nullptr, [] {
            // The child has none of the workers, and locks may be held by threads that are gone:
            // start with a new pool in the same place.  The old one owns no memory, so nothing is
            // lost.
            new (&storage.pool) Pool;
            team_runner.store(nullptr, std::memory_order_relaxed);
            inside_task = false;
        });
#endif
    }
    ~PoolStorage() {}
    Pool pool;

    static PoolStorage storage;
};
PoolStorage PoolStorage::storage;

}  // namespace

int num_threads() {
    int n = thread_count.load(std::memory_order_relaxed);
    if (n == 0) {
        const CpuCount found = default_num_threads();
        if (thread_count.compare_exchange_strong(n, found.n)) {
            thread_source.store(found.source);
            n = found.n;
        }
    }
    return n;
}

const char* num_threads_source() {
    num_threads();
    return thread_source.load();
}

void set_num_threads(int n) {
    if (n < 1)
        throw std::invalid_argument("number of threads must be at least 1, got " +
                                    std::to_string(n));
    thread_count.store(n);
    thread_source.store("set_num_threads");
}

bool set_serial(bool on) {
    return std::exchange(inside_task, on);
}

int threads_worth(double nanoseconds) {
    constexpr double kShare = 20000;
    if (nanoseconds < 2 * kShare || inside_task) return 1;
    const int most = num_threads();
    if (nanoseconds >= kShare * most) return most;
    return static_cast<int>(nanoseconds / kShare);
}

void set_team_runner(TeamRunner runner) {
    team_runner.store(runner, std::memory_order_relaxed);
}

int take_most_threads() {
    return most_threads.exchange(1, std::memory_order_relaxed);
}

void detail::run_tasks(std::size_t n_tasks, void* context, TaskFn fn, int threads) {
    if (n_tasks > 1 && threads > 1 && !inside_task) {
        const auto n =
            std::min(n_tasks, static_cast<std::size_t>(std::min(threads, num_threads())));
        inside_task = true;
        const int taken =
            n > 1 ? PoolStorage::storage.pool.try_run({fn, context, n_tasks}, static_cast<int>(n))
                  : 0;
        inside_task = false;
        if (taken > 0) return note_threads(taken);
    }
    for (std::size_t task = 0; task < n_tasks; ++task) fn(context, task);
}

}  // namespace dropwise
