// Where ops and kernels meet: the functions and block sizes one instruction set offers.
//
// A kernel gets raw pointers, allocates nothing, throws nothing and starts no threads; ops cut the
// work into pieces that fit the contracts in mask_kernels.hpp and product_kernels.hpp.
#pragma once

#include "core/mask_kernels.hpp"
#include "core/product_kernels.hpp"

namespace dropwise {

struct KernelTable {
    const char* name;
    MaskKernels masks;
    ProductKernels<float> products_f32;
    ProductKernels<double> products_f64;
};

}  // namespace dropwise
