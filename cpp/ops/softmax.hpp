// Softmax with cross-entropy, for rows whose class is known, its gradient, and that of the sigmoid.
//
// Rows are shared out to threads; no result depends on the threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// Rows of scores [rows, classes] in C order, and the class of each, which is less than `classes`.
template <class T>
struct Classified {
    std::size_t rows, classes;
    const T* scores;
    const std::int64_t* labels;
};

// For each row the softmax, -log of what it gives the row's class, and whether the first of the
// largest scores is that of the class (a NaN counts as the largest).
template <class T>
void softmax_cross_entropy(const Classified<T>& x, T* probabilities, double* losses,
                           std::uint8_t* correct);

// The sum of n elements: up to 128 in eight parts, more of them as the sum of their halves.
double sum_by_halves(std::size_t n, const double* x);

// out = share * (scores - 1 where the class is, else 0), scores being the probabilities; shares has
// one for each row, or is null: 1 / rows each.
template <class T>
void softmax_gradient(const Classified<T>& x, const T* shares, T* out);

// out = dy * (1 - y) * y for n elements, y being what the sigmoid gave; `out` may be dy or y.
template <class T>
void sigmoid_gradient(std::size_t n, const T* y, const T* dy, T* out);

}  // namespace dropwise
