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
// Unlike py::gil_scoped_release it survives the end of the interpreter.  Before Python 3.14, a
// daemon thread that asks for the GIL after that end is unwound by pthread_exit(), which would call
// std::terminate().  Here it waits for the end of the process instead, as in Python 3.14.
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

// Throws ValueError.
inline void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}

void bind_config(py::module_& m);
void bind_elementwise(py::module_& m);
void bind_memory(py::module_& m);
void bind_products(py::module_& m);
void bind_optimizer(py::module_& m);
void bind_softmax(py::module_& m);

}  // namespace dropwise
