// Products that compute only the outputs that a mask keeps (SDDMM), for one instruction set.
//
// Compiled once per set; ops/products/kept.cpp cuts the work into chunks and blocks.  A chunk of a
// row of the left operand is held in registers; the kept outputs of 64 columns are taken kSums at a
// time, each a dot product with a row of a tile that stays in L1.  The sums of a row are stored
// side by side; the epilogue expands them to their columns.
#pragma once

#include "kernels/epilogue.inl.hpp"

namespace {
namespace product {

// Vectors of k in a chunk: then a tile of 64 columns takes 32 KB at most.
template <class T>
constexpr std::size_t kKeptVectors = min(512 / sizeof(T) / simd::Vec<T>::kLanes, 12);

// words[i] = the bits of columns [0, count) of row i, whose first bit is at bit + i * bit_stride.
inline void mask_words(std::size_t rows, std::size_t count, const std::uint8_t* bits,
                       std::size_t bit, std::size_t bit_stride, std::uint64_t* words) {
    for (std::size_t i = 0; i < rows; ++i) words[i] = read_bits(bits, bit + i * bit_stride, count);
}

// to[g] = or += the dot product of x and the tile's row that the g-th bit of word names, for g < G;
// clears those bits.  If there are fewer than G bits, the other sums are of row 0 and never read.
template <class T, std::size_t K, std::size_t G>
void kept_group(const typename simd::Vec<T>::Reg (&x)[K], std::uint64_t& word, const T* tile, T* to,
                bool first) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    const T* row[G];
    for (std::size_t g = 0; g < G; ++g) {
        row[g] = tile + static_cast<std::size_t>(simd::trailing_zeros(word) & 63) * (K * L);
        word &= word - 1;
    }
    typename V::Reg acc[V::kSums];
    for (std::size_t g = 0; g < V::kSums; ++g)
        acc[g] = g < G ? V::mul(x[0], V::load(row[g < G ? g : 0])) : V::zero();
    for (std::size_t p = 1; p < K; ++p)
        for (std::size_t g = 0; g < G; ++g) acc[g] = V::fma(x[p], V::load(row[g] + p * L), acc[g]);
    if (first)
        for (std::size_t g = 0; g < V::kSums; ++g) to[g] = 0;
    V::sums(acc, to);
}

// sums[i * ld_sums + c] = or += the c-th kept output of row i over K vectors of k.  Overwrites up
// to kSums elements after the last.
template <class T, std::size_t K>
void kept_tile(std::size_t rows, const std::uint64_t* words, const T* a, std::ptrdiff_t lda,
               const T* tile, T* sums, std::size_t ld_sums, bool first) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes, G = V::kSums;
    for (; rows != 0; --rows, a += lda, sums += ld_sums) {
        for (std::size_t p = 0; p < K * L; p += 64 / sizeof(T)) simd::prefetch(a + 4 * lda + p);
        typename V::Reg x[K];
        for (std::size_t p = 0; p < K; ++p) x[p] = V::load(a + p * L);
        std::uint64_t word = *words++;
        T* to = sums;
        for (int left = simd::popcount(word); left > static_cast<int>(G / 2);
             left -= static_cast<int>(G), to += G)
            kept_group<T, K, G>(x, word, tile, to, first);
        if (word != 0) kept_group<T, K, G / 2>(x, word, tile, to, first);
    }
}

template <class T>
using KeptFn = void (*)(std::size_t, const std::uint64_t*, const T*, std::ptrdiff_t, const T*, T*,
                        std::size_t, bool);

template <class T>
struct KeptTiles {
    KeptFn<T> fn[kKeptVectors<T>];
};

template <class T, std::size_t K = kKeptVectors<T>>
constexpr void fill_kept_tiles(KeptTiles<T>& tiles) {
    tiles.fn[K - 1] = &kept_tile<T, K>;
    if constexpr (K > 1) fill_kept_tiles<T, K - 1>(tiles);
}

template <class T>
constexpr KeptTiles<T> make_kept_tiles() {
    KeptTiles<T> tiles{};
    fill_kept_tiles(tiles);
    return tiles;
}

template <class T>
constexpr KeptTiles<T> kKeptTiles = make_kept_tiles<T>();

template <class T>
void multiply_kept(std::size_t rows, std::size_t depth, const std::uint64_t* words, const T* a,
                   std::ptrdiff_t lda, const T* tile, T* sums, std::size_t ld_sums, bool first) {
    kKeptTiles<T>.fn[depth / simd::Vec<T>::kLanes - 1](rows, words, a, lda, tile, sums, ld_sums,
                                                       first);
}

// Values of an epilogue that are the sums of a row, one after the other, for the bits of its word
// that are 1.
template <class T>
struct FromSums {
    using V = simd::Vec<T>;
    static constexpr bool kInPlace = false;
    const std::uint64_t* words;
    const T* sums;
    std::size_t ld_sums;

    void word(std::size_t i, std::size_t, typename V::Reg (&v)[kWordVectors<T>]) const {
        const T* from = sums + i * ld_sums;
        DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) {
            v[l] = V::expand(bits(i, l * V::kLanes), from);
            from += simd::popcount(bits(i, l * V::kLanes));
        }
    }
    typename V::Reg part(std::size_t i, std::size_t j, std::size_t) const {
        const std::uint64_t before = words[i] & ((std::uint64_t{1} << j) - 1);
        return V::expand(bits(i, j), sums + i * ld_sums + simd::popcount(before));
    }

  private:
    std::uint64_t bits(std::size_t i, std::size_t j) const {
        return words[i] >> j & ((std::uint64_t{1} << V::kLanes) - 1);
    }
};

template <class T>
bool expand_kept(std::size_t m, std::size_t n, const std::uint64_t* words, const T* sums,
                 std::size_t ld_sums, T* c, std::ptrdiff_t ldc, const Epilogue<T>& e) {
    return epilogue_from<T>(m, n, FromSums<T>{words, sums, ld_sums}, c, ldc, e);
}

}  // namespace product
}  // namespace
