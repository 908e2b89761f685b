// Softmax of rows, and the gradient of the sigmoid, for one instruction set.
//
// Plain loops that the compiler turns into vectors; sums have kGroup parts whatever these are.
// Compiled once per set (cpp/cmake/IsaKernels.cmake). Nothing here allocates, throws or starts
// threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace softmax {

constexpr std::size_t kGroup = 8;

constexpr double kRound = 0x1.8p52;  // leaves an integer in the last bits of a sum

union DoubleBits {
    double value;
    std::uint64_t bits;
};

// 2**n for the n in [-1022, 1023] of n + kRound.
inline double power_of_two(double shifted) {
    DoubleBits n, power;
    n.value = shifted;
    power.bits = (n.bits + 1023) << 52;
    return power.value;
}

// exp(x) for x <= 0, within 1.5 units of the last place.  NaN stays.
inline double exp_of_negative(double x) {
    constexpr double kZero = -746;  // where exp is 0
    constexpr double kPerLn2 = 0x1.71547652b82fep0;
    constexpr double kLn2High = 0x1.62e42fefa3800p-1, kLn2Low = 0x1.ef35793c76730p-45;
    // exp(x) = 2**n * exp(r) with |r| <= ln(2) / 2, and exp(r) is a sum of r**i / i!.
    const double bounded = x < kZero ? kZero : x;
    const double n = bounded * kPerLn2 + kRound - kRound;
    const double r = bounded - n * kLn2High - n * kLn2Low;
    double sum = 1.0 / 6227020800;
    sum = sum * r + 1.0 / 479001600;
    sum = sum * r + 1.0 / 39916800;
    sum = sum * r + 1.0 / 3628800;
    sum = sum * r + 1.0 / 362880;
    sum = sum * r + 1.0 / 40320;
    sum = sum * r + 1.0 / 5040;
    sum = sum * r + 1.0 / 720;
    sum = sum * r + 1.0 / 120;
    sum = sum * r + 1.0 / 24;
    sum = sum * r + 1.0 / 6;
    sum = sum * r + 0.5;
    sum = sum * r * r + r + 1.0;
    // In two steps, because 2**n alone may be too small for a normal number.
    const double half = n * 0.5 + kRound;
    return sum * power_of_two(half) * power_of_two(n - (half - kRound) + kRound);
}

// log(x) for x >= 1, within 1.5 units of the last place.  NaN stays.
inline double log_from_one(double x) {
    constexpr double kLn2High = 0x1.62e42fefa3800p-1, kLn2Low = 0x1.ef35793c76730p-45;
    constexpr std::uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd;
    constexpr std::uint64_t kTwo52 = 0x4330000000000000;
    // x = 2**n * m with sqrt(1/2) <= m < sqrt(2), and log(m) = 2 * atanh(s) is a series in s**2.
    DoubleBits bits, m, n;
    bits.value = x;
    const std::uint64_t exponent = (bits.bits - kRootOfHalf) >> 52;
    m.bits = bits.bits - (exponent << 52);
    n.bits = kTwo52 | exponent;
    n.value -= 0x1p52;
    const double s = (m.value - 1.0) / (m.value + 1.0), z = s * s;
    double sum = 2.0 / 21;
    sum = sum * z + 2.0 / 19;
    sum = sum * z + 2.0 / 17;
    sum = sum * z + 2.0 / 15;
    sum = sum * z + 2.0 / 13;
    sum = sum * z + 2.0 / 11;
    sum = sum * z + 2.0 / 9;
    sum = sum * z + 2.0 / 7;
    sum = sum * z + 2.0 / 5;
    sum = sum * z + 2.0 / 3;
    return n.value * kLn2High + (2.0 * s + (s * z * sum + n.value * kLn2Low)) + (x - x);
}

// The largest element; one after the first that is NaN is passed over.
template <class T>
T largest(std::size_t n, const T* x) {
    T top[kGroup];
    for (T& lane : top) lane = x[0];
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup)
        for (std::size_t l = 0; l < kGroup; ++l) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    T all = top[0];
    for (const T lane : top) all = lane > all ? lane : all;
    for (; i < n; ++i) all = x[i] > all ? x[i] : all;
    return all;
}

inline double sum_of_parts(const double* part, std::size_t step = 1) {
    const auto at = [=](std::size_t i) { return part[i * step]; };
    return ((at(0) + at(4)) + (at(2) + at(6))) + ((at(1) + at(5)) + (at(3) + at(7)));
}

template <class T>
double sum(std::size_t n, const T* x) {
    double part[kGroup] = {};
    std::size_t i = 0;
    for (; i + kGroup <= n; i += kGroup)
        for (std::size_t l = 0; l < kGroup; ++l) part[l] += static_cast<double>(x[i + l]);
    for (std::size_t l = 0; i + l < n; ++l) part[l] += static_cast<double>(x[i + l]);
    return sum_of_parts(part);
}

template <class T>
void exp_all(std::size_t n, const double* x, T* __restrict p) {
    for (std::size_t i = 0; i < n; ++i) p[i] = static_cast<T>(exp_of_negative(x[i]));
}

constexpr std::size_t kFewClasses = 16, kRows = dropwise::kSoftmaxRows;

// softmax() of rows of at most kFewClasses elements: the vectors go over the rows, of which those
// that are not there are zeros.
template <class T>
void softmax_of_few(std::size_t rows, std::size_t n, const T* x, T* p,
                    dropwise::SoftmaxRows& found) {
    double value[kFewClasses * kRows];
    T exps[kFewClasses * kRows];
    double part[kGroup * kRows] = {}, total[kRows];
    if (rows < kRows)
        for (std::size_t i = 0; i < n * kRows; ++i) value[i] = 0;
    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t i = 0; i < n; ++i)
            value[i * kRows + row] = static_cast<double>(x[row * n + i]);

    double* const top = found.top;
    for (std::size_t row = 0; row < kRows; ++row) top[row] = value[row];
    for (std::size_t i = 1; i < n; ++i) {
        const double* const v = value + i * kRows;
        for (std::size_t row = 0; row < kRows; ++row)
            top[row] = v[row] > top[row] ? v[row] : top[row];
    }
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t row = 0; row < kRows; ++row) value[i * kRows + row] -= top[row];
    exp_all(n * kRows, value, exps);
    for (std::size_t i = 0; i < n; ++i) {
        double* const sums = part + i % kGroup * kRows;
        for (std::size_t row = 0; row < kRows; ++row)
            sums[row] += static_cast<double>(exps[i * kRows + row]);
    }
    for (std::size_t row = 0; row < kRows; ++row) total[row] = sum_of_parts(part + row, kRows);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t row = 0; row < kRows; ++row) {
            T& e = exps[i * kRows + row];
            e = static_cast<T>(static_cast<double>(e) / total[row]);
        }
    for (std::size_t row = 0; row < kRows; ++row) found.log_total[row] = log_from_one(total[row]);

    for (std::size_t row = 0; row < rows; ++row)
        for (std::size_t i = 0; i < n; ++i) p[row * n + i] = exps[i * kRows + row];
}

// The same for rows of any length: the vectors go along them.
template <class T>
void softmax_of_many(std::size_t rows, std::size_t n, const T* x, T* p,
                     dropwise::SoftmaxRows& found) {
    constexpr std::size_t kBuffer = 512;
    double shifted[kBuffer];
    std::size_t held = 0;  // in the buffer: for the elements of p before `next`
    T* next = p;
    for (std::size_t row = 0; row < rows; ++row) {
        const auto top = static_cast<double>(largest(n, x + row * n));
        found.top[row] = top;
        // Several short rows fill the buffer together.
        for (std::size_t i = 0; i < n;) {
            const std::size_t room = kBuffer - held, count = n - i < room ? n - i : room;
            for (std::size_t j = 0; j < count; ++j)
                shifted[held + j] = static_cast<double>(x[row * n + i + j]) - top;
            i += count;
            held += count;
            if (held < kBuffer) break;
            exp_all(held, shifted, next);
            next += held;
            held = 0;
        }
    }
    exp_all(held, shifted, next);
    for (std::size_t row = 0; row < rows; ++row) {
        T* const to = p + row * n;
        const double total = sum(n, to);
        found.log_total[row] = total;
        for (std::size_t i = 0; i < n; ++i)
            to[i] = static_cast<T>(static_cast<double>(to[i]) / total);
    }
    for (std::size_t row = 0; row < rows; ++row)
        found.log_total[row] = log_from_one(found.log_total[row]);
}

template <class T>
void softmax(std::size_t rows, std::size_t n, const T* x, T* p, dropwise::SoftmaxRows& found) {
    (n <= kFewClasses && rows > kRows / 4 ? softmax_of_few<T> : softmax_of_many<T>)(rows, n, x, p,
                                                                                    found);
}

template <class T>
void sigmoid_gradient(std::size_t n, const T* y, const T* dy, T* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = dy[i] * (T{1} - y[i]) * y[i];
}

template <class T>
constexpr dropwise::LossKernels<T> kernels() {
    return {&softmax<T>, &sigmoid_gradient<T>};
}

}  // namespace softmax
}  // namespace
