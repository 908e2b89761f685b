// What every binding file shares: pybind11 and the list of families.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <thread>

namespace py = pybind11;

namespace dropwise {

// Lets other Python threads run while it lives.
//
// Unlike py::gil_scoped_release it survives the end of the interpreter: until Python 3.14, a daemon
// thread that wants the GIL back by then is unwound by pthread_exit(), which would end in
// std::terminate().  As Python 3.14 does, let it wait for the end of the process instead.
class GilRelease {
  public:
    GilRelease() : state_(PyEval_SaveThread()) {}
    GilRelease(const GilRelease&) = delete;
    GilRelease& operator=(const GilRelease&) = delete;
    ~GilRelease() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }

  private:
    PyThreadState* state_;
};

void bind_config(py::module_& m);
void bind_elementwise(py::module_& m);
void bind_products(py::module_& m);

}  // namespace dropwise
