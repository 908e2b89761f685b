// Optimizer steps: one pass over parameters, gradients and moments.
//
// The elements are shared out to threads in pieces of fixed size; no result depends on the threads.
#pragma once

#include <cstddef>

#include "core/kernel_table.hpp"

namespace dropwise {

// The numbers of one step, as python/dropwise/_updates.py makes them.
struct AdamScalars {
    double learning_rate, beta_1, beta_2;
    double correction_1, correction_2;  // 1 / (1 - beta_1**t) and 1 / (1 - beta_2**t) in step t
    double epsilon, weight_decay;
};
struct SGDScalars {
    double learning_rate, momentum;
    bool nesterov;
    double weight_decay;
};

// n parameters and their gradient, both of type `element`.  16-bit parameters have a float32 master
// copy, which the step changes; p becomes that, rounded.  For others `master` is null.
struct Parameters {
    Element element;
    std::size_t n;
    void* p;
    const void* g;
    float* master;
};

// Changes p, and the moments m and v, which have its type (float for 16-bit parameters).
void adam_step(const Parameters& parameters, void* m, void* v, const AdamScalars& scalars);

// Changes p and velocity; a null velocity means no momentum.
void sgd_step(const Parameters& parameters, void* velocity, const SGDScalars& scalars);

}  // namespace dropwise
