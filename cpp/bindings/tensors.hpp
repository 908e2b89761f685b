// Tensors of other libraries, without an array of NumPy on the way: in calls of a few elements
// making one takes longer than computing.
#pragma once

#include <memory>
#include <optional>

#include "bindings/bind.hpp"
#include "bindings/dlpack.hpp"
#include "ops/elementwise.hpp"

namespace dropwise {

// Whether the C functions in a capsule are of a version that TensorMap can call.
bool is_supported(const py::capsule& exchange);

// Ends a tensor that was made here and not yet handed out.
struct GiveBack {
    void operator()(dlpack::ManagedTensor* tensor) const;
};
using OwnedTensor = std::unique_ptr<dlpack::ManagedTensor, GiveBack>;

// A tensor of another library and a new one like it, for what an elementwise function computes.
class TensorMap {
  public:
    // None if the library does not say where the memory of x is.  Throws unless x is on the CPU, in
    // C order and of one of the four dtypes.
    static std::optional<TensorMap> of(const py::capsule& exchange, const py::object& x);

    const Elements& elements() const { return elements_; }

    // The new tensor, as an object of the library.  To be called once.
    py::object result();

  private:
    explicit TensorMap(const dlpack::Exchange& exchange) : exchange_(exchange), elements_() {}

    const dlpack::Exchange& exchange_;
    Elements elements_;
    OwnedTensor like_;
};

}  // namespace dropwise
