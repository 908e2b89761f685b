// A small pool of threads that share out numbered tasks.
#pragma once

#include <cstddef>
#include <type_traits>

namespace dropwise {

// What default_num_threads() says (cpu_count.hpp; throws like it until it has succeeded once),
// or the last set_num_threads().
int num_threads();
const char* num_threads_source();
void set_num_threads(int n);  // throws std::invalid_argument if n < 1

namespace detail {
using TaskFn = void (*)(void* context, std::size_t task);
void run_tasks(std::size_t n_tasks, void* context, TaskFn fn);
}  // namespace detail

// Calls body(task) once for every task in [0, n_tasks), in any order, on up to num_threads()
// threads, and returns when all are done.  The caller takes part; runs serially when the pool is
// busy or when called from inside a task.  What a task computes must not depend on which thread
// runs it.  body must not throw.
//
// A worker that finished its last job less than 100 us ago joins within about 1 us.  Waking one
// that sleeps costs the caller about 3 us, and when it arrives is up to the system (10 us to 1 ms),
// so a task should have some 10 us of work.  A single task never leaves the caller.
template <class Body>
void parallel_for(std::size_t n_tasks, Body&& body) {
    using B = std::remove_reference_t<Body>;
    detail::run_tasks(n_tasks, const_cast<void*>(static_cast<const void*>(&body)),
                      [](void* context, std::size_t task) { (*static_cast<B*>(context))(task); });
}

}  // namespace dropwise
