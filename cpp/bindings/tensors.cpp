#include "bindings/tensors.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "core/memory.hpp"

namespace dropwise {
namespace {

using dlpack::ManagedTensor;

const dlpack::Exchange& exchange_of(const py::capsule& capsule) {
    void* const table = PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsuleName);
    if (table == nullptr) throw py::error_already_set();
    return *static_cast<const dlpack::Exchange*>(table);
}

Element element_of(const dlpack::DataType& dtype) {
    if (dtype.lanes == 1 && dtype.code == dlpack::kFloat) {
        if (dtype.bits == 32) return Element::f32;
        if (dtype.bits == 64) return Element::f64;
        if (dtype.bits == 16) return Element::f16;
    }
    if (dtype.lanes == 1 && dtype.code == dlpack::kBfloat && dtype.bits == 16) return Element::bf16;
    throw py::type_error("dtype must be float32, float64, float16 or bfloat16");
}

std::size_t size_of(const dlpack::Tensor& x) {
    require(x.device.type == dlpack::kCpu, "tensors must be on the CPU");
    // An empty tensor may have any strides.
    if (std::find(x.shape, x.shape + x.ndim, 0) != x.shape + x.ndim) return 0;
    std::int64_t n = 1;
    for (std::int32_t d = x.ndim; d-- > 0; n *= x.shape[d])
        require(x.shape[d] == 1 || x.strides[d] == n, "tensors must be in C order");
    return static_cast<std::size_t>(n);
}

// Stands before the shape and the strides of a tensor that is handed out, and before its elements
// if they are few; the memory of others is recycled.
struct Header {
    ManagedTensor managed;
    void* block;  // null if the elements follow
};

// Memory for a tensor of the dtype and the shape of `x`, in C order.
OwnedTensor new_like(const dlpack::Tensor& x, std::size_t bytes) {
    constexpr std::size_t kLarge = std::size_t{1} << 17;  // as in python/dropwise/_memory.py
    constexpr std::size_t kAlign = 64;
    const auto ndim = static_cast<std::size_t>(x.ndim);
    const std::size_t before = sizeof(Header) + 2 * ndim * sizeof(std::int64_t);
    const bool is_large = bytes >= kLarge;
    void* const memory = std::malloc(before + (is_large ? 0 : kAlign + bytes));
    if (memory == nullptr) throw std::bad_alloc();
    auto* const header = new (memory) Header{};
    header->managed.owner = header;
    OwnedTensor like(&header->managed);

    auto* const shape = reinterpret_cast<std::int64_t*>(header + 1);
    std::int64_t stride = 1;
    for (std::size_t d = ndim; d-- > 0; stride *= std::max<std::int64_t>(1, x.shape[d])) {
        shape[d] = x.shape[d];
        shape[ndim + d] = stride;
    }
    const auto end = reinterpret_cast<std::uintptr_t>(shape + 2 * ndim);
    if (is_large) header->block = take_block(bytes);
    void* const data =
        is_large ? header->block : reinterpret_cast<void*>((end + kAlign - 1) / kAlign * kAlign);
    like->version = {dlpack::kMajor, dlpack::kMinor};
    like->deleter = [](ManagedTensor* managed) { GiveBack()(managed); };
    like->tensor = {data, x.device, x.ndim, x.dtype, shape, shape + ndim, 0};
    return like;
}

}  // namespace

void GiveBack::operator()(ManagedTensor* managed) const {
    auto* const header = static_cast<Header*>(managed->owner);
    if (header->block != nullptr) give_block(header->block);
    std::free(header);
}

bool is_supported(const py::capsule& exchange) {
    const dlpack::Exchange& found = exchange_of(exchange);
    return found.version.major == dlpack::kMajor && found.from_object != nullptr;
}

std::optional<TensorMap> TensorMap::of(const py::capsule& exchange, const py::object& x) {
    require(is_supported(exchange), "this version of DLPack is not supported");
    TensorMap map(exchange_of(exchange));
    dlpack::Tensor from;
    if (map.exchange_.from_object(x.ptr(), &from) != 0) {
        PyErr_Clear();
        return std::nullopt;
    }
    Elements& elements = map.elements_;
    elements.type = element_of(from.dtype);
    elements.n = size_of(from);
    if (elements.n != 0 && from.data == nullptr) return std::nullopt;
    map.like_ = new_like(from, elements.n * kElementSize[static_cast<std::size_t>(elements.type)]);
    elements.x = static_cast<const char*>(from.data) + from.byte_offset;
    elements.out = map.like_->tensor.data;
    return map;
}

py::object TensorMap::result() {
    void* object;
    if (exchange_.to_object(like_.release(), &object) != 0) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

}  // namespace dropwise
