// The vector vocabulary on NEON (AArch64).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

// ---- element access and masking: dropout -------------------------------------------------------

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
