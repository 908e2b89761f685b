#include "ops/softmax.hpp"

#include <algorithm>

#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace dropwise {
namespace {

// Nanoseconds for each score.
constexpr double kSoftmaxCost = 0.8, kGradientCost = 0.2, kSigmoidGradientCost = 0.1;

constexpr std::size_t kElements = std::size_t{1} << 14;  // that a task takes of an array

template <class T>
const LossKernels<T>& loss_kernels() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().losses_f32;
    else
        return kernels().losses_f64;
}

constexpr std::size_t kRows = kSoftmaxRows;  // that a task takes

// Calls body(first, end) for rows from `first` to `end` <= first + kRows, until all are done.
template <class T, class Body>
void for_each_rows(const Classified<T>& x, double cost, const Body& body) {
    const auto run = [&](std::size_t task) {
        body(task * kRows, std::min((task + 1) * kRows, x.rows));
    };
    parallel_for((x.rows + kRows - 1) / kRows, run,
                 threads_worth(cost * static_cast<double>(x.rows * x.classes)));
}

// The index of the first NaN, else of the first of the largest.
template <class T>
std::size_t first_largest(std::size_t n, const T* x) {
    std::size_t best = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (x[i] != x[i]) return i;
        if (x[i] > x[best]) best = i;
    }
    return best;
}

// Whether element `at` is the first that is `top`.
template <class T>
bool is_first(std::size_t at, const T* x, T top) {
    if (x[at] != top) return false;
    for (std::size_t i = 0; i < at; ++i)
        if (x[i] == top) return false;
    return true;
}

}  // namespace

template <class T>
void softmax_cross_entropy(const Classified<T>& x, T* probabilities, double* losses,
                           std::uint8_t* correct) {
    const LossKernels<T>& kern = loss_kernels<T>();
    const std::size_t n = x.classes;
    for_each_rows(x, kSoftmaxCost, [&](std::size_t first, std::size_t end) {
        SoftmaxRows found;
        kern.softmax(end - first, n, x.scores + first * n, probabilities + first * n, found);
        for (std::size_t i = first; i < end; ++i) {
            const T* const scores = x.scores + i * n;
            const auto label = static_cast<std::size_t>(x.labels[i]);
            const double top = found.top[i - first], log_total = found.log_total[i - first];
            losses[i] = log_total - (static_cast<double>(scores[label]) - top);
            // A sum that is NaN says nothing of the largest.
            correct[i] = log_total == log_total ? is_first(label, scores, static_cast<T>(top))
                                                : first_largest(n, scores) == label;
        }
    });
}

double sum_by_halves(std::size_t n, const double* x) {
    constexpr std::size_t kLeaf = 128, kParts = 8;
    if (n > kLeaf) {
        const std::size_t half = n / 2 / kParts * kParts;
        return sum_by_halves(half, x) + sum_by_halves(n - half, x + half);
    }
    double total = 0;
    std::size_t done = 0;
    if (n >= kParts) {
        double part[kParts];
        std::copy_n(x, kParts, part);
        for (done = kParts; done + kParts <= n; done += kParts)
            for (std::size_t i = 0; i < kParts; ++i) part[i] += x[done + i];
        total = ((part[0] + part[1]) + (part[2] + part[3])) +
                ((part[4] + part[5]) + (part[6] + part[7]));
    }
    for (; done < n; ++done) total += x[done];
    return total;
}

template <class T>
void softmax_gradient(const Classified<T>& x, const T* shares, T* out) {
    const std::size_t n = x.classes;
    const auto rows = static_cast<T>(x.rows);
    const auto even = static_cast<T>(1 / static_cast<double>(x.rows));
    for_each_rows(x, kGradientCost, [&](std::size_t first, std::size_t end) {
        for (std::size_t i = first; i < end; ++i) {
            const T* const from = x.scores + i * n;
            T* const to = out + i * n;
            const T share = shares == nullptr ? even : shares[i];
            if (shares == nullptr)
                for (std::size_t j = 0; j < n; ++j) to[j] = from[j] / rows;
            else
                for (std::size_t j = 0; j < n; ++j) to[j] = from[j] * share;
            to[x.labels[i]] -= share;
        }
    });
}

template <class T>
void sigmoid_gradient(std::size_t n, const T* y, const T* dy, T* out) {
    const LossKernels<T>& kern = loss_kernels<T>();
    const auto run = [&](std::size_t task) {
        const std::size_t first = task * kElements;
        kern.sigmoid_gradient(std::min(kElements, n - first), y + first, dy + first, out + first);
    };
    parallel_for((n + kElements - 1) / kElements, run,
                 threads_worth(kSigmoidGradientCost * static_cast<double>(n)));
}

template void softmax_cross_entropy(const Classified<float>&, float*, double*, std::uint8_t*);
template void softmax_cross_entropy(const Classified<double>&, double*, double*, std::uint8_t*);
template void softmax_gradient(const Classified<float>&, const float*, float*);
template void softmax_gradient(const Classified<double>&, const double*, double*);
template void sigmoid_gradient(std::size_t, const float*, const float*, float*);
template void sigmoid_gradient(std::size_t, const double*, const double*, double*);

}  // namespace dropwise
