// Products that skip the zeros of the left operand, for one instruction set.
//
// A word of bits says which of 64 consecutive k are worth a row of the right operand; its indices
// come from the word itself, since a list of them would compete with the vector loads.  The 64 rows
// of a tile stay in L1 while all rows of the left operand pass over it.
#pragma once

#include "kernels/gemm.inl.hpp"

namespace {
namespace product {

// 64 rows of as many columns take 32 KB at most.  Wider tiles than L1 cost more than they save.
template <class T>
constexpr std::size_t kSkipVectors = min(512 / sizeof(T) / simd::Vec<T>::kLanes, 12);

// Bit p of words[i]: x[i * ldx + p] != 0, for p < bits <= 64.  values: those that are not zero, one
// row's after the other's.  Returns how many there are.
template <class T>
std::size_t compact(std::size_t rows, std::size_t bits, const T* x, std::ptrdiff_t ldx,
                    std::uint64_t* words, T* values) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    T* to = values;
    for (std::size_t i = 0; i < rows; ++i, x += ldx) {
        std::uint64_t word = 0;
        for (std::size_t p = 0; p < bits; p += L) {
            const typename V::Reg v = p + L <= bits ? V::load(x + p) : V::load_n(x + p, bits - p);
            const std::uint64_t nonzero = V::nonzero(v);
            V::compress(nonzero, v, to);
            to += simd::popcount(nonzero);
            word |= nonzero << p;
        }
        words[i] = word;
    }
    return static_cast<std::size_t>(to - values);
}

// out[i, C vectors] = in (or 0) + the rows of the tile, [64][C vectors], that words[i] names, each
// times the next of the values.
template <class T, std::size_t C>
void skip_tile(std::size_t rows, const std::uint64_t* words, const T* values, const T* tile,
               const T* in, std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    for (; rows != 0; --rows, out += ld_out) {
        typename V::Reg acc[C];
        for (std::size_t c = 0; c < C; ++c)
            acc[c] = in == nullptr ? V::zero() : V::load(in + c * L);
        for (std::uint64_t word = *words++; word != 0; word &= word - 1) {
            const typename V::Reg value = V::broadcast(values++);
            const T* row = tile + static_cast<std::size_t>(simd::trailing_zeros(word)) * (C * L);
            for (std::size_t c = 0; c < C; ++c)
                acc[c] = V::fma(value, V::load(row + c * L), acc[c]);
        }
        for (std::size_t c = 0; c < C; ++c) V::store(out + c * L, acc[c]);
        if (in != nullptr) in += ld_in;
    }
}

template <class T>
using SkipFn = void (*)(std::size_t, const std::uint64_t*, const T*, const T*, const T*,
                        std::ptrdiff_t, T*, std::ptrdiff_t);

template <class T>
struct SkipTiles {
    SkipFn<T> fn[kSkipVectors<T>];
};

template <class T, std::size_t C = kSkipVectors<T>>
constexpr void fill_skip_tiles(SkipTiles<T>& tiles) {
    tiles.fn[C - 1] = &skip_tile<T, C>;
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
                       const T* values, const T* tile, const T* in, std::ptrdiff_t ld_in, T* out,
                       std::ptrdiff_t ld_out) {
    kSkipTiles<T>.fn[width / simd::Vec<T>::kLanes - 1](rows, words, values, tile, in, ld_in, out,
                                                       ld_out);
}

}  // namespace product
}  // namespace
