// Copying and packing of operands, and the shape of the tiles they are packed for, for one
// instruction set.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  Knows nothing of what is computed with the
// packed operands.
#pragma once

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace product {

constexpr std::size_t min(std::size_t a, std::size_t b) {
    return a < b ? a : b;
}

// Rows of a register tile that is two vectors wide.  Beside the accumulators there must be room for
// two vectors of B, a broadcast element of A and a spare.
template <class T>
constexpr std::size_t kNarrowTileRows = (simd::Vec<T>::kRegisters - 4) / 2;

// Whether tiles are three vectors wide.  Some CPUs load vectors as long as a cache line at half the
// rate at which they multiply them, and then the tile with fewer loads is faster: 8 rows of three
// vectors take 11 loads for 24 multiply-adds, 14 rows of two vectors take 16 loads for 28.
template <class T>
constexpr bool kWideTiles =
    simd::Vec<T>::kRegisters == 32 && simd::Vec<T>::kLanes * sizeof(T) == 64;

template <class T>
constexpr std::size_t kTileRows = kWideTiles<T> ? 8 : kNarrowTileRows<T>;

template <class T>
constexpr std::size_t kTileCols = (kWideTiles<T> ? 3 : 2) * simd::Vec<T>::kLanes;

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
        // The inner loop follows the rows of the side whose rows are farther apart.  The other
        // order would step from one of those rows to the next, and use few sets of the cache.
        if (col_stride < ld) {
            for (std::size_t i = 0; i < rows; i += L)
                for (std::size_t j = 0; j < cols; j += L) block(i, j);
            return;
        }
        for (std::size_t j = 0; j < cols; j += L)
            for (std::size_t i = 0; i < rows; i += L) {
                // The hardware does not prefetch strides this long.
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

// One panel.  Vectors are stored whole.  What one writes past its row is overwritten by the next
// one, except for the last: hence kPackSlack.
template <class T>
void pack_panel(std::size_t rows, std::size_t readable, std::size_t k, const T* a,
                std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, T* panel) {
    using V = simd::Vec<T>;
    constexpr std::size_t L = V::kLanes;
    if (row_stride == 1) {
        for (std::size_t p = 0; p < k; ++p, a += col_stride, panel += rows)
            for (std::size_t i = 0; i < rows; i += L)
                if (kWideTiles<T> && rows < L)  // whole vectors would cross cache lines
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

}  // namespace product
}  // namespace
