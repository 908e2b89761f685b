// Dense products on packed panels, for one instruction set.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake); ops/matmul.cpp cuts the work into blocks that
// fit the caches.  Every number of rows has a register tile of its own, so that edges cost what
// they compute.
#pragma once

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace product {

using dropwise::Epilogue;

constexpr std::size_t min(std::size_t a, std::size_t b) {
    return a < b ? a : b;
}

// Rows of a tile two vectors wide: two vectors of B, one broadcast and a spare beside the
// accumulators.
template <class T>
constexpr std::size_t kFewRows = (simd::Vec<T>::kRegisters - 4) / 2;

// Vectors as long as a line of the cache are on some CPUs loaded at half the rate at which they are
// multiplied: 8 rows of three take 11 loads for 24 multiply-adds, 14 rows of two take 16 for 28.
template <class T>
constexpr bool kWideTiles =
    simd::Vec<T>::kRegisters == 32 && simd::Vec<T>::kLanes * sizeof(T) == 64;

template <class T>
constexpr std::size_t kTileRows = kWideTiles<T> ? 8 : kFewRows<T>;

template <class T>
constexpr std::size_t kTileCols = (kWideTiles<T> ? 3 : 2) * simd::Vec<T>::kLanes;

// ---- copying and packing -----------------------------------------------------------------------

// One block of at most lanes x lanes elements whose columns are contiguous in src:
// dst[j * ld + i] = src[i * stride + j].
template <class T>
void transpose_block(std::size_t rows, std::size_t cols, const T* src, std::ptrdiff_t stride,
                     T* dst, std::ptrdiff_t ld) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    typename V::Reg r[L];
    if (rows == L && cols == L) {
        for (std::size_t i = 0; i < L; ++i)
            r[i] = V::load(src + static_cast<std::ptrdiff_t>(i) * stride);
        V::transpose(r);
        for (std::size_t j = 0; j < L; ++j)
            V::store(dst + static_cast<std::ptrdiff_t>(j) * ld, r[j]);
        return;
    }
    for (std::size_t i = 0; i < L; ++i)
        r[i] =
            i < rows ? V::load_n(src + static_cast<std::ptrdiff_t>(i) * stride, cols) : V::zero();
    V::transpose(r);
    for (std::size_t j = 0; j < cols; ++j)
        V::store_n(dst + static_cast<std::ptrdiff_t>(j) * ld, r[j], rows);
}

template <class T>
void copy(std::size_t rows, std::size_t cols, const T* src, std::ptrdiff_t row_stride,
          std::ptrdiff_t col_stride, T* dst, std::ptrdiff_t ld) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    if (col_stride == 1) {
        for (std::size_t i = 0; i < rows; ++i, src += row_stride, dst += ld) {
            std::size_t j = 0;
            for (; j + L <= cols; j += L) V::store(dst + j, V::load(src + j));
            if (j < cols) V::store_n(dst + j, V::load_n(src + j, cols - j), cols - j);
        }
    } else if (row_stride == 1) {
        const auto block = [&](std::size_t i, std::size_t j) {
            transpose_block(min(L, cols - j), min(L, rows - i),
                            src + static_cast<std::ptrdiff_t>(j) * col_stride + i, col_stride,
                            dst + static_cast<std::ptrdiff_t>(i) * ld + j, ld);
        };
        // Along the rows of the side on which they are farther apart: a walk from row to row there
        // would meet few sets of the cache.
        if (col_stride < ld) {
            for (std::size_t i = 0; i < rows; i += L)
                for (std::size_t j = 0; j < cols; j += L) block(i, j);
            return;
        }
        for (std::size_t j = 0; j < cols; j += L)
            for (std::size_t i = 0; i < rows; i += L) {
                // Strides this long are not prefetched by hardware.
                if (j + 2 * L <= cols)
                    for (std::size_t l = j + L; l < j + 2 * L; ++l)
                        simd::prefetch(src + static_cast<std::ptrdiff_t>(l) * col_stride + i);
                block(i, j);
            }
    } else {
        for (std::size_t i = 0; i < rows; ++i, src += row_stride, dst += ld) {
            const T* from = src;
            for (std::size_t j = 0; j < cols; ++j, from += col_stride) dst[j] = *from;
        }
    }
}

// One panel.  Vectors are stored whole, in an order in which what one
// writes past its row is overwritten by the next, but for the last of all.
template <class T>
void pack_panel(std::size_t rows, std::size_t readable, std::size_t k, const T* a,
                std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, T* panel) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    if (row_stride == 1) {
        for (std::size_t p = 0; p < k; ++p, a += col_stride, panel += rows)
            for (std::size_t i = 0; i < rows; i += L)
                if (kWideTiles<T> && rows < L)  // whole vectors would cross lines of the cache
                    V::store_n(panel, V::load_n(a, rows), rows);
                else
                    V::store(panel + i,
                             i + L <= readable ? V::load(a + i) : V::load_n(a + i, readable - i));
    } else if (col_stride == 1) {
        for (std::size_t p = 0; p < k; p += L) {
            const std::size_t cols = min(L, k - p);
            for (std::size_t i = (rows - 1) / L * L + L; i != 0;) {
                i -= L;
                typename V::Reg r[L];
                for (std::size_t l = 0; l < L; ++l) {
                    const T* from =
                        a + static_cast<std::ptrdiff_t>(min(i + l, rows - 1)) * row_stride + p;
                    r[l] = cols == L ? V::load(from) : V::load_n(from, cols);
                }
                V::transpose(r);
                for (std::size_t l = 0; l < cols; ++l) V::store(panel + (p + l) * rows + i, r[l]);
            }
        }
    } else {
        copy(k, rows, a, col_stride, row_stride, panel, static_cast<std::ptrdiff_t>(rows));
    }
}

template <class T>
void pack_a(std::size_t m, std::size_t k, const T* a, std::ptrdiff_t row_stride,
            std::ptrdiff_t col_stride, std::size_t height, T* packed) {
    for (; m != 0;) {
        const std::size_t rows = min(height, m);
        pack_panel(rows, m, k, a, row_stride, col_stride, packed);
        a += static_cast<std::ptrdiff_t>(rows) * row_stride;
        packed += rows * k;
        m -= rows;
    }
}

template <class T>
void pack_b(std::size_t k, std::size_t n, const T* b, std::ptrdiff_t row_stride,
            std::ptrdiff_t col_stride, std::size_t panel_width, T* packed) {
    constexpr std::size_t L = simd::Vec<T>::kLanes;
    // A few rows at a time through all panels, so that long rows are read in order.
    const std::size_t rows_at_once = col_stride == 1 ? 8 : 64;
    for (std::size_t p = 0; p < k; p += rows_at_once) {
        const std::size_t rows = min(rows_at_once, k - p);
        for (std::size_t j = 0; j < n; j += panel_width) {
            const std::size_t cols = min(panel_width, n - j);
            const std::size_t width = (cols + L - 1) / L * L;
            T* panel = packed + j * k + p * width;
            copy(rows, cols,
                 b + static_cast<std::ptrdiff_t>(p) * row_stride +
                     static_cast<std::ptrdiff_t>(j) * col_stride,
                 row_stride, col_stride, panel, static_cast<std::ptrdiff_t>(width));
            for (std::size_t i = 0; i < rows; ++i)
                for (std::size_t l = cols; l < width; ++l) panel[i * width + l] = 0;
        }
    }
}

// ---- the register tile -------------------------------------------------------------------------

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
        // Short vectors go through a panel faster than hardware fetches it.
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

// fn[rows - 1]; null where the accumulators would not fit.
template <class T>
struct Tiles {
    TileFn<T> fn[kFewRows<T>];
};

template <class T, std::size_t C, bool kPanel, std::size_t R = kFewRows<T>>
constexpr void fill_tiles(Tiles<T>& tiles) {
    if constexpr (R * C <= 2 * kFewRows<T>) tiles.fn[R - 1] = &tile<T, R, C, kPanel>;
    if constexpr (R > 1) fill_tiles<T, C, kPanel, R - 1>(tiles);
}

template <class T, std::size_t C, bool kPanel>
constexpr Tiles<T> make_tiles() {
    Tiles<T> tiles{};
    fill_tiles<T, C, kPanel>(tiles);
    return tiles;
}

// For a panel of packed B, or for rows of B where they lie.
template <class T, std::size_t C, bool kPanel>
constexpr Tiles<T> kTiles = make_tiles<T, C, kPanel>();

// Rows of tiles outside, panels of B inside: A's panel stays in L1 while B streams from L2, and a
// band of finished rows is complete early.
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
void multiply_few_rows(std::size_t m, std::size_t n, std::size_t k, const T* a, const T* b,
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

// ---- few columns: dot products along k ---------------------------------------------------------

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

// ---- epilogue ----------------------------------------------------------------------------------

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

// Where the epilogue finds its values: in the output itself, ...
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

// ... or as a sum of k products, which are fewer than what it would take to keep the sum somewhere.
// It starts from +0.0, as all sums do: a product alone could be -0.0.
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

// Without a step there are only NaN to look for in outputs that are there.
template <class T, class Values, bool kBias, bool kRelu, bool kBits>
bool finish_rows(std::size_t m, std::size_t n, const Values& values, T* c, std::ptrdiff_t ldc,
                 const Epilogue<T>& e) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    constexpr bool kWrites = kBias || kRelu || kBits || !Values::kInPlace;
    const typename V::Reg scale = V::broadcast(&e.scale);
    typename V::Reg poison = V::zero();  // NaN once a result is NaN, or so large that sums overflow
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
            // Stores wait for lines of the cache that hold what they are about to overwrite.
            if (!Values::kInPlace)
                for (std::size_t p = 0; p < 64; p += 64 / sizeof(T))
                    simd::prefetch(c + 4 * ldc + static_cast<std::ptrdiff_t>(j + p));
            typename V::Reg v[kWordVectors<T>];
            values.word(i, j, v);
            DROPWISE_UNROLL for (std::size_t l = 0; l < kWordVectors<T>; ++l) {
                v[l] = epilogue(v[l], [&] { return V::load(e.bias + j + l * L); }, word >> l * L);
                if (kWrites) V::store(c + j + l * L, v[l]);
            }
            // One step of the chain for a word: its latency would be what everything waits for.
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
bool finish_from(std::size_t m, std::size_t n, const Values& values, T* c, std::ptrdiff_t ldc,
                 const Epilogue<T>& e) {
    using Fn =
        bool (*)(std::size_t, std::size_t, const Values&, T*, std::ptrdiff_t, const Epilogue<T>&);
    constexpr Fn kFn[2][2][2] = {
        {{&finish_rows<T, Values, false, false, false>,
          &finish_rows<T, Values, false, false, true>},
         {&finish_rows<T, Values, false, true, false>, &finish_rows<T, Values, false, true, true>}},
        {{&finish_rows<T, Values, true, false, false>, &finish_rows<T, Values, true, false, true>},
         {&finish_rows<T, Values, true, true, false>, &finish_rows<T, Values, true, true, true>}}};
    return kFn[e.bias != nullptr][e.relu][e.bits != nullptr](m, n, values, c, ldc, e);
}

template <class T>
bool finish(std::size_t m, std::size_t n, T* c, std::ptrdiff_t ldc, const Epilogue<T>& e) {
    return finish_from<T>(m, n, FromOutput<T>{c, ldc}, c, ldc, e);
}

template <class T>
bool multiply_few_terms(std::size_t m, std::size_t n, std::size_t k, const T* a,
                        std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, const T* b,
                        std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc, const Epilogue<T>& e) {
    return finish_from<T>(m, n, FromTerms<T>{k, a, row_stride, col_stride, b, ldb}, c, ldc, e);
}

}  // namespace product
}  // namespace
