// Contracts of the kernels for products: a part of kernel_table.hpp.
//
// Strides and leading dimensions count elements and may be zero or negative where a kernel only
// reads.  "Packed A" is [m, k] cut into panels of `height` rows, each stored [k][rows of the
// panel]; "packed B" is [k, n] cut into panels of `panel_width` columns, a multiple of lanes, each
// stored [k][width], where width is panel_width or, in the last panel, the columns left, rounded up
// to lanes and filled with 0.
//
// Included by kernel objects too, so nothing may be included here but <cstddef>, <cstdint> and
// structs, and no inline function may stand here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cost_terms.hpp"

namespace dropwise {

// What is done to sums once they are complete, in this order: add bias, ReLU, then scale where the
// bit is 1 and +0.0 elsewhere.  Null pointers leave a step out.
template <class T>
struct Epilogue {
    const T* bias;  // of the first column, stride 1
    bool relu;
    const std::uint8_t* bits;  // packed mask
    std::size_t bit;           // position of the first output's bit
    std::size_t bit_stride;    // from one row's first bit to the next row's
    T scale;
    std::uint8_t* nonzero;  // packed like the mask: where the result is not zero
};

// Elements that a kernel may overwrite after what it writes.
constexpr std::size_t kPackSlack = 16;
constexpr std::size_t kSumsSlack = 16;
constexpr std::size_t kValuesSlack = 16;
constexpr std::size_t kListDepth = 256;  // places in a list are bytes

template <class T>
struct ProductKernels {
    std::size_t lanes, tile_rows, tile_cols, max_unpacked_rows;
    std::size_t skip_width, kept_depth;
    const Costs* costs;  // by CpuKind

    // dst[i * ld + j] = src[i * row_stride + j * col_stride]
    void (*copy)(std::size_t rows, std::size_t cols, const T* src, std::ptrdiff_t row_stride,
                 std::ptrdiff_t col_stride, T* dst, std::ptrdiff_t ld);
    // May overwrite up to kPackSlack elements after its end.
    void (*pack_a)(std::size_t m, std::size_t k, const T* a, std::ptrdiff_t row_stride,
                   std::ptrdiff_t col_stride, std::size_t height, T* packed);
    void (*pack_b)(std::size_t k, std::size_t n, const T* b, std::ptrdiff_t row_stride,
                   std::ptrdiff_t col_stride, std::size_t panel_width, T* packed);
    // c[m, n] = one panel of packed A times packed B, or c += it.  m <= max_unpacked_rows with
    // panels of up to two vectors, m <= tile_rows with panels of up to tile_cols.
    void (*multiply)(std::size_t m, std::size_t n, std::size_t k, const T* a, const T* b,
                     std::size_t panel_width, T* c, std::ptrdiff_t ldc, bool accumulate);
    // The same with m <= max_unpacked_rows and B where it lies, columns contiguous, n a multiple of
    // lanes.
    void (*multiply_unpacked)(std::size_t m, std::size_t n, std::size_t k, const T* a, const T* b,
                              std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc, bool accumulate);
    // c[i, j] = sum over p of a[i * lda + p] * bt[j * ldb + p]
    void (*dot)(std::size_t m, std::size_t n, std::size_t k, const T* a, std::ptrdiff_t lda,
                const T* bt, std::ptrdiff_t ldb, T* c, std::ptrdiff_t row_stride,
                std::ptrdiff_t col_stride);
    // Bit p of words[i] is x[i * ldx + p] != 0, for p < bits <= 64; these elements go to values,
    // in the order in which multiply_skipping takes them.  Returns their number.  values has room
    // for 64 in each row and, if there is more than one row, for kValuesSlack to overwrite.
    // `pairs`, the same in both: two rows share the loads of what they have in common, which
    // pays where that is much.
    std::size_t (*compact)(std::size_t rows, std::size_t bits, const T* x, std::ptrdiff_t ldx,
                           bool pairs, std::uint64_t* words, T* values);
    // out[rows, width] = in (null: 0) plus, for every bit p of words[i], its value times row p of
    // tile[64][width].  The same rows as in calls of compact, or an even number of them at a time.
    // width is a multiple of lanes up to skip_width.
    void (*multiply_skipping)(std::size_t rows, std::size_t width, const std::uint64_t* words,
                              const T* values, bool pairs, const T* tile, const T* in,
                              std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out);
    // The same where few elements are not zero, of depth <= kListDepth: counts[i] of them in row i,
    // their values, and as their places the p of x[i * ldx + p].  values and places have room for
    // depth in each row and for kValuesSlack to overwrite.
    std::size_t (*list)(std::size_t rows, std::size_t depth, const T* x, std::ptrdiff_t ldx,
                        std::uint64_t* counts, T* values, std::uint8_t* places);
    // out[rows, width] = in (null: 0) plus every value times the row of tile[depth][width] at its
    // place.
    void (*multiply_listed)(std::size_t rows, std::size_t width, const std::uint64_t* counts,
                            const T* values, const std::uint8_t* places, const T* tile, const T* in,
                            std::ptrdiff_t ld_in, T* out, std::ptrdiff_t ld_out);
    // words[i] = `count` <= 64 bits of the packed mask from position bit + i * bit_stride on.
    void (*mask_words)(std::size_t rows, std::size_t count, const std::uint8_t* bits,
                       std::size_t bit, std::size_t bit_stride, std::uint64_t* words);
    // sums[i * ld_sums + c] = or += the product over p < depth of a[i * lda + p] with row j of
    // tile[64][depth], where j is the c-th bit of words[i].  depth is a multiple of lanes up to
    // kept_depth.  Overwrites up to kSumsSlack elements after a row's last sum.
    void (*multiply_kept)(std::size_t rows, std::size_t depth, const std::uint64_t* words,
                          const T* a, std::ptrdiff_t lda, const T* tile, T* sums,
                          std::size_t ld_sums, bool first);
    // Applies the epilogue to c[m, n]; true if a result is NaN (or huge).
    bool (*apply_epilogue)(std::size_t m, std::size_t n, T* c, std::ptrdiff_t ldc,
                           const Epilogue<T>& epilogue);
    // c[m, n] = the epilogue of a times b, for few k: all in one pass.  b's columns are contiguous.
    bool (*multiply_few_terms)(std::size_t m, std::size_t n, std::size_t k, const T* a,
                               std::ptrdiff_t row_stride, std::ptrdiff_t col_stride, const T* b,
                               std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc,
                               const Epilogue<T>& epilogue);
    // c[i, j] = the epilogue of the next of row i's sums where bit j of words[i], that of the
    // epilogue, is 1; j < n <= 64.  Reads up to a vector past a row's sums.
    bool (*expand_kept)(std::size_t m, std::size_t n, const std::uint64_t* words, const T* sums,
                        std::size_t ld_sums, T* c, std::ptrdiff_t ldc, const Epilogue<T>& epilogue);
};

}  // namespace dropwise
