// What the CPU and the operating system let us run.
#pragma once

#include <string_view>

namespace dropwise {

// True if kernels compiled for `isa` (a name of isa_list.hpp) may run on this machine.
bool cpu_supports(std::string_view isa) noexcept;

}  // namespace dropwise
