// The products' part of a kernel table.
#pragma once

#include "kernels/gemm.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/spmm.inl.hpp"

namespace {
namespace product {

// The cost of skipping (kernel_table.hpp) near break-even, fitted on a Zen 4 to some ten thousand
// products of random shapes, densities and layouts.  The portable set multiplies and adds in two
// steps, which hides less of the indexing.  NEON is not measured: in between.
template <class T>
constexpr dropwise::SkipCosts kCosts =
#if defined(DROPWISE_ISA_scalar)
    {0.20f, 1.02f, 0.25f, 1.55f};
#elif defined(DROPWISE_ISA_neon)
    {0.15f, 1.05f, 0.20f, 1.20f};
#elif defined(DROPWISE_ISA_avx2)
    sizeof(T) == 4 ? dropwise::SkipCosts{0.22f, 0.94f, 0.14f, 1.03f}
                   : dropwise::SkipCosts{0.14f, 1.01f, 0.05f, 1.04f};
#else
    sizeof(T) == 4 ? dropwise::SkipCosts{0.16f, 1.00f, 0.14f, 1.03f}
                   : dropwise::SkipCosts{0.14f, 1.01f, 0.05f, 1.04f};
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
            &compact<T>,
            &multiply_skipping<T>,
            &mask_words,
            &multiply_kept<T>,
            &spread<T>,
            &finish<T>,
            &multiply_few_terms<T>};
}

}  // namespace product
}  // namespace
