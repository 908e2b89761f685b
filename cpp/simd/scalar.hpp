// The vector vocabulary on the portable set.
#pragma once

#include < SSE2 where the compiler has it, plain C++ elsewhere:cstring>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

// ---- element access and masking: dropout -------------------------------------------------------

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
