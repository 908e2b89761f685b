// The vector vocabulary: includes the header of the instruction set this unit is compiled for.
//
// Every set defines the same names in an unnamed namespace; kernels are written against them once.
// Grown only on first use.
#pragma once

#if defined(DROPWISE_ISA_avx512)
#include "simd/avx512.hpp"
#elif defined(DROPWISE_ISA_avx2)
#include "simd/avx2.hpp"
#elif defined(DROPWISE_ISA_neon)
#include "simd/neon.hpp"
#else
#include "simd/scalar.hpp"
#endif
