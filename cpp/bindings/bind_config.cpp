#include "bindings/bind.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace dropwise {

void bind_config(py::module_& m) {
    m.def("built_isas", &built_isas);
    m.def("available_isas", &available_isas);
    m.def("active_isa", [] { return kernels().name; });
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
}

}  // namespace dropwise
