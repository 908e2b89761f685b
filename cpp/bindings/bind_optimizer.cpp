// Optimizer steps: argument order of python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here is only what would corrupt memory.
#include "ops/optimizer.hpp"

#include <pybind11/typing.h>

#include <vector>

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

// What one parameter moves with: tuples of Python, of which each has so many fields.
struct Moving {
    py::object arrays;  // holds them
    Parameters parameters;
    void* first;   // m or velocity
    void* second;  // v
};

// Reads all before anything moves.
std::vector<Moving> read(const py::object& sequence, py::ssize_t fields) {
    std::vector<Moving> all;
    for (const py::handle item : py::iter(sequence)) {
        require(PyTuple_Check(item.ptr()) && PyTuple_GET_SIZE(item.ptr()) == fields,
                "parameters must be tuples of arrays");
        const auto field = [&](py::ssize_t i) {
            return py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(item.ptr(), i));
        };
        require(py::isinstance<py::array>(field(0)) && py::isinstance<py::array>(field(1)),
                "p and g must be arrays");
        auto p = py::reinterpret_borrow<py::array>(field(0));
        const Parameters x =
            parameters(p, py::reinterpret_borrow<py::array>(field(1)), field(fields - 1));
        all.push_back({py::reinterpret_borrow<py::object>(item), x, beside(field(2), x),
                       fields == 5 ? beside(field(3), x) : nullptr});
    }
    return all;
}

std::size_t elements(const std::vector<Moving>& all) {
    std::size_t n = 0;
    for (const Moving& moving : all) n += moving.parameters.n;
    return n;
}

void bind_adam_step(const py::object& parameters, const Scalars& scalars) {
    const std::vector<Moving> all = read(parameters, 5);
    for (const Moving& moving : all)
        require(moving.first != nullptr && moving.second != nullptr, "m and v must be arrays");
    const AdamScalars s = adam_scalars(scalars);
    const MaybeRelease release(elements(all));
    for (const Moving& moving : all) adam_step(moving.parameters, moving.first, moving.second, s);
}

void bind_sgd_step(const py::object& parameters, const Scalars& scalars) {
    const std::vector<Moving> all = read(parameters, 4);
    const SGDScalars s = sgd_scalars(scalars);
    const MaybeRelease release(elements(all));
    for (const Moving& moving : all) sgd_step(moving.parameters, moving.first, s);
}

}  // namespace

void bind_optimizer(py::module_& m) {
    m.def("adam_step", &bind_adam_step, py::arg("parameters"), py::arg("scalars"));
    m.def("sgd_step", &bind_sgd_step, py::arg("parameters"), py::arg("scalars"));
}

}  // namespace dropwise
