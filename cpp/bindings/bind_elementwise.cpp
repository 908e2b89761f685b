// Masks, dropout and ReLU: argument order of python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here only keeps a wrong call from corrupting
// memory.  Arguments
// are plain objects, because casting one to a typed array costs more than a small call.
#include <pybind11/typing.h>

#include "bindings/elements.hpp"
#include "ops/elementwise.hpp"
#include "ops/mask.hpp"

namespace dropwise {
namespace {

Elements elements_of(const py::array& x, py::array& out) {
    const Element type = element_of(x);
    const std::size_t n = size_of(x);
    require(size_of(out) == n, "out must have the size of x");
    require(out.dtype().num() == x.dtype().num(), "out must have the dtype of x");
    return {type, x.data(), out.mutable_data(), n};
}

void check_bits(const py::array& bits, std::size_t n) {
    require(size_of(bits) >= (n + 7) / 8 && bits.itemsize() == 1,
            "bits must be bytes, one for every 8 elements");
}

std::uint8_t* writable_bits(py::array& bits, std::size_t n) {
    check_bits(bits, n);
    return static_cast<std::uint8_t*>(bits.mutable_data());
}

void bind_mask_bits(py::array bits, std::size_t n, double rate, std::uint64_t key,
                    std::uint64_t stream, std::uint64_t offset) {
    std::uint8_t* const to = writable_bits(bits, n);
    const MaybeRelease release(n);
    mask_bits(make_mask_spec(rate, key, stream), offset, n, to);
}

using Numbers = py::typing::Tuple<py::int_, py::ellipsis>;

std::vector<std::uint64_t> numbers_of(const Numbers& tuple) {
    std::vector<std::uint64_t> numbers;
    for (const py::handle number : tuple) numbers.push_back(number.cast<std::uint64_t>());
    return numbers;
}

void bind_mask_box(py::array bits, const Numbers& lengths, const Numbers& strides, double rate,
                   std::uint64_t key, std::uint64_t stream, std::uint64_t offset) {
    const Box box{offset, numbers_of(lengths), numbers_of(strides)};
    require(
        !box.lengths.empty() && box.lengths.size() == box.strides.size() && box.strides.back() == 1,
        "a box has a length and a stride for each dimension, and the last stride is 1");
    const std::size_t n = box.size();
    require(n > 0, "a box must not be empty");
    std::uint8_t* const to = writable_bits(bits, n);
    const MaybeRelease release(n);
    mask_box(make_mask_spec(rate, key, stream), box, to);
}

void bind_dropout_forward(const py::array& x, py::array out, const py::object& bits, double rate,
                          double scale, std::uint64_t key, std::uint64_t stream,
                          std::uint64_t offset) {
    const Elements elements = elements_of(x, out);
    std::uint8_t* saved = nullptr;
    if (!bits.is_none()) {
        require(py::isinstance<py::array>(bits), "bits must be an array or None");
        py::array saved_array = py::reinterpret_borrow<py::array>(bits);
        saved = writable_bits(saved_array, elements.n);
    }
    const MaybeRelease release(elements.n);
    dropout_forward(elements, saved, make_mask_spec(rate, key, stream), offset, scale);
}

void bind_apply_bits(const py::array& x, py::array out, const py::array& bits, double scale) {
    const Elements elements = elements_of(x, out);
    check_bits(bits, elements.n);
    const auto* const mask = static_cast<const std::uint8_t*>(bits.data());
    const MaybeRelease release(elements.n);
    apply_bits(elements, mask, scale);
}

void bind_relu(const py::array& x, py::array out, py::array bits) {
    const Elements elements = elements_of(x, out);
    std::uint8_t* const mask = writable_bits(bits, elements.n);
    const MaybeRelease release(elements.n);
    relu(elements, mask);
}

void bind_nonzero_bits(const py::array& x, py::array bits) {
    const Element element = element_of(x);
    const std::size_t n = size_of(x);
    std::uint8_t* const mask = writable_bits(bits, n);
    const void* const from = x.data();
    const MaybeRelease release(n);
    nonzero_bits(element, from, n, mask);
}

}  // namespace

void bind_elementwise(py::module_& m) {
    m.def("mask_bits", &bind_mask_bits, py::arg("bits"), py::arg("n"), py::arg("rate"),
          py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("mask_box", &bind_mask_box, py::arg("bits"), py::arg("lengths"), py::arg("strides"),
          py::arg("rate"), py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("dropout_forward", &bind_dropout_forward, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("rate"), py::arg("scale"), py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("apply_bits", &bind_apply_bits, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("scale"));
    m.def("relu", &bind_relu, py::arg("x"), py::arg("out"), py::arg("bits"));
    m.def("nonzero_bits", &bind_nonzero_bits, py::arg("x"), py::arg("bits"));
}

}  // namespace dropwise
