// The products' part of a kernel table.
#pragma once

#include "kernels/gemm.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/spmm.inl.hpp"

namespace {
namespace product {

// The cost of skipping (kernel_table.hpp).  Fitted to 16 shapes, 6 densities and 8 layouts on a Zen
// 4; AVX-512 and AVX2, float32 and float64 agree within the error of 0.08.  The portable set
// multiplies and adds in two steps, which hides less of the indexing.  NEON is taken to be in
// between.
#if defined(DROPWISE_ISA_scalar)
constexpr dropwise::SkipCosts kCosts = {1.23f, 1.53f, 0.50f};
#elif defined(DROPWISE_ISA_neon)
constexpr dropwise::SkipCosts kCosts = {1.10f, 1.25f, 0.30f};
#else
constexpr dropwise::SkipCosts kCosts = {1.00f, 1.00f, 0.165f};
#endif

template <class T>
constexpr dropwise::ProductKernels<T> kernels() {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    return {L,
            kTileRows<T>,
            kTileCols<T>,
            kSkipVectors<T> * L,
            kKeptVectors<T> * L,
            kCosts,
            &copy<T>,
            &pack_a<T>,
            &pack_b<T>,
            &multiply<T>,
            &multiply_few_rows<T>,
            &dot<T>,
            &nonzero_words<T>,
            &multiply_skipping<T>,
            &mask_words,
            &multiply_kept<T>,
            &spread<T>,
            &finish<T>,
            &multiply_few_terms<T>};
}

}  // namespace product
}  // namespace
