// A small pool of threads that share out numbered tasks, or another library's threads instead.
#pragma once

#include <cstddef>
#include <limits>
#include <type_traits>

namespace dropwise {

// What default_num_threads() says (cpu_count.hpp; throws like it until it has succeeded once),
// or the last set_num_threads().
int num_threads();
const char* num_threads_source();
void set_num_threads(int n);  // throws std::invalid_argument if n < 1

// Whether all that the calling thread asks for is computed by that thread alone, as inside a task:
// for programs that have a thread on every CPU already.  Returns what was set before.
bool set_serial(bool on);

// Calls fn(data) in each thread of a team, the caller among them, and returns when all calls have.
// The last two arguments are always 0: a team of the runner's own choice, and no flags.  This is
// the interface of GOMP_parallel, by which OpenMP's runtime libraries start a parallel region.
using TeamRunner = void (*)(void (*fn)(void* data), void* data, unsigned threads, unsigned flags);

// From now on tasks are shared out to the teams of `runner` instead of the threads of the pool;
// null goes back to the pool, and so does the child of a fork, in which a team of the parent may
// have no threads.  A program whose other parallel code runs in such teams then has one pool of
// threads, not two that keep each other from the CPUs.
void set_team_runner(TeamRunner runner);

// How many of num_threads() threads that much work, in nanoseconds of one thread, is worth: each
// has 20 us or more to do.  1 inside a task.
int threads_worth(double nanoseconds);

// The most threads that any parallel_for was shared out to since the last call of this; 1 if none
// was.  For tests.
int take_most_threads();

constexpr int kAllThreads = std::numeric_limits<int>::max();

namespace detail {
using TaskFn = void (*)(void* context, std::size_t task);
void run_tasks(std::size_t n_tasks, void* context, TaskFn fn, int threads);
}  // namespace detail

// Calls body(task) once for every task in [0, n_tasks), in any order, on up to `threads` threads
// (or num_threads(), or the size of a runner's team, if that is less), and returns when all are
// done.  The caller takes part; runs serially when the threads are busy or when called from inside
// a task.  What a task computes must not
// depend on which thread runs it.  body must not throw.
//
// A worker that finished its last job less than 100 us ago joins within about 1 us.  Waking one
// that sleeps costs the caller about 3 us, and when it arrives is up to the system (10 us to 1 ms),
// so a task should have some 10 us of work.  A single task never leaves the caller.
template <class Body>
void parallel_for(std::size_t n_tasks, Body&& body, int threads = kAllThreads) {
    using B = std::remove_reference_t<Body>;
    detail::run_tasks(
        n_tasks, const_cast<void*>(static_cast<const void*>(&body)),
        [](void* context, std::size_t task) { (*static_cast<B*>(context))(task); }, threads);
}

}  // namespace dropwise
