// Masks, dropout and ReLU: argument order of python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here only keeps a wrong call from corrupting
// memory.  Arguments
// are plain objects, because casting one to a typed array costs more than a small call.
#include <atomic>
#include <optional>
#include <string>

#include "bindings/bind.hpp"
#include "ops/elementwise.hpp"
#include "ops/mask.hpp"

namespace dropwise {
namespace {

// Shorter calls take less time than releasing and taking back the GIL.
constexpr std::size_t kReleaseElements = 8192;

class MaybeRelease {
  public:
    explicit MaybeRelease(std::size_t n) {
        if (n >= kReleaseElements) release_.emplace();
    }

  private:
    std::optional<GilRelease> release_;
};

// NumPy numbers bfloat16 when ml_dtypes registers it.
bool is_bfloat16(const py::dtype& dtype) {
    static std::atomic<int> known{-1};
    const int num = dtype.num();
    if (num == known.load(std::memory_order_relaxed)) return true;
    if (dtype.itemsize() != 2 || py::str(dtype.attr("name")).cast<std::string>() != "bfloat16")
        return false;
    known.store(num, std::memory_order_relaxed);
    return true;
}

Element element_of(const py::array& x) {
    constexpr int kHalf = 23;  // NPY_HALF, which pybind11 does not name
    const py::dtype dtype = x.dtype();
    const int num = dtype.num();
    if (num == py::dtype::num_of<float>()) return Element::f32;
    if (num == py::dtype::num_of<double>()) return Element::f64;
    if (num == kHalf) return Element::f16;
    if (is_bfloat16(dtype)) return Element::bf16;
    throw py::type_error("dtype must be float32, float64, float16 or bfloat16, got " +
                         py::str(py::handle(dtype)).cast<std::string>());
}

std::size_t size_of(const py::array& x) {
    require((x.flags() & py::array::c_style) != 0, "arrays must be C-contiguous");
    return static_cast<std::size_t>(x.size());
}

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
    m.def("dropout_forward", &bind_dropout_forward, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("rate"), py::arg("scale"), py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("apply_bits", &bind_apply_bits, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("scale"));
    m.def("relu", &bind_relu, py::arg("x"), py::arg("out"), py::arg("bits"));
    m.def("nonzero_bits", &bind_nonzero_bits, py::arg("x"), py::arg("bits"));
}

}  // namespace dropwise
