// The only symbol that an instruction set exports: its kernel table.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  Everything a kernel file defines lives in an
// unnamed namespace, so that no two sets can share a symbol and the linker cannot pick the wrong
// one.
#include "core/kernel_table.hpp"
#include "kernels/costs.inl.hpp"
#include "kernels/elementwise.inl.hpp"
#include "kernels/gemm.inl.hpp"
#include "kernels/mask.inl.hpp"
#include "kernels/optimizer.inl.hpp"
#include "kernels/sddmm.inl.hpp"
#include "kernels/softmax.inl.hpp"
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

#define DROPWISE_CONCAT_(a, b) a##b
#define DROPWISE_CONCAT(a, b) DROPWISE_CONCAT_(a, b)
#define DROPWISE_STRING_(a) #a
#define DROPWISE_STRING(a) DROPWISE_STRING_(a)

extern "C" const dropwise::KernelTable* DROPWISE_CONCAT(dropwise_kernels_, DROPWISE_ISA_NAME)() {
    static const dropwise::KernelTable table = {
        DROPWISE_STRING(DROPWISE_ISA_NAME),
        {&mask::mask_chunk,
         {elementwise::kernels<simd::F32>(), elementwise::kernels<simd::F64>(),
          elementwise::kernels<simd::F16>(), elementwise::kernels<simd::BF16>()}},
        product::kernels<float>(),
        product::kernels<double>(),
        optimizer::kernels<float>(),
        optimizer::kernels<double>(),
        {&optimizer::widen_f16, &optimizer::narrow_f16},
        {&optimizer::widen_bf16, &optimizer::narrow_bf16},
        softmax::kernels<float>(),
        softmax::kernels<double>(),
    };
    return &table;
}
