// Where ops and kernels meet: the functions and block sizes one instruction set offers.
//
// A kernel gets raw pointers, allocates nothing, throws nothing and starts no threads; ops cut the
// work into pieces that fit the contracts in mask_kernels.hpp, product_kernels.hpp,
// optimizer_kernels.hpp and loss_kernels.hpp.
#pragma once

#include "core/loss_kernels.hpp"
#include "core/mask_kernels.hpp"
#include "core/optimizer_kernels.hpp"
#include "core/product_kernels.hpp"

namespace dropwise {

struct KernelTable {
    const char* name;
    MaskKernels masks;
    ProductKernels<float> products_f32;
    ProductKernels<double> products_f64;
    OptimizerKernels<float> optimizer_f32;
    OptimizerKernels<double> optimizer_f64;
    HalfKernels f16, bf16;
    LossKernels<float> losses_f32;
    LossKernels<double> losses_f64;
};

}  // namespace dropwise
