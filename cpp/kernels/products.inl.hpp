// The products' part of a kernel table.
#pragma once

#include "kernels/gemm.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/spmm.inl.hpp"

namespace {
namespace product {

// The cost of skipping (kernel_table.hpp), fitted to 16 shapes, 6 densities and 8 layouts on a
// Zen 4. AVX-512 and AVX2 agree within the error of a cell, 0.08.  The portable set multiplies and
// adds in two steps, which hides less of the indexing.  NEON is not measured: in between.
template <class T>
constexpr dropwise::SkipCosts kCosts =
#if defined(DROPWISE_ISA_scalar)
    {0.06f, 1.23f, 0.11f, 1.53f, 0.50f};
#elif defined(DROPWISE_ISA_neon)
    {0.09f, 1.10f, 0.13f, 1.25f, 0.30f};
#else
    sizeof(T) == 4 ? dropwise::SkipCosts{0.09f, 1.00f, 0.13f, 1.00f, 0.17f}
                   : dropwise::SkipCosts{0.16f, 0.98f, 0.17f, 1.02f, 0.02f};
#endif

template <class T>
constexpr dropwise::ProductKernels<T> kernels() {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    return {L,
            kTileRows<T>,
            kTileCols<T>,
            kSkipVectors<T> * L,
            kKeptVectors<T> * L,
            kCosts<T>,
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
