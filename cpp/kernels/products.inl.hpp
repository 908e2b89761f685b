// The products' part of a kernel table.
#pragma once

#include "kernels/gemm.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/spmm.inl.hpp"

namespace {
namespace product {

template <class T>
constexpr dropwise::ProductKernels<T> kernels() {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    return {L,
            kTileRows<T>,
            kTileCols<T>,
            kSkipVectors<T> * L,
            kKeptVectors<T> * L,
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
            &finish<T>};
}

}  // namespace product
}  // namespace
