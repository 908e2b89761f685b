#include "bindings/bind.hpp"

namespace dropwise {

void bind_matmul(py::module_& m) {
    (void)m;
}

}  // namespace dropwise
