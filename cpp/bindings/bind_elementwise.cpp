// Masks, dropout and ReLU: argument order of python/dropwise/_backends/protocol.py.
//
// The Python side has validated; what is checked here only keeps a wrong call from corrupting
// memory.  Arguments are plain objects, because casting one to a typed array costs more than a
// small call.
#include <pybind11/typing.h>

#include <algorithm>
#include <optional>

#include "bindings/elements.hpp"
#include "bindings/tensors.hpp"
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

// Elements that are computed before Python looks at signals again: less than half a second with the
// slowest kernels.  A multiple of what kernels take at a time, so that pieces change no result.
constexpr std::size_t kPiece = std::size_t{1} << 26;

// Calls compute(begin, count) for pieces of [0, n), without the GIL.  Between them a signal may end
// the call, with an exception of its handler such as KeyboardInterrupt.
template <class Compute>
void in_pieces(std::size_t n, Compute&& compute) {
    std::size_t begin = 0;
    do {
        const std::size_t count = std::min(n - begin, kPiece);
        {
            const MaybeRelease release(count);
            compute(begin, count);
        }
        begin += count;
        if (begin < n && PyErr_CheckSignals() != 0) throw py::error_already_set();
    } while (begin < n);
}

std::size_t bytes_of(Element type, std::size_t n) {
    return n * kElementSize[static_cast<std::size_t>(type)];
}

Elements part(const Elements& whole, std::size_t begin, std::size_t count) {
    const std::size_t bytes = bytes_of(whole.type, begin);
    return {whole.type, static_cast<const char*>(whole.x) + bytes,
            static_cast<char*>(whole.out) + bytes, count};
}

std::uint8_t* part(std::uint8_t* bits, std::size_t begin) {
    return bits == nullptr ? nullptr : bits + begin / 8;
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
    const MaskSpec spec = make_mask_spec(rate, key, stream);
    in_pieces(n, [&](std::size_t begin, std::size_t count) {
        mask_bits(spec, offset + begin, count, part(to, begin));
    });
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

void compute_dropout(const Elements& elements, const py::object& bits, double rate, double scale,
                     std::uint64_t key, std::uint64_t stream, std::uint64_t offset) {
    std::uint8_t* saved = nullptr;
    if (!bits.is_none()) {
        require(py::isinstance<py::array>(bits), "bits must be an array or None");
        py::array saved_array = py::reinterpret_borrow<py::array>(bits);
        saved = writable_bits(saved_array, elements.n);
    }
    const MaskSpec spec = make_mask_spec(rate, key, stream);
    in_pieces(elements.n, [&](std::size_t begin, std::size_t count) {
        dropout_forward(part(elements, begin, count), part(saved, begin), spec, offset + begin,
                        scale);
    });
}

void bind_dropout_forward(const py::array& x, py::array out, const py::object& bits, double rate,
                          double scale, std::uint64_t key, std::uint64_t stream,
                          std::uint64_t offset) {
    compute_dropout(elements_of(x, out), bits, rate, scale, key, stream, offset);
}

py::object bind_dropout_of_tensor(const py::capsule& exchange, const py::object& x,
                                  const py::object& bits, double rate, double scale,
                                  std::uint64_t key, std::uint64_t stream, std::uint64_t offset) {
    std::optional<TensorMap> map = TensorMap::of(exchange, x);
    if (!map) return py::none();
    if (map->elements().n != 0)
        compute_dropout(map->elements(), bits, rate, scale, key, stream, offset);
    return map->result();
}

void bind_apply_bits(const py::array& x, py::array out, const py::array& bits, double scale) {
    const Elements elements = elements_of(x, out);
    check_bits(bits, elements.n);
    const auto* const mask = static_cast<const std::uint8_t*>(bits.data());
    in_pieces(elements.n, [&](std::size_t begin, std::size_t count) {
        apply_bits(part(elements, begin, count), mask + begin / 8, scale);
    });
}

void bind_relu(const py::array& x, py::array out, py::array bits) {
    const Elements elements = elements_of(x, out);
    std::uint8_t* const mask = writable_bits(bits, elements.n);
    in_pieces(elements.n, [&](std::size_t begin, std::size_t count) {
        relu(part(elements, begin, count), part(mask, begin));
    });
}

void bind_nonzero_bits(const py::array& x, py::array bits) {
    const Element element = element_of(x);
    const std::size_t n = size_of(x);
    std::uint8_t* const mask = writable_bits(bits, n);
    const auto* const from = static_cast<const char*>(x.data());
    in_pieces(n, [&](std::size_t begin, std::size_t count) {
        nonzero_bits(element, from + bytes_of(element, begin), count, part(mask, begin));
    });
}

void bind_take_rows(const py::array& x, const py::array& rows, py::array out) {
    const Element element = element_of(x);
    const std::size_t n = size_of(rows), size = size_of(x), taken = size_of(out);
    require(rows.ndim() == 1 && rows.dtype().kind() == 'i' &&
                rows.itemsize() == sizeof(std::int64_t) && rows.dtype().byteorder() != '>',
            "rows must be int64, of one dimension");
    require(x.ndim() > 0 && out.ndim() > 0 && element_of(out) == element,
            "x and out must have one dtype, and dimensions");
    const auto height = static_cast<std::size_t>(x.shape(0));
    const std::size_t width = height == 0 ? 0 : size / height;
    require(static_cast<std::size_t>(out.shape(0)) == n && taken == n * width,
            "out must have a row of x for each index");
    const auto* const index = static_cast<const std::int64_t*>(rows.data());
    for (std::size_t i = 0; i < n; ++i)
        require(static_cast<std::uint64_t>(index[i]) < height, "rows must be those of x");
    void* const to = out.mutable_data();
    const MaybeRelease release(taken);
    take_rows(x.data(), bytes_of(element, width), index, n, to);
}

}  // namespace

void bind_elementwise(py::module_& m) {
    m.def("mask_bits", &bind_mask_bits, py::arg("bits"), py::arg("n"), py::arg("rate"),
          py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("mask_box", &bind_mask_box, py::arg("bits"), py::arg("lengths"), py::arg("strides"),
          py::arg("rate"), py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("dropout_forward", &bind_dropout_forward, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("rate"), py::arg("scale"), py::arg("key"), py::arg("stream"), py::arg("offset"));
    m.def("dropout_of_tensor", &bind_dropout_of_tensor, py::arg("exchange"), py::arg("x"),
          py::arg("bits"), py::arg("rate"), py::arg("scale"), py::arg("key"), py::arg("stream"),
          py::arg("offset"));
    m.def("can_exchange", &is_supported, py::arg("exchange"));
    m.def("apply_bits", &bind_apply_bits, py::arg("x"), py::arg("out"), py::arg("bits"),
          py::arg("scale"));
    m.def("relu", &bind_relu, py::arg("x"), py::arg("out"), py::arg("bits"));
    m.def("nonzero_bits", &bind_nonzero_bits, py::arg("x"), py::arg("bits"));
    m.def("take_rows", &bind_take_rows, py::arg("x"), py::arg("rows"), py::arg("out"));
}

}  // namespace dropwise
