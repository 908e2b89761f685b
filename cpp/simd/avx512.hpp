// The vector vocabulary on AVX-512 (F, BW, DQ, VL, CD).
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
