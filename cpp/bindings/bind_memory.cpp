// Arrays in recycled memory.
#include <pybind11/typing.h>

#include <cstdint>
#include <vector>

#include "bindings/bind.hpp"
#include "core/memory.hpp"

namespace dropwise {
namespace {

constexpr const char* kCapsuleName = "dropwise.memory";

// What the base of an array and of all its views holds: it gives the block back with the last one.
py::object capsule_of(void* block) {
    PyObject* const capsule = PyCapsule_New(block, kCapsuleName, [](PyObject* dying) {
        give_block(PyCapsule_GetPointer(dying, kCapsuleName));
    });
    if (capsule == nullptr) {
        give_block(block);
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(capsule);
}

// An uninitialised array in C order.
py::array empty(const py::typing::Tuple<py::int_, py::ellipsis>& shape, const py::dtype& dtype) {
    std::vector<py::ssize_t> lengths;
    lengths.reserve(shape.size());
    auto bytes = static_cast<std::size_t>(dtype.itemsize());
    for (const py::handle length : shape) {
        lengths.push_back(length.cast<py::ssize_t>());
        if (lengths.back() < 0) throw py::value_error("shape must not be negative");
        const auto n = static_cast<std::size_t>(lengths.back());
        if (n != 0 && bytes > static_cast<std::size_t>(PY_SSIZE_T_MAX) / n)
            throw py::value_error("shape is too large");
        bytes *= n;
    }
    constexpr std::uint64_t kHasObjects = 1;  // NPY_ITEM_HASOBJECT
    if ((dtype.flags() & kHasObjects) != 0) throw py::type_error("dtype must hold no objects");
    void* const block = take_block(bytes);
    const py::object base = capsule_of(block);
    return py::array(dtype, std::move(lengths), block, base);
}

}  // namespace

void bind_memory(py::module_& m) {
    m.def("empty", &empty, py::arg("shape"), py::arg("dtype"));
    m.def("kept_bytes", [] { return kept_memory().bytes; });
    m.def("kept_blocks", [] { return kept_memory().blocks; });
    m.def("memory_limit", [] { return kept_memory().limit; });
    m.def("set_memory_limit", &set_memory_limit, py::arg("bytes"));
    m.def("clear_memory", &clear_kept_memory);
}

}  // namespace dropwise
