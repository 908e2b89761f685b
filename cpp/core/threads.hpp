// A small pool of threads that share out numbered tasks.
#pragma once

#include <cstddef>
#include <type_traits>

namespace dropwise {

// DROPWISE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use.
int num_threads() noexcept;
void set_num_threads(int n);  // throws std::invalid_argument if n < 1

namespace detail {
using TaskFn = void (*)(void* context, std::size_t task);
void run_tasks(std::size_t n_tasks, void* context, TaskFn fn);
}  // namespace detail

// Calls body(task) once for every task in [0, n_tasks), in any order, on up to num_threads()
// threads, and returns when all are done.  The caller takes part; runs serially when the pool is
// busy.  What a task computes must not depend on which thread runs it.  body must not throw.
template <class Body>
void parallel_for(std::size_t n_tasks, Body&& body) {
    using B = std::remove_reference_t<Body>;
    detail::run_tasks(n_tasks, const_cast<void*>(static_cast<const void*>(&body)),
                      [](void* context, std::size_t task) { (*static_cast<B*>(context))(task); });
}

}  // namespace dropwise
