#include "bindings/bind.hpp"

namespace dropwise {

void bind_dropout(py::module_& m) {
    (void)m;
}

}  // namespace dropwise
