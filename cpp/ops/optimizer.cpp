#include "ops/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace dropwise {
namespace {

constexpr std::size_t kPiece = 16384;  // elements that a thread takes at a time
constexpr std::size_t kBlock = 2048;   // elements whose gradient is widened to a buffer, in L1

// What a step costs from memory, in nanoseconds for each byte of the parameters.
constexpr double kAdamCost = 0.12, kMomentumCost = 0.07, kSGDCost = 0.04;

template <class T>
const OptimizerKernels<T>& optimizer_kernels() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().optimizer_f32;
    else
        return kernels().optimizer_f64;
}

// Calls step(first, n, p, g) for n <= kBlock elements of 16 bits: p is the master copy's part, and
// g the gradient in a buffer.
template <class Step>
void step_by_master(const Parameters& x, std::size_t first, std::size_t n, const Step& step) {
    float gradient[kBlock];
    const HalfKernels& kern = x.element == Element::f16 ? kernels().f16 : kernels().bf16;
    float* const master = x.master + first;
    kern.widen(n, static_cast<const std::uint16_t*>(x.g) + first, gradient);
    step(first, n, master, gradient);
    kern.narrow(n, master, static_cast<std::uint16_t*>(x.p) + first);
}

// Calls step(first, n, p, g) for runs that make up all parameters.
template <class T, class Step>
void for_each_run(const Parameters& x, double cost, const Step& step) {
    const auto run_piece = [&](std::size_t piece) {
        std::size_t first = piece * kPiece;
        const std::size_t end = std::min(first + kPiece, x.n);
        if constexpr (sizeof(T) == sizeof(float)) {
            if (x.master != nullptr) {
                for (; first < end; first += kBlock)
                    step_by_master(x, first, std::min(kBlock, end - first), step);
                return;
            }
        }
        step(first, end - first, static_cast<T*>(x.p) + first, static_cast<const T*>(x.g) + first);
    };
    parallel_for((x.n + kPiece - 1) / kPiece, run_piece,
                 threads_worth(cost * static_cast<double>(x.n * sizeof(T))));
}

template <class T>
void run_adam(const Parameters& x, T* m, T* v, const AdamScalars& s) {
    // sqrt(v * c) + epsilon = sqrt(c) * (sqrt(v) + epsilon / sqrt(c)) saves a multiplication.
    const double root = std::sqrt(s.correction_2);
    const AdamConstants<T> constants{static_cast<T>(s.beta_1),
                                     static_cast<T>(1 - s.beta_1),
                                     static_cast<T>(s.beta_2),
                                     static_cast<T>(1 - s.beta_2),
                                     static_cast<T>(s.learning_rate * s.correction_1 / root),
                                     static_cast<T>(s.epsilon / root),
                                     static_cast<T>(s.learning_rate * s.weight_decay)};
    const OptimizerKernels<T>& kern = optimizer_kernels<T>();
    for_each_run<T>(x, kAdamCost, [&](std::size_t first, std::size_t n, T* p, const T* g) {
        kern.adam(n, p, g, m + first, v + first, constants);
    });
}

template <class T>
void run_sgd(const Parameters& x, T* velocity, const SGDScalars& s) {
    const SGDConstants<T> constants{static_cast<T>(s.learning_rate), static_cast<T>(s.momentum),
                                    static_cast<T>(s.learning_rate * s.weight_decay)};
    const double cost = velocity == nullptr ? kSGDCost : kMomentumCost;
    const OptimizerKernels<T>& kern = optimizer_kernels<T>();
    for_each_run<T>(x, cost, [&](std::size_t first, std::size_t n, T* p, const T* g) {
        if (velocity == nullptr)
            kern.sgd(n, p, g, constants);
        else
            kern.sgd_momentum(n, p, g, velocity + first, s.nesterov, constants);
    });
}

}  // namespace

void adam_step(const Parameters& parameters, void* m, void* v, const AdamScalars& scalars) {
    if (parameters.element == Element::f64)
        run_adam(parameters, static_cast<double*>(m), static_cast<double*>(v), scalars);
    else
        run_adam(parameters, static_cast<float*>(m), static_cast<float*>(v), scalars);
}

void sgd_step(const Parameters& parameters, void* velocity, const SGDScalars& scalars) {
    if (parameters.element == Element::f64)
        run_sgd(parameters, static_cast<double*>(velocity), scalars);
    else
        run_sgd(parameters, static_cast<float*>(velocity), scalars);
}

}  // namespace dropwise
