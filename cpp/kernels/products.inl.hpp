// The products' part of a kernel table.
#pragma once

#include "kernels/gemm.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/spmm.inl.hpp"

namespace {
namespace product {

// Fitted on a Zen 4 (kernel_table.hpp) to products of random small shapes, densities and layouts.
// The portable set multiplies and adds in two steps, which hides less of the indexing.  NEON is not
// measured: like AVX2.
template <class T>
constexpr dropwise::SkipCosts kCosts =
#if defined(DROPWISE_ISA_scalar)
    sizeof(T) == 4 ? dropwise::SkipCosts{61.1f, 78.7f, 165.0f}
                   : dropwise::SkipCosts{122.0f, 157.0f, 330.0f};
#elif defined(DROPWISE_ISA_avx2) || defined(DROPWISE_ISA_neon)
    sizeof(T) == 4 ? dropwise::SkipCosts{18.7f, 22.3f, 22.0f}
                   : dropwise::SkipCosts{37.6f, 41.6f, 44.0f};
#else
    sizeof(T) == 4 ? dropwise::SkipCosts{17.5f, 19.9f, 20.3f}
                   : dropwise::SkipCosts{33.9f, 38.1f, 39.0f};
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
