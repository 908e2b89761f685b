// Softmax with cross-entropy, and the gradient of the sigmoid: argument order of
// python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here only keeps a wrong call from corrupting
// memory.
#include "ops/softmax.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "bindings/elements.hpp"

namespace dropwise {
namespace {

void check_shape(const py::array& scores, const py::array& other) {
    require(scores.ndim() == 2 && scores.shape(1) > 0, "scores must have shape (B, C) with C >= 1");
    require(size_of(other) == size_of(scores) && other.dtype().num() == scores.dtype().num(),
            "arrays of probabilities must have shape and dtype of the scores");
}

// One element for each row, of `bytes` bytes and one of these kinds.
void check_rows(const py::array& x, const py::array& scores, const char* kinds, py::ssize_t bytes) {
    const std::string_view allowed(kinds);
    require(
        x.ndim() == 1 && size_of(x) == static_cast<std::size_t>(scores.shape(0)) &&
            x.itemsize() == bytes && allowed.find(x.dtype().kind()) != allowed.npos,
        "labels must be int64, losses float64, correct bool, shares like scores, of shape (B,)");
}

template <class T>
Classified<T> classified(const py::array& scores, const py::array& labels) {
    const auto rows = static_cast<std::size_t>(scores.shape(0));
    const auto classes = static_cast<std::size_t>(scores.shape(1));
    return {rows, classes, static_cast<const T*>(scores.data()),
            static_cast<const std::int64_t*>(labels.data())};
}

template <class T>
bool has_classes(const Classified<T>& x) {
    return std::all_of(x.labels, x.labels + x.rows, [&](std::int64_t label) {
        return static_cast<std::uint64_t>(label) < x.classes;  // which negative ones are not
    });
}

// Calls body with a value of the dtype of `scores`.
template <class Body>
void with_real(const py::array& scores, Body&& body) {
    const Element type = element_of(scores);
    require(type == Element::f32 || type == Element::f64, "arrays must be float32 or float64");
    if (type == Element::f32)
        body(float{});
    else
        body(double{});
}

// None: a label is out of range, and nothing is written.
std::optional<std::pair<double, std::size_t>> bind_forward(const py::array& scores,
                                                           const py::array& labels,
                                                           py::array probabilities,
                                                           py::array losses, py::array correct) {
    check_shape(scores, probabilities);
    check_rows(labels, scores, "i", sizeof(std::int64_t));
    check_rows(losses, scores, "f", sizeof(double));
    check_rows(correct, scores, "b", 1);
    std::optional<std::pair<double, std::size_t>> result;
    with_real(scores, [&](auto zero) {
        using T = decltype(zero);
        const Classified<T> x = classified<T>(scores, labels);
        T* const to = static_cast<T*>(probabilities.mutable_data());
        auto* const loss = static_cast<double*>(losses.mutable_data());
        auto* const right = static_cast<std::uint8_t*>(correct.mutable_data());
        if (!has_classes(x)) return;
        const MaybeRelease release(x.rows * x.classes);
        softmax_cross_entropy(x, to, loss, right);
        result.emplace(sum_by_halves(x.rows, loss),
                       static_cast<std::size_t>(std::count(right, right + x.rows, 1)));
    });
    return result;
}

void bind_gradient(const py::array& probabilities, const py::array& labels,
                   const py::object& shares, py::array out) {
    check_shape(probabilities, out);
    check_rows(labels, probabilities, "i", sizeof(std::int64_t));
    const void* weights = nullptr;
    if (!shares.is_none()) {
        require(py::isinstance<py::array>(shares), "shares must be an array or None");
        const auto array = py::reinterpret_borrow<py::array>(shares);
        check_rows(array, probabilities, "f", probabilities.itemsize());
        weights = array.data();
    }
    with_real(probabilities, [&](auto zero) {
        using T = decltype(zero);
        const Classified<T> x = classified<T>(probabilities, labels);
        require(has_classes(x), "labels must be in [0, C)");
        T* const to = static_cast<T*>(out.mutable_data());
        const MaybeRelease release(x.rows * x.classes);
        softmax_gradient(x, static_cast<const T*>(weights), to);
    });
}

void bind_sigmoid_gradient(const py::array& y, const py::array& dy, py::array out) {
    const std::size_t n = size_of(y);
    for (const py::array* const other : {&dy, static_cast<const py::array*>(&out)})
        require(size_of(*other) == n && other->dtype().num() == y.dtype().num(),
                "y, dy and out must have one size and dtype");
    with_real(y, [&](auto zero) {
        using T = decltype(zero);
        T* const to = static_cast<T*>(out.mutable_data());
        const MaybeRelease release(n);
        sigmoid_gradient(n, static_cast<const T*>(y.data()), static_cast<const T*>(dy.data()), to);
    });
}

}  // namespace

void bind_softmax(py::module_& m) {
    m.def("softmax_cross_entropy", &bind_forward, py::arg("scores"), py::arg("labels"),
          py::arg("probabilities"), py::arg("losses"), py::arg("correct"));
    m.def("softmax_gradient", &bind_gradient, py::arg("probabilities"), py::arg("labels"),
          py::arg("shares"), py::arg("out"));
    m.def("sigmoid_gradient", &bind_sigmoid_gradient, py::arg("y"), py::arg("dy"), py::arg("out"));
}

}  // namespace dropwise
