// Optimizer steps: argument order of python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here is only what would corrupt memory.
#include "ops/optimizer.hpp"

#include <pybind11/typing.h>

#include "bindings/elements.hpp"

namespace dropwise {
namespace {

using Scalars = py::typing::Tuple<py::float_, py::ellipsis>;

double number(const Scalars& scalars, std::size_t i) {
    const double value = PyFloat_AsDouble(PyTuple_GET_ITEM(scalars.ptr(), i));
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return value;
}

AdamScalars adam_scalars(const Scalars& s) {
    require(s.size() == 7, "scalars must be the 7 of AdamScalars");
    return {number(s, 0), number(s, 1), number(s, 2), number(s, 3),
            number(s, 4), number(s, 5), number(s, 6)};
}

SGDScalars sgd_scalars(const Scalars& s) {
    require(s.size() == 4, "scalars must be the 4 of SGDScalars");
    return {number(s, 0), number(s, 1), number(s, 2) != 0, number(s, 3)};
}

// What a step changes besides p: as many elements, of float for 16-bit parameters and else of
// their type.  None: a null pointer.
void* beside(const py::object& field, const Parameters& x) {
    if (field.is_none()) return nullptr;
    require(py::isinstance<py::array>(field), "m, v, velocity and master must be arrays or None");
    auto array = py::reinterpret_borrow<py::array>(field);
    const Element wanted = x.element == Element::f64 ? Element::f64 : Element::f32;
    require(size_of(array) == x.n && element_of(array) == wanted,
            "m, v, velocity and master must have the size of p, and its dtype or float32");
    return array.mutable_data();
}

Parameters parameters(py::array& p, const py::array& g, const py::object& master) {
    Parameters x{element_of(p), size_of(p), p.mutable_data(), g.data(), nullptr};
    require(size_of(g) == x.n && element_of(g) == x.element, "g must have size and dtype of p");
    x.master = static_cast<float*>(beside(master, x));
    const bool is_half = x.element == Element::f16 || x.element == Element::bf16;
    require(is_half == (x.master != nullptr), "16-bit parameters, and no others, have a master");
    return x;
}

void bind_adam_step(py::array p, const py::array& g, const py::object& m, const py::object& v,
                    const Scalars& scalars, const py::object& master) {
    const Parameters x = parameters(p, g, master);
    void* const mean = beside(m, x);
    void* const square = beside(v, x);
    require(mean != nullptr && square != nullptr, "m and v must be arrays");
    const AdamScalars s = adam_scalars(scalars);
    const MaybeRelease release(x.n);
    adam_step(x, mean, square, s);
}

void bind_sgd_step(py::array p, const py::array& g, const py::object& velocity,
                   const Scalars& scalars, const py::object& master) {
    const Parameters x = parameters(p, g, master);
    void* const moving = beside(velocity, x);
    const SGDScalars s = sgd_scalars(scalars);
    const MaybeRelease release(x.n);
    sgd_step(x, moving, s);
}

}  // namespace

void bind_optimizer(py::module_& m) {
    m.def("adam_step", &bind_adam_step, py::arg("p"), py::arg("g"), py::arg("m"), py::arg("v"),
          py::arg("scalars"), py::arg("master") = py::none());
    m.def("sgd_step", &bind_sgd_step, py::arg("p"), py::arg("g"), py::arg("velocity"),
          py::arg("scalars"), py::arg("master") = py::none());
}

}  // namespace dropwise
