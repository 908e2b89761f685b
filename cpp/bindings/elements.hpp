// What bindings that take arrays of elements share: their type, their size, and the GIL.
#pragma once

#include <cstddef>
#include <optional>

#include "bindings/bind.hpp"
#include "core/kernel_table.hpp"

namespace dropwise {

// Releases the GIL unless a call has fewer elements than make up for the time that takes.
class MaybeRelease {
  public:
    explicit MaybeRelease(std::size_t n) {
        constexpr std::size_t kReleaseElements = 8192;
        if (n >= kReleaseElements) release_.emplace();
    }

  private:
    std::optional<GilRelease> release_;
};

// Throws a TypeError if the dtype is none of the four.
Element element_of(const py::array& x);

// Throws std::invalid_argument unless x is C-contiguous.
std::size_t size_of(const py::array& x);

}  // namespace dropwise
