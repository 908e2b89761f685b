// Dense products on packed panels, for one instruction set.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake); ops/products/dense.cpp cuts the work into
// blocks that fit the caches.  There is a micro-kernel for each number of rows, so that no work is
// wasted at the edges.
#pragma once

#include "kernels/epilogue.inl.hpp"
#include "kernels/pack.inl.hpp"

namespace {
namespace product {

// c[R, C vectors] = or += a, stored [k][R], times b with rows ldb apart.  Of the last vector only
// `tail` lanes are written.
template <class T, std::size_t R, std::size_t C, bool kPanel>
void tile(std::size_t k, const T* a, const T* b, std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc,
          std::size_t tail, bool accumulate) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    for (std::size_t r = 0; r < R; ++r) simd::prefetch(c + static_cast<std::ptrdiff_t>(r) * ldc);
    typename V::Reg acc[R][C];
    for (std::size_t r = 0; r < R; ++r)
        for (std::size_t j = 0; j < C; ++j) acc[r][j] = V::zero();
    for (; k != 0; --k, a += R, b += ldb) {
        typename V::Reg row[C];
        for (std::size_t j = 0; j < C; ++j) row[j] = V::load(b + j * L);
        // With short vectors a panel is consumed faster than the hardware prefetches it.
        if constexpr (kPanel && C == 2 && !kWideTiles<T>) simd::prefetch(b + 32 * ldb);
        for (std::size_t r = 0; r < R; ++r) {
            const typename V::Reg x = V::broadcast(a + r);
            for (std::size_t j = 0; j < C; ++j) acc[r][j] = V::fma(x, row[j], acc[r][j]);
        }
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < R; ++r, c += ldc)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < C; ++j) {
            typename V::Reg v = acc[r][j];
            if (j + 1 < C || tail == L) {
                if (accumulate) v = V::add(V::load(c + j * L), v);
                V::store(c + j * L, v);
            } else {
                if (accumulate) v = V::add(V::load_n(c + j * L, tail), v);
                V::store_n(c + j * L, v, tail);
            }
        }
}

template <class T>
using TileFn = void (*)(std::size_t, const T*, const T*, std::ptrdiff_t, T*, std::ptrdiff_t,
                        std::size_t, bool);

// The micro-kernels by number of rows, fn[rows - 1]; null where the accumulators would not fit in
// registers.
template <class T>
struct Tiles {
    TileFn<T> fn[kNarrowTileRows<T>];
};

template <class T, std::size_t C, bool kPanel, std::size_t R = kNarrowTileRows<T>>
constexpr void fill_tiles(Tiles<T>& tiles) {
    if constexpr (R * C <= 2 * kNarrowTileRows<T>) tiles.fn[R - 1] = &tile<T, R, C, kPanel>;
    if constexpr (R > 1) fill_tiles<T, C, kPanel, R - 1>(tiles);
}

template <class T, std::size_t C, bool kPanel>
constexpr Tiles<T> make_tiles() {
    Tiles<T> tiles{};
    fill_tiles<T, C, kPanel>(tiles);
    return tiles;
}

// For a panel of packed B, or (kPanel = false) for rows of B where they lie.
template <class T, std::size_t C, bool kPanel>
constexpr Tiles<T> kTiles = make_tiles<T, C, kPanel>();

// One panel of A by all panels of B: A's panel stays in L1 while B streams from L2.
template <class T>
void multiply(std::size_t m, std::size_t n, std::size_t k, const T* a, const T* b,
              std::size_t panel_width, T* c, std::ptrdiff_t ldc, bool accumulate) {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    constexpr const TileFn<T>* kFn[] = {kTiles<T, 1, true>.fn, kTiles<T, 2, true>.fn,
                                        kTiles<T, 3, true>.fn};
    for (std::size_t j = 0; j < n; j += panel_width) {
        const std::size_t cols = min(panel_width, n - j);
        const std::size_t vectors = (cols + L - 1) / L;
        kFn[vectors - 1][m - 1](k, a, b + j * k, static_cast<std::ptrdiff_t>(vectors * L), c + j,
                                ldc, cols - (vectors - 1) * L, accumulate);
    }
}

template <class T>
void multiply_unpacked(std::size_t m, std::size_t n, std::size_t k, const T* a, const T* b,
                       std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc, bool accumulate) {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    constexpr const TileFn<T>* kFn[] = {kTiles<T, 1, false>.fn, kTiles<T, 2, false>.fn,
                                        kTiles<T, 4, false>.fn, kTiles<T, 8, false>.fn};
    int log2 = 3;
    for (std::size_t j = 0; j < n; j += L << log2) {
        while ((L << log2) > n - j || kFn[log2][m - 1] == nullptr) --log2;
        kFn[log2][m - 1](k, a, b + j, ldb, c + j, ldc, L, accumulate);
    }
}

template <class T>
constexpr std::size_t kDotRows = 4;

template <class T>
constexpr std::size_t kDotCols = simd::Vec<T>::kRegisters == 32 ? 4 : 3;

template <class T, std::size_t R, std::size_t S>
void dot_tile(std::size_t k, const T* a, std::ptrdiff_t lda, const T* bt, std::ptrdiff_t ldb, T* c,
              std::ptrdiff_t row_stride, std::ptrdiff_t col_stride) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    constexpr std::size_t kSlots = (R * S + V::kSums - 1) / V::kSums * V::kSums;
    typename V::Reg acc[kSlots];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSlots; ++i) acc[i] = V::zero();
    for (; k >= L; k -= L, a += L, bt += L) {
        typename V::Reg y[S];
        for (std::size_t s = 0; s < S; ++s)
            y[s] = V::load(bt + static_cast<std::ptrdiff_t>(s) * ldb);
        for (std::size_t r = 0; r < R; ++r) {
            const typename V::Reg x = V::load(a + static_cast<std::ptrdiff_t>(r) * lda);
            for (std::size_t s = 0; s < S; ++s) acc[r * S + s] = V::fma(x, y[s], acc[r * S + s]);
        }
    }
    if (k != 0) {
        typename V::Reg y[S];
#pragma GCC unroll 4
        for (std::size_t s = 0; s < S; ++s)
            y[s] = V::load_n(bt + static_cast<std::ptrdiff_t>(s) * ldb, k);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < R; ++r) {
            const typename V::Reg x = V::load_n(a + static_cast<std::ptrdiff_t>(r) * lda, k);
#pragma GCC unroll 4
            for (std::size_t s = 0; s < S; ++s) acc[r * S + s] = V::fma(x, y[s], acc[r * S + s]);
        }
    }

    T sums[kSlots] = {};
#pragma GCC unroll 16
    for (std::size_t g = 0; g < kSlots; g += V::kSums) {
        typename V::Reg part[V::kSums];
#pragma GCC unroll 8
        for (std::size_t i = 0; i < V::kSums; ++i) part[i] = acc[g + i];
        V::sums(part, sums + g);
    }
    for (std::size_t r = 0; r < R; ++r)
        for (std::size_t s = 0; s < S; ++s)
            c[static_cast<std::ptrdiff_t>(r) * row_stride +
              static_cast<std::ptrdiff_t>(s) * col_stride] = sums[r * S + s];
}

template <class T, std::size_t R>
void dot_rows(std::size_t n, std::size_t k, const T* a, std::ptrdiff_t lda, const T* bt,
              std::ptrdiff_t ldb, T* c, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride) {
    for (; n >= kDotCols<T>; n -= kDotCols<T>) {
        dot_tile<T, R, kDotCols<T>>(k, a, lda, bt, ldb, c, row_stride, col_stride);
        bt += static_cast<std::ptrdiff_t>(kDotCols<T>) * ldb;
        c += static_cast<std::ptrdiff_t>(kDotCols<T>) * col_stride;
    }
    if (n == 3) dot_tile<T, R, 3>(k, a, lda, bt, ldb, c, row_stride, col_stride);
    if (n == 2) dot_tile<T, R, 2>(k, a, lda, bt, ldb, c, row_stride, col_stride);
    if (n == 1) dot_tile<T, R, 1>(k, a, lda, bt, ldb, c, row_stride, col_stride);
}

template <class T>
void dot(std::size_t m, std::size_t n, std::size_t k, const T* a, std::ptrdiff_t lda, const T* bt,
         std::ptrdiff_t ldb, T* c, std::ptrdiff_t row_stride, std::ptrdiff_t col_stride) {
    constexpr std::size_t R = kDotRows<T>;
    for (; m >= R; m -= R) {
        dot_rows<T, R>(n, k, a, lda, bt, ldb, c, row_stride, col_stride);
        a += static_cast<std::ptrdiff_t>(R) * lda;
        c += static_cast<std::ptrdiff_t>(R) * row_stride;
    }
    for (; m != 0; --m, a += lda, c += row_stride)
        dot_rows<T, 1>(n, k, a, lda, bt, ldb, c, row_stride, col_stride);
}

// Values of an epilogue that are sums of a few products, made on the way: storing such a sum and
// reading it back would take longer.  A sum starts from +0.0, as all sums do, because a product
// alone could be -0.0.
template <class T>
struct FromTerms {
    using V = simd::Vec<T>;
    static constexpr bool kInPlace = false;
    std::size_t k;
    const T* a;
    std::ptrdiff_t row_stride, col_stride;
    const T* b;
    std::ptrdiff_t ldb;

    void word(std::size_t i, std::size_t j, typename V::Reg (&v)[kWordVectors<T>]) const {
        const T* x = a + static_cast<std::ptrdiff_t>(i) * row_stride;
        const T* y = b + j;
        typename V::Reg factor = V::broadcast(x);
        DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) v[l] =
            V::fma(factor, V::load(y + l * V::kLanes), V::zero());
        for (std::size_t p = 1; p < k; ++p) {
            factor = V::broadcast(x += col_stride);
            y += ldb;
            DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) v[l] =
                V::fma(factor, V::load(y + l * V::kLanes), v[l]);
        }
    }
    typename V::Reg part(std::size_t i, std::size_t j, std::size_t n) const {
        const T* x = a + static_cast<std::ptrdiff_t>(i) * row_stride;
        const T* y = b + j;
        typename V::Reg v = V::fma(V::broadcast(x), V::load_n(y, n), V::zero());
        for (std::size_t p = 1; p < k; ++p)
            v = V::fma(V::broadcast(x += col_stride), V::load_n(y += ldb, n), v);
        return v;
    }
};

template <class T>
bool multiply_few_terms(std::size_t m, std::size_t n, std::size_t k, const T* a,
                        std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, const T* b,
                        std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc, const Epilogue<T>& e) {
    return epilogue_from<T>(m, n, FromTerms<T>{k, a, row_stride, col_stride, b, ldb}, c, ldc, e);
}

}  // namespace product
}  // namespace
