// Contracts of the optimizer kernels: a part of kernel_table.hpp.
//
// On runs of n elements; the arrays of a call share no memory.  Every operation is rounded to T, in
// the order of the formula, so that each set and each backend gives the same bits.
// Included by kernel objects too, so nothing may be included here but <cstddef>, <cstdint> and
// structs, and no inline function may stand here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// With a decay other than 0, p -= p * decay comes before the rest.
template <class T>
struct AdamConstants {
    T beta_1, rest_1;  // and 1 - beta_1
    T beta_2, rest_2;
    T factor, epsilon, decay;
};
template <class T>
struct SGDConstants {
    T rate, momentum, decay;
};

template <class T>
struct OptimizerKernels {
    // m = m * beta_1 + g * rest_1, v = v * beta_2 + g * g * rest_2, and
    // p -= m / (sqrt(v) + epsilon) * factor.
    void (*adam)(std::size_t n, T* p, const T* g, T* m, T* v, const AdamConstants<T>& c);
    // p -= g * rate.
    void (*sgd)(std::size_t n, T* p, const T* g, const SGDConstants<T>& c);
    // velocity = velocity * momentum - g * rate, and p += velocity; with nesterov p moves by
    // velocity * momentum - g * rate instead.
    void (*sgd_momentum)(std::size_t n, T* p, const T* g, T* velocity, bool nesterov,
                         const SGDConstants<T>& c);
};

// Between elements of 16 bits and float; to the nearest, ties to even.
struct HalfKernels {
    void (*widen)(std::size_t n, const std::uint16_t* from, float* to);
    void (*narrow)(std::size_t n, const float* from, std::uint16_t* to);
};

}  // namespace dropwise
