// The vector vocabulary on AVX2 with FMA, F16C and BMI.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

// ---- element access and masking: dropout -------------------------------------------------------

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
