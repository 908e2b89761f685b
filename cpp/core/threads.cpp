#include "core/threads.hpp"

#include <stdexcept>
#include <string>

namespace dropwise {
namespace {
int thread_count = 1;
}

int num_threads() noexcept {
    return thread_count;
}

void set_num_threads(int n) {
    if (n < 1)
        throw std::invalid_argument("number of threads must be at least 1, got " +
                                    std::to_string(n));
    thread_count = n;
}

void detail::run_tasks(std::size_t n_tasks, void* context, TaskFn fn) {
    for (std::size_t task = 0; task < n_tasks; ++task) fn(context, task);
}

}  // namespace dropwise
