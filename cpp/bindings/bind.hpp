// What every binding file shares: pybind11 and the list of families.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

namespace dropwise {

void bind_config(py::module_& m);
void bind_dropout(py::module_& m);
void bind_matmul(py::module_& m);

}  // namespace dropwise
