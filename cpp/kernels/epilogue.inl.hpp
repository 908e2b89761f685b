// The epilogue: what is done to sums once they are complete, for one instruction set.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  The same loop serves sums that are in the
// output and sums that are made on the way (few terms in gemm, kept outputs in sddmm): these give
// it a class of values like FromOutput.
#pragma once

#include "core/kernel_table.hpp"
#include "kernels/pack.inl.hpp"
#include "simd/vec.hpp"

namespace {
namespace product {

using dropwise::Epilogue;

// `count` <= 64 bits from position `bit`; touches no byte without one of them.
inline std::uint64_t read_bits(const std::uint8_t* bits, std::size_t bit, std::size_t count) {
    bits += bit >> 3;
    const std::size_t shift = bit & 7;
    if (count == 64) {
        const std::uint64_t word = simd::load_word(bits);
        return shift == 0 ? word : word >> shift | std::uint64_t{bits[8]} << (64 - shift);
    }
    std::uint64_t word = bits[0] >> shift;
    for (std::size_t b = 1; 8 * b < shift + count; ++b)
        word |= std::uint64_t{bits[b]} << (8 * b - shift);
    return word & ((std::uint64_t{1} << count) - 1);
}

// Sets `count` <= 64 bits from position `bit` on, which must not share a byte with bits that
// another thread writes.
inline void write_bits(std::uint8_t* bits, std::size_t bit, std::size_t count, std::uint64_t word) {
    bits += bit >> 3;
    if ((bit & 7) == 0) {
        if (count == 64) return simd::store_word(bits, word);
        for (; count >= 8; count -= 8, word >>= 8) *bits++ = static_cast<std::uint8_t>(word);
    }
    for (std::size_t at = bit & 7; count != 0; --count, ++at, word >>= 1) {
        const auto one = static_cast<std::uint8_t>(1u << (at & 7));
        if (word & 1)
            bits[at >> 3] |= one;
        else
            bits[at >> 3] &= static_cast<std::uint8_t>(~one);
    }
}

// Vectors in as many columns as a word has bits.
template <class T>
constexpr std::size_t kWordVectors = 64 / simd::Vec<T>::kLanes;

// Values that are in the output already.
template <class T>
struct FromOutput {
    using V = simd::Vec<T>;
    static constexpr bool kInPlace = true;
    const T* c;
    std::ptrdiff_t ldc;

    void word(std::size_t i, std::size_t j, typename V::Reg (&v)[kWordVectors<T>]) const {
        const T* const row = c + static_cast<std::ptrdiff_t>(i) * ldc + j;
        DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) v[l] =
            V::load(row + l * V::kLanes);
    }
    typename V::Reg part(std::size_t i, std::size_t j, std::size_t n) const {
        return V::load_n(c + static_cast<std::ptrdiff_t>(i) * ldc + j, n);
    }
};

// True if a result is NaN.  Without a step, outputs are only searched for NaN.
template <class T, class Values, bool kBias, bool kRelu, bool kBits>
bool epilogue_rows(std::size_t m, std::size_t n, const Values& values, T* c, std::ptrdiff_t ldc,
                   const Epilogue<T>& e) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    constexpr bool kWrites = kBias || kRelu || kBits || !Values::kInPlace;
    const typename V::Reg scale = V::broadcast(&e.scale);
    // Becomes NaN once a result is NaN, or so large that the sum of a few overflows.
    typename V::Reg poison = V::zero();
    const auto epilogue = [&](typename V::Reg v, auto load_bias, std::uint64_t bits) {
        if (kBias) v = V::add(v, load_bias());
        if (kRelu) v = V::relu(v);
        if (kBits) v = V::keep(bits, V::mul(v, scale));
        return v;
    };
    for (std::size_t i = 0; i < m; ++i, c += ldc) {
        const std::size_t bit = e.bit + i * e.bit_stride;
        std::size_t j = 0;
        for (; j + 64 <= n; j += 64) {
            const std::uint64_t word = kBits ? read_bits(e.bits, bit + j, 64) : 0;
            // A store waits until its cache line has arrived.
            if (!Values::kInPlace)
                for (std::size_t p = 0; p < 64; p += 64 / sizeof(T))
                    simd::prefetch(c + 4 * ldc + static_cast<std::ptrdiff_t>(j + p));
            typename V::Reg v[kWordVectors<T>];
            values.word(i, j, v);
            DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) {
                v[l] = epilogue(v[l], [&] { return V::load(e.bias + j + l * L); }, word >> l * L);
                if (kWrites) V::store(c + j + l * L, v[l]);
            }
            // Results are added up before they reach `poison`: a chain of dependent multiply-adds,
            // one for each vector, would be what the loop waits for.
            typename V::Reg sum = v[0];
            DROPWISE_UNROLL for (std::size_t l = 1; l < kWordVectors<T>; ++l) sum =
                V::add(sum, v[l]);
            poison = V::fma(sum, V::zero(), poison);
            if (e.nonzero == nullptr) continue;
            std::uint64_t nonzero = 0;
            DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) nonzero |=
                V::nonzero(v[l]) << l * L;
            write_bits(e.nonzero, bit + j, 64, nonzero);
        }
        if (j == n) continue;
        std::uint64_t word = kBits ? read_bits(e.bits, bit + j, n - j) : 0, nonzero = 0;
        for (const std::size_t from = j; j < n; j += L, word >>= L) {
            const std::size_t count = min(L, n - j);
            const typename V::Reg v = epilogue(
                values.part(i, j, count), [&] { return V::load_n(e.bias + j, count); }, word);
            if (kWrites) V::store_n(c + j, v, count);
            poison = V::fma(v, V::zero(), poison);
            nonzero |= V::nonzero(v) << (j - from);
        }
        if (e.nonzero != nullptr) {
            const std::size_t count = n % 64;
            write_bits(e.nonzero, bit + n - count, count, nonzero);
        }
    }
    return V::nan(poison) != 0;
}

template <class T, class Values>
bool epilogue_from(std::size_t m, std::size_t n, const Values& values, T* c, std::ptrdiff_t ldc,
                   const Epilogue<T>& e) {
    using Fn =
        bool (*)(std::size_t, std::size_t, const Values&, T*, std::ptrdiff_t, const Epilogue<T>&);
    constexpr Fn kFn[2][2][2] = {{{&epilogue_rows<T, Values, false, false, false>,
                                   &epilogue_rows<T, Values, false, false, true>},
                                  {&epilogue_rows<T, Values, false, true, false>,
                                   &epilogue_rows<T, Values, false, true, true>}},
                                 {{&epilogue_rows<T, Values, true, false, false>,
                                   &epilogue_rows<T, Values, true, false, true>},
                                  {&epilogue_rows<T, Values, true, true, false>,
                                   &epilogue_rows<T, Values, true, true, true>}}};
    return kFn[e.bias != nullptr][e.relu][e.bits != nullptr](m, n, values, c, ldc, e);
}

template <class T>
bool apply_epilogue(std::size_t m, std::size_t n, T* c, std::ptrdiff_t ldc, const Epilogue<T>& e) {
    return epilogue_from<T>(m, n, FromOutput<T>{c, ldc}, c, ldc, e);
}

}  // namespace product
}  // namespace
