// Samples are spread over rows and columns, so that blocks of zeros do not mislead them.
#include "ops/products/density.hpp"

#include <algorithm>
#include <bitset>
#include <cstring>

#include "ops/products/blocks.hpp"

namespace dropwise::ops {

namespace {

// How many words of 64 elements to look at before a product of that many multiply-adds.
size_t sample_words(size_t work) {
    return std::min<size_t>(64, 2 + work / 131072);
}

// Place `s` of a sequence that fills [0, n) evenly in every part of it (steps of the golden ratio).
size_t scattered(size_t s, size_t n) {
    return static_cast<size_t>((s * 0x9e3779b9u & 0xffffffffu) * std::uint64_t{n} >> 32);
}

}  // namespace

template <class T>
double nonzero_density(const ProductKernels<T>& kern, Matrix<const T> a, size_t work) {
    if (a.col_stride != 1) a = a.transposed();
    if (a.col_stride != 1) return 1;  // no kernel reads such a matrix fast
    const size_t words = ceil_div(a.cols, kWordBits);
    const size_t sample = std::min(sample_words(work), a.rows * words);
    size_t count = 0, seen = 0;
    std::uint64_t word;
    T values[kWordBits];
    for (size_t s = 0; s < sample; ++s) {
        const size_t j = scattered(s, words) * kWordBits;
        const size_t bits = std::min(kWordBits, a.cols - j);
        count += kern.compact(1, bits, a.at(s * a.rows / sample, j), 0, false, &word, values);
        seen += bits;
    }
    return static_cast<double>(count) / static_cast<double>(seen);
}

double mask_density(const std::uint8_t* bits, size_t n, size_t work) {
    const size_t words = n / kWordBits;
    const size_t sample = std::min(sample_words(work), words);
    if (sample == 0) return 1;
    size_t count = 0;
    for (size_t s = 0; s < sample; ++s) {
        std::uint64_t word;
        std::memcpy(&word, bits + scattered(s, words) * sizeof word, sizeof word);
        count += std::bitset<kWordBits>(word).count();
    }
    return static_cast<double>(count) / static_cast<double>(sample * kWordBits);
}

template double nonzero_density(const ProductKernels<float>&, Matrix<const float>, size_t);
template double nonzero_density(const ProductKernels<double>&, Matrix<const double>, size_t);

}  // namespace dropwise::ops
