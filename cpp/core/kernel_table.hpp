// Where ops and kernels meet: the functions and block sizes one instruction set offers.
//
// A kernel gets raw pointers, allocates nothing, throws nothing and starts no threads; ops cut the
// work into pieces that fit these contracts.  Included by kernel objects too, so only <cstddef> and
// <cstdint> may be included here, and nothing here may have an inline function.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// ---- masks and dropout -------------------------------------------------------------------------

// ---- products ----------------------------------------------------------------------------------

struct KernelTable {
    const char* name;
};

}  // namespace dropwise
