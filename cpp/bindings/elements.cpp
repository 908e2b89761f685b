#include "bindings/elements.hpp"

#include <atomic>
#include <string>

namespace dropwise {
namespace {

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

}  // namespace

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

}  // namespace dropwise
