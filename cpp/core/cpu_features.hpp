// What the CPU and the operating system let us run.
#pragma once

#include <string_view>

#include "core/kernel_table.hpp"

namespace dropwise {

// True if kernels compiled for `isa` (a name of isa_list.hpp) may run on this machine.
bool cpu_supports(std::string_view isa) noexcept;

CpuKind cpu_kind() noexcept;

}  // namespace dropwise
