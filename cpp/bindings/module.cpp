// The extension module dropwise._native: one bind function per family.
#include "bindings/bind.hpp"

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
    dropwise::bind_config(m);
    dropwise::bind_elementwise(m);
    dropwise::bind_memory(m);
    dropwise::bind_products(m);
    dropwise::bind_optimizer(m);
    dropwise::bind_softmax(m);
}
