// Products that skip the zeros of the left operand, for one instruction set.
//
// Compiled once per set; ops/products/skip.cpp cuts the work into bands and tiles.  A word of bits
// says which of 64 consecutive k have an element that is not zero, and so need a row of the right
// operand.  The indices come from the word itself, since loading them from a list would compete
// with the vector loads.  The 64 rows of a tile stay in L1 while all rows of the left operand pass
// over it.
//
// Where a word has few ones, its fixed cost dominates: to load and store the sums, and a loop whose
// end is mispredicted.  There several words are taken together, as a list of places.
#pragma once

#include "kernels/pack.inl.hpp"

namespace {
namespace product {

// Vectors in a row of a tile: then 64 rows take 32 KB at most.  Tiles larger than L1 cost more than
// they save.
template <class T>
constexpr std::size_t kSkipVectors = min(512 / sizeof(T) / simd::Vec<T>::kLanes, 12);

// Whether two rows that need the same row of the tile share its loads: where there are registers
// for the sums of both, and vectors are so long that loads are the bottleneck.
template <class T>
constexpr bool kCanPair = kWideTiles<T>;

// Bit p: x[p] != 0, for p < bits <= 64.
template <class T>
std::uint64_t nonzero_word(std::size_t bits, const T* x) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    std::uint64_t word = 0;
    for (std::size_t p = 0; p < bits; p += L)
        word |= V::nonzero(p + L <= bits ? V::load(x + p) : V::load_n(x + p, bits - p)) << p;
    return word;
}

// Writes the elements of x that word names one after the other.  Returns their end.
template <class T>
T* gather(std::uint64_t word, std::size_t bits, const T* x, T* to) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    constexpr std::uint64_t kAll = (std::uint64_t{1} << L) - 1;
    for (std::size_t p = 0; p < bits; p += L, word >>= L) {
        V::compress(word & kAll, p + L <= bits ? V::load(x + p) : V::load_n(x + p, bits - p), to);
        to += simd::popcount(word & kAll);
    }
    return to;
}

template <class T, bool kPairs>
std::size_t compact_rows(std::size_t rows, std::size_t bits, const T* x, std::ptrdiff_t ldx,
                         std::uint64_t* words, T* values) {
    T* to = values;
    const auto find = [&](const T* row) {
        // The hardware does not prefetch strides this long.
        for (std::size_t p = 0; p < 64; p += 64 / sizeof(T)) simd::prefetch(row + 8 * ldx + p);
        return *words++ = nonzero_word(bits, row);
    };
    if constexpr (kPairs)
        for (; rows >= 2; rows -= 2, x += 2 * ldx) {
            const std::uint64_t word0 = find(x), word1 = find(x + ldx), both = word0 & word1;
            to = gather(both, bits, x, to);
            to = gather(both, bits, x + ldx, to);
            to = gather(word0 & ~both, bits, x, to);
            to = gather(word1 & ~both, bits, x + ldx, to);
        }
    for (; rows != 0; --rows, x += ldx) to = gather(find(x), bits, x, to);
    return static_cast<std::size_t>(to - values);
}

// Bit p of words[i]: x[i * ldx + p] != 0, for p < bits <= 64.  values: those that are not zero, in
// the order in which multiply_skipping takes them.  Returns how many there are.
template <class T>
std::size_t compact(std::size_t rows, std::size_t bits, const T* x, std::ptrdiff_t ldx, bool pairs,
                    std::uint64_t* words, T* values) {
    if constexpr (kCanPair<T>)
        if (pairs) return compact_rows<T, true>(rows, bits, x, ldx, words, values);
    return compact_rows<T, false>(rows, bits, x, ldx, words, values);
}

// acc += the rows of the tile, [64][C vectors], that word names, each times the next of the values.
template <class T, std::size_t C>
const T* add_rows(std::uint64_t word, const T* values, const T* tile,
                  typename simd::Vec<T>::Reg (&acc)[C]) {
    using V = simd::Vec<T>;
    for (; word != 0; word &= word - 1) {
        const typename V::Reg value = V::broadcast(values++);
        const T* row =
            tile + static_cast<std::size_t>(simd::trailing_zeros(word)) * (C * V::kLanes);
        for (std::size_t c = 0; c < C; ++c)
            acc[c] = V::fma(value, V::load(row + c * V::kLanes), acc[c]);
    }
    return values;
}

template <class T, std::size_t C>
void start_sums(const T* in, typename simd::Vec<T>::Reg (&acc)[C]) {
    using V = simd::Vec<T>;
    for (std::size_t c = 0; c < C; ++c)
        acc[c] = in == nullptr ? V::zero() : V::load(in + c * V::kLanes);
}
template <class T, std::size_t C>
void store_sums(const typename simd::Vec<T>::Reg (&acc)[C], T* out) {
    for (std::size_t c = 0; c < C; ++c) simd::Vec<T>::store(out + c * simd::Vec<T>::kLanes, acc[c]);
}

// out[i, C vectors] = in (or 0) + the rows of the tile that words[i] names, each times the next of
// the values.
template <class T, std::size_t C, bool kPairs>
void skip_tile(std::size_t rows, const std::uint64_t* words, const T* values, const T* tile,
               const T* in, std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    const auto next = [&](std::size_t count) {
        rows -= count;
        words += count;
        out += static_cast<std::ptrdiff_t>(count) * ld_out;
        if (in != nullptr) in += static_cast<std::ptrdiff_t>(count) * ld_in;
    };
    if constexpr (kPairs)
        while (rows >= 2) {
            typename V::Reg acc0[C], acc1[C];
            start_sums<T, C>(in, acc0);
            start_sums<T, C>(in == nullptr ? nullptr : in + ld_in, acc1);
            const std::uint64_t both = words[0] & words[1];
            const T* values1 = values + simd::popcount(both);
            for (std::uint64_t word = both; word != 0; word &= word - 1) {
                const typename V::Reg value0 = V::broadcast(values++);
                const typename V::Reg value1 = V::broadcast(values1++);
                const T* row =
                    tile + static_cast<std::size_t>(simd::trailing_zeros(word)) * (C * L);
                for (std::size_t c = 0; c < C; ++c) {
                    typename V::Reg y = V::load(row + c * L);
                    DROPWISE_KEEP_APART(y);
                    acc0[c] = V::fma(value0, y, acc0[c]);
                    acc1[c] = V::fma(value1, y, acc1[c]);
                }
            }
            values = add_rows<T, C>(words[0] & ~both, values1, tile, acc0);
            values = add_rows<T, C>(words[1] & ~both, values, tile, acc1);
            store_sums<T, C>(acc0, out);
            store_sums<T, C>(acc1, out + ld_out);
            next(2);
        }
    while (rows != 0) {
        typename V::Reg acc[C];
        start_sums<T, C>(in, acc);
        values = add_rows<T, C>(*words, values, tile, acc);
        store_sums<T, C>(acc, out);
        next(1);
    }
}

// The same for `depth` elements of a row: how many are not zero, their values and their places.
template <class T>
std::size_t list(std::size_t rows, std::size_t depth, const T* x, std::ptrdiff_t ldx,
                 std::uint64_t* counts, T* values, std::uint8_t* places) {
    T* to = values;
    for (; rows != 0; --rows, x += ldx) {
        const T* const first = to;
        for (std::size_t p = 0; p < depth; p += 64) {
            for (std::size_t q = p; q < p + 64; q += 64 / sizeof(T))
                simd::prefetch(x + 8 * ldx + q);
            const std::size_t bits = min(64, depth - p);
            std::uint64_t word = nonzero_word(bits, x + p);
            to = gather(word, bits, x + p, to);
            for (std::size_t q = p; q < p + bits; q += 8, word >>= 8) {
                simd::list_bits(word & 0xff, q, places);
                places += simd::popcount(word & 0xff);
            }
        }
        *counts++ = static_cast<std::uint64_t>(to - first);
    }
    return static_cast<std::size_t>(to - values);
}

template <class T, std::size_t C>
void listed_tile(std::size_t rows, const std::uint64_t* counts, const T* values,
                 const std::uint8_t* places, const T* tile, const T* in, std::ptrdiff_t ld_in,
                 T* out, std::ptrdiff_t ld_out) {
    using V = simd::Vec<T>;
    for (; rows != 0; --rows, out += ld_out) {
        typename V::Reg acc[C];
        start_sums<T, C>(in, acc);
        for (std::uint64_t n = *counts++; n != 0; --n) {
            const typename V::Reg value = V::broadcast(values++);
            const T* row = tile + *places++ * (C * V::kLanes);
            for (std::size_t c = 0; c < C; ++c)
                acc[c] = V::fma(value, V::load(row + c * V::kLanes), acc[c]);
        }
        store_sums<T, C>(acc, out);
        if (in != nullptr) in += ld_in;
    }
}

template <class T>
using SkipFn = void (*)(std::size_t, const std::uint64_t*, const T*, const T*, const T*,
                        std::ptrdiff_t, T*, std::ptrdiff_t);

template <class T>
using ListedFn = void (*)(std::size_t, const std::uint64_t*, const T*, const std::uint8_t*,
                          const T*, const T*, std::ptrdiff_t, T*, std::ptrdiff_t);

template <class T>
struct SkipTiles {
    SkipFn<T> fn[2][kSkipVectors<T>];  // [pairs][vectors - 1]
    ListedFn<T> listed[kSkipVectors<T>];
};

template <class T, std::size_t C = kSkipVectors<T>>
constexpr void fill_skip_tiles(SkipTiles<T>& tiles) {
    tiles.fn[0][C - 1] = &skip_tile<T, C, false>;
    tiles.fn[1][C - 1] = &skip_tile<T, C, kCanPair<T>>;
    tiles.listed[C - 1] = &listed_tile<T, C>;
    if constexpr (C > 1) fill_skip_tiles<T, C - 1>(tiles);
}

template <class T>
constexpr SkipTiles<T> make_skip_tiles() {
    SkipTiles<T> tiles{};
    fill_skip_tiles(tiles);
    return tiles;
}

template <class T>
constexpr SkipTiles<T> kSkipTiles = make_skip_tiles<T>();

template <class T>
void multiply_skipping(std::size_t rows, std::size_t width, const std::uint64_t* words,
                       const T* values, bool pairs, const T* tile, const T* in,
                       std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out) {
    kSkipTiles<T>.fn[pairs][width / simd::Vec<T>::kLanes - 1](rows, words, values, tile, in, ld_in,
                                                              out, ld_out);
}

template <class T>
void multiply_listed(std::size_t rows, std::size_t width, const std::uint64_t* counts,
                     const T* values, const std::uint8_t* places, const T* tile, const T* in,
                     std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out) {
    kSkipTiles<T>.listed[width / simd::Vec<T>::kLanes - 1](rows, counts, values, places, tile, in,
                                                           ld_in, out, ld_out);
}

}  // namespace product
}  // namespace
