// Optimizer steps on one run of elements, for one instruction set.
//
// Plain loops that the compiler turns into vectors: the operations are the same for every set, each
// rounded once, and so are the bits.  Compiled once per set (cpp/cmake/IsaKernels.cmake).  Nothing
// here allocates, throws or starts threads; ops/optimizer.cpp cuts the work into pieces.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace optimizer {

union FloatBits {
    float value;
    std::uint32_t bits;
};
inline std::uint32_t bits_of(float value) {
    return FloatBits{value}.bits;
}
inline float float_of(std::uint32_t bits) {
    FloatBits f;
    f.bits = bits;
    return f.value;
}

template <bool kDecays, class T>
T decayed(T p, T decay) {
    return kDecays ? p - p * decay : p;
}

template <bool kDecays, class T>
void adam_run(std::size_t n, T* __restrict p, const T* __restrict g, T* __restrict m,
              T* __restrict v, const dropwise::AdamConstants<T>& constants) {
    const dropwise::AdamConstants<T> c = constants;
    for (std::size_t i = 0; i < n; ++i) {
        const T mean = m[i] * c.beta_1 + g[i] * c.rest_1;
        const T square = v[i] * c.beta_2 + g[i] * g[i] * c.rest_2;
        m[i] = mean;
        v[i] = square;
        p[i] = decayed<kDecays>(p[i], c.decay) -
               mean / (simd::square_root(square) + c.epsilon) * c.factor;
    }
}

template <bool kDecays, class T>
void sgd_run(std::size_t n, T* __restrict p, const T* __restrict g,
             const dropwise::SGDConstants<T>& constants) {
    const dropwise::SGDConstants<T> c = constants;
    for (std::size_t i = 0; i < n; ++i) p[i] = decayed<kDecays>(p[i], c.decay) - g[i] * c.rate;
}

template <bool kNesterov, bool kDecays, class T>
void momentum_run(std::size_t n, T* __restrict p, const T* __restrict g, T* __restrict velocity,
                  const dropwise::SGDConstants<T>& constants) {
    const dropwise::SGDConstants<T> c = constants;
    for (std::size_t i = 0; i < n; ++i) {
        const T step = g[i] * c.rate;
        const T moving = velocity[i] * c.momentum - step;
        velocity[i] = moving;
        const T from = decayed<kDecays>(p[i], c.decay);
        p[i] = kNesterov ? from - step + moving * c.momentum : from + moving;
    }
}

constexpr std::uint32_t kSign = 0x8000;  // of a float16

float float_of_f16(std::uint16_t half) {
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7FFFu) << 13;
    // In place, the exponent is too small by 112, for subnormals as well.
    const std::uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
    const std::uint32_t word = magnitude >= 0x0F800000 ? magnitude | 0x7F800000 : finite;
    return float_of(word | (half & kSign) << 16);
}

std::uint16_t f16_of_float(float x) {
    const std::uint32_t word = bits_of(x), magnitude = word & 0x7FFFFFFF;
    const std::uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    // The sum with 0.5 has the units of a subnormal, so the addition rounds.
    const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000;
    const std::uint32_t nan = (magnitude >> 13 & 0x3FF) | 0x7E00;
    std::uint32_t half = magnitude < 0x38800000 ? subnormal : normal;
    half = magnitude >= 0x47800000 ? 0x7C00 : half;
    half = magnitude > 0x7F800000 ? nan : half;
    return static_cast<std::uint16_t>(half | (word >> 16 & kSign));
}

std::uint16_t bf16_of_float(float x) {
    const std::uint32_t word = bits_of(x);
    const std::uint32_t nearest = word + 0x7FFF + (word >> 16 & 1);
    // Rounding could end a NaN as infinity.
    return static_cast<std::uint16_t>((x != x ? word | 0x00400000 : nearest) >> 16);
}

template <class T>
void adam(std::size_t n, T* p, const T* g, T* m, T* v, const dropwise::AdamConstants<T>& c) {
    (c.decay != 0 ? adam_run<true, T> : adam_run<false, T>)(n, p, g, m, v, c);
}

template <class T>
void sgd(std::size_t n, T* p, const T* g, const dropwise::SGDConstants<T>& c) {
    (c.decay != 0 ? sgd_run<true, T> : sgd_run<false, T>)(n, p, g, c);
}

template <class T>
void sgd_momentum(std::size_t n, T* p, const T* g, T* velocity, bool nesterov,
                  const dropwise::SGDConstants<T>& c) {
    if (nesterov)
        (c.decay != 0 ? momentum_run<true, true, T> : momentum_run<true, false, T>)(n, p, g,
                                                                                    velocity, c);
    else
        (c.decay != 0 ? momentum_run<false, true, T> : momentum_run<false, false, T>)(n, p, g,
                                                                                      velocity, c);
}

void widen_f16(std::size_t n, const std::uint16_t* from, float* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = float_of_f16(from[i]);
}
void widen_bf16(std::size_t n, const std::uint16_t* from, float* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = float_of(static_cast<std::uint32_t>(from[i]) << 16);
}
void narrow_f16(std::size_t n, const float* from, std::uint16_t* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = f16_of_float(from[i]);
}
void narrow_bf16(std::size_t n, const float* from, std::uint16_t* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = bf16_of_float(from[i]);
}

template <class T>
constexpr dropwise::OptimizerKernels<T> kernels() {
    return {&adam<T>, &sgd<T>, &sgd_momentum<T>};
}

}  // namespace optimizer
}  // namespace
