// The products' part of a kernel table.
#pragma once

#include "kernels/costs.inl.hpp"
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
            kNarrowTileRows<T>,
            kSkipVectors<T> * L,
            kKeptVectors<T> * L,
            kCosts<T>,
            &copy<T>,
            &pack_a<T>,
            &pack_b<T>,
            &multiply<T>,
            &multiply_unpacked<T>,
            &dot<T>,
            &compact<T>,
            &multiply_skipping<T>,
            &list<T>,
            &multiply_listed<T>,
            &mask_words,
            &multiply_kept<T>,
            &apply_epilogue<T>,
            &multiply_few_terms<T>,
            &expand_kept<T>};
}

}  // namespace product
}  // namespace
