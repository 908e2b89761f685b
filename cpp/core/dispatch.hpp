// Chooses the kernel table once, at the first use.
#pragma once

#include <string>
#include <vector>

#include "core/kernel_table.hpp"

namespace dropwise {

// The active table: DROPWISE_ISA if set, else the best set this machine runs.
// Throws std::invalid_argument naming the sets there are, if DROPWISE_ISA names none of them.
const KernelTable& kernels();

// Makes `name` the active set of the process; throws like kernels().
void set_isa(const std::string& name);

std::vector<std::string> built_isas();      // best first
std::vector<std::string> available_isas();  // those of them that this machine runs

}  // namespace dropwise
