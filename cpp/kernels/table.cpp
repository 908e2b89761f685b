// The only export of an instruction set: its kernel table.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  Everything a kernel file defines lives in an
// unnamed namespace, so that no two sets can share a symbol and the linker cannot pick the wrong
// one.
#include "core/kernel_table.hpp"
#include "kernels/elementwise.inl.hpp"
#include "kernels/mask.inl.hpp"
#include "kernels/products.inl.hpp"

#define DROPWISE_CONCAT_(a, b) a##b
#define DROPWISE_CONCAT(a, b) DROPWISE_CONCAT_(a, b)
#define DROPWISE_STRING_(a) #a
#define DROPWISE_STRING(a) DROPWISE_STRING_(a)

extern "C" const dropwise::KernelTable* DROPWISE_CONCAT(dropwise_kernels_, DROPWISE_ISA_NAME)() {
    static const dropwise::KernelTable table = {
        DROPWISE_STRING(DROPWISE_ISA_NAME),
        {&mask::mask_chunk,
         {dropout::kernels<simd::F32>(), dropout::kernels<simd::F64>(),
          dropout::kernels<simd::F16>(), dropout::kernels<simd::BF16>()}},
        product::kernels<float>(),
        product::kernels<double>(),
    };
    return &table;
}
