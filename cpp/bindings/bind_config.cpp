// How the library was built, what it runs on, and its settings.
#include <cstdint>
#include <map>
#include <string>

#include "bindings/bind.hpp"
#include "build_info.hpp"
#include "core/buffer.hpp"
#include "core/cpu_count.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"

// For threadpoolctl, which finds loaded libraries by their C symbols.
#if defined(_WIN32)
#define DROPWISE_EXPORT extern "C" __declspec(dllexport)
#else
#define DROPWISE_EXPORT extern "C" __attribute__((visibility("default")))
#endif
DROPWISE_EXPORT int dropwise_get_num_threads() {
    return dropwise::num_threads();
}
DROPWISE_EXPORT void dropwise_set_num_threads(int n) {
    dropwise::set_num_threads(n < 1 ? 1 : n);
}

namespace dropwise {

void bind_config(py::module_& m) {
    m.def("built_isas", &built_isas);
    m.def("available_isas", &available_isas);
    m.def("active_isa", [] { return kernels().name; });
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("num_threads", &num_threads);
    m.def("num_threads_source", &num_threads_source);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("set_serial", &set_serial, py::arg("on"));
    m.def(
        "set_team_runner",
        [](std::uintptr_t address) { set_team_runner(reinterpret_cast<TeamRunner>(address)); },
        py::arg("address"), "The address of a `TeamRunner` of core/threads.hpp; 0: none.");
    m.def("take_most_threads", &take_most_threads);
    m.def("cgroup_cpus", &cgroup_cpus, py::arg("root"));
    m.def("fail_allocations", &fail_allocations, py::arg("n"),
          "For tests: let the n-th request for scratch memory from now on fail (0: the next one; "
          "-1: none).\n\nReturns how many were still to be granted before the one chosen earlier; "
          "negative if it has failed.");
    m.def("build_info", [] {
        return std::map<std::string, std::string>{{"compiler", DROPWISE_BUILD_COMPILER},
                                                  {"flags", DROPWISE_BUILD_FLAGS},
                                                  {"type", DROPWISE_BUILD_TYPE},
                                                  {"sanitizer", DROPWISE_BUILD_SANITIZE}};
    });
}

}  // namespace dropwise
