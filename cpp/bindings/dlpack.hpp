// Tensors of other libraries: the binary interface of DLPack 1, as far as it is used here.
//
// A type whose tensors can be exchanged has a capsule with a table of C functions, as
// `__dlpack_c_exchange_api__`: https://dmlc.github.io/dlpack/latest/python_spec.html
#pragma once

#include <cstdint>

namespace dropwise {
namespace dlpack {

constexpr const char* kCapsuleName = "dlpack_exchange_api";
constexpr std::uint32_t kMajor = 1, kMinor = 3;  // another major version has other structs
constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kFloat = 2, kBfloat = 4;

struct Version {
    std::uint32_t major, minor;
};

struct Device {
    std::int32_t type, id;
};

struct DataType {
    std::uint8_t code, bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t *shape, *strides;  // in elements
    std::uint64_t byte_offset;
};

// A tensor and what owns its memory.
struct ManagedTensor {
    Version version;
    void* owner;
    void (*deleter)(ManagedTensor*);
    std::uint64_t flags;
    Tensor tensor;
};

struct Exchange {
    Version version;
    Exchange* of_older_version;
    void (*allocate)();
    void (*to_managed)();
    // These return 0, or -1 with an exception of Python.  The first takes its argument over.
    int (*to_object)(ManagedTensor*, void** object);
    int (*from_object)(void* object, Tensor*);  // null if the library has none
    void (*current_stream)();
};

}  // namespace dlpack
}  // namespace dropwise
