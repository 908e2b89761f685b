#include "ops/matmul.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>

#include "core/buffer.hpp"
#include "core/cpu_features.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"
#include "ops/dropout.hpp"

namespace dropwise::ops {
namespace {

using std::ptrdiff_t;
using std::size_t;

template <class T>
constexpr Element kElementOf = sizeof(T) == 4 ? Element::f32 : Element::f64;

template <class T>
const ProductKernels<T>& product_kernels();
template <>
const ProductKernels<float>& product_kernels<float>() {
    return kernels().products_f32;
}
template <>
const ProductKernels<double>& product_kernels<double>() {
    return kernels().products_f64;
}

constexpr size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}
constexpr size_t round_up(size_t a, size_t b) {
    return ceil_div(a, b) * b;
}

// Pieces of equal size, multiples of `step`, none larger than about `largest`.
constexpr size_t even_piece(size_t n, size_t largest, size_t step) {
    return round_up(ceil_div(n, std::max<size_t>(1, ceil_div(n, largest))), step);
}

// True if rows that are read together may compete for the same sets of the first-level cache.
template <class T>
bool far_apart(Matrix<const T> a) {
    constexpr ptrdiff_t kFar = 4096 / sizeof(T);
    return a.row_stride >= kFar || a.row_stride <= -kFar;
}

// Below this many multiply-adds waking other threads costs more than it saves.
constexpr size_t kSerialWork = size_t{1} << 19;

template <class Body>
void for_each_task(size_t n_tasks, bool serial, Body&& body) {
    if (serial || n_tasks == 1)
        for (size_t task = 0; task < n_tasks; ++task) body(task);
    else
        parallel_for(n_tasks, body);
}

// What is done to a block of finished outputs.
template <class T>
struct Finish {
    const ProductKernels<T>& kernels;
    Matrix<T> c;  // columns contiguous
    Epilogue<T> epilogue;
    bool needed;
    std::atomic<bool>* saw_nan;

    void operator()(size_t i, size_t j, size_t m, size_t n) const {
        if (needed) note_nan(kernels.finish(m, n, c.at(i, j), c.row_stride, at(i, j)));
    }
    // The epilogue of the block that starts there.
    Epilogue<T> at(size_t i, size_t j) const {
        Epilogue<T> e = epilogue;
        if (e.bias != nullptr) e.bias += j;
        e.bit += i * e.bit_stride + j;
        return e;
    }
    void note_nan(bool seen) const {
        if (seen && saw_nan != nullptr) saw_nan->store(true, std::memory_order_relaxed);
    }
    void all() const {
        size_t done = 0;
        if (needed && c.cols < kShort && c.row_stride == static_cast<ptrdiff_t>(c.cols))
            done = short_rows();
        if (done < c.rows) (*this)(done, 0, c.rows - done, c.cols);
    }

  private:
    static constexpr size_t kShort = 32, kTogether = 64;

    // Rows shorter than vectors, one after the other in memory, are finished many at a time, as if
    // they were one row with the bias repeated.  Returns how many rows that could be done to.
    size_t short_rows() const {
        const size_t groups = c.rows / kTogether, width = kTogether * c.cols;
        const Scratch<T> repeated(Slot::kTask, epilogue.bias == nullptr ? 0 : width);
        if (epilogue.bias != nullptr && repeated.get() == nullptr) return 0;
        Epilogue<T> e = epilogue;
        e.bit_stride = width;
        if (e.bias != nullptr) {
            for (size_t i = 0; i < kTogether; ++i)
                std::copy_n(epilogue.bias, c.cols, repeated.get() + i * c.cols);
            e.bias = repeated.get();
        }
        note_nan(kernels.finish(groups, width, c.data, static_cast<ptrdiff_t>(width), e));
        return groups * kTogether;
    }
};

// A set of memory requests inside parallel tasks, which must not throw: ask, compute, then throw.
class MemoryCheck {
  public:
    bool operator()(const void* p) noexcept {
        if (p == nullptr) failed_.store(true, std::memory_order_relaxed);
        return p != nullptr;
    }
    void rethrow() const {
        if (failed_.load(std::memory_order_relaxed)) throw std::bad_alloc();
    }

  private:
    std::atomic<bool> failed_{false};
};

// How the rows and columns of an output are dealt out to threads.
struct Grid {
    size_t rows_per_task, cols_per_task, row_tasks, col_tasks;

    Grid(size_t m, size_t n, size_t row_block, size_t row_step, size_t col_step, bool serial) {
        const size_t threads = serial ? 1 : static_cast<size_t>(num_threads());
        size_t tasks = ceil_div(m, row_block);
        if (tasks < 4 * threads) tasks = std::min(round_up(tasks, threads), ceil_div(m, row_step));
        rows_per_task = round_up(ceil_div(m, tasks), row_step);
        row_tasks = ceil_div(m, rows_per_task);
        const size_t groups = row_tasks >= threads ? 1 : ceil_div(threads, row_tasks);
        cols_per_task = round_up(ceil_div(n, groups), col_step);
        col_tasks = ceil_div(n, cols_per_task);
    }
    size_t tasks() const { return row_tasks * col_tasks; }
};

// Cache blocks, the best of ten measured on a Zen 4: A's panel of tile_rows x kDepth stays in L1,
// B's block of kDepth x kWidth streams from L2 and L3, and C is read again K / kDepth - 1 times.
template <class T>
constexpr size_t kDepth = sizeof(T) == 4 ? 320 : 256;
template <class T>
constexpr size_t kWidth = 2048 / sizeof(T);
constexpr size_t kHeight = 112;

// Packed panels on both sides, BLIS fashion.  k is cut into pieces that depend on k alone, and all
// pieces of an output are added by one thread in order.
template <class T>
void multiply_blocked(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
                      bool serial) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t m = c.rows, n = c.cols, k = a.cols;
    const size_t depth = even_piece(k, kDepth<T>, 1);
    const size_t panel = even_piece(n, kern.tile_cols, kern.lanes);
    const size_t width = even_piece(n, kWidth<T>, panel);
    const size_t panels = width / panel;
    const Scratch<T> packed_b(Slot::kShared, depth * width);
    MemoryCheck memory;
    if (!memory(packed_b.get())) memory.rethrow();

    for (size_t j0 = 0; j0 < n; j0 += width) {
        const size_t cols = std::min(width, n - j0);
        const Grid grid(m, cols, kHeight, kern.tile_rows, panel, serial);
        for (size_t p0 = 0; p0 < k; p0 += depth) {
            const size_t ks = std::min(depth, k - p0);
            const size_t packers = serial || ks * cols < 16384 ? 1 : std::min<size_t>(panels, 8);
            const size_t share = ceil_div(panels, packers) * panel;
            for_each_task(ceil_div(cols, share), packers == 1, [&](size_t task) {
                const size_t j = task * share;
                kern.pack_b(ks, std::min(share, cols - j), b.at(p0, j0 + j), b.row_stride,
                            b.col_stride, panel, packed_b.get() + j * ks);
            });
            for_each_task(grid.tasks(), serial, [&](size_t task) {
                const size_t i = task / grid.col_tasks * grid.rows_per_task;
                const size_t j = task % grid.col_tasks * grid.cols_per_task;
                const size_t task_rows = std::min(grid.rows_per_task, m - i);
                const size_t task_cols = std::min(grid.cols_per_task, cols - j);
                const size_t height = std::min(task_rows, round_up(kHeight, kern.tile_rows));
                const Scratch<T> packed_a(Slot::kTask, height * ks + kPackSlack);
                if (!memory(packed_a.get())) return;
                for (size_t r = 0; r < task_rows; r += height) {
                    const size_t rows = std::min(height, task_rows - r);
                    kern.pack_a(rows, ks, a.at(i + r, p0), a.row_stride, a.col_stride,
                                kern.tile_rows, packed_a.get());
                    for (size_t t = 0; t < rows; t += kern.tile_rows) {
                        const size_t tile_rows = std::min(kern.tile_rows, rows - t);
                        kern.multiply(tile_rows, task_cols, ks, packed_a.get() + t * ks,
                                      packed_b.get() + j * ks, panel, c.at(i + r + t, j0 + j),
                                      c.row_stride, p0 != 0);
                        if (p0 + ks == k) finish(i + r + t, j0 + j, tile_rows, task_cols);
                    }
                }
            });
        }
    }
    memory.rethrow();
}

// Few rows, and B's columns contiguous: B is used where it lies, read in order, once for each
// tile's worth of rows.
template <class T>
void multiply_few_rows(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
                       bool serial) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t m = c.rows, n = c.cols, k = a.cols;
    constexpr size_t kFewDepth = 32;
    const Scratch<T> packed_a(Slot::kShared, m * k + kPackSlack);
    MemoryCheck memory;
    if (!memory(packed_a.get())) memory.rethrow();
    const size_t height = even_piece(m, kern.few_rows, 1);
    for (size_t p = 0; p < k; p += kFewDepth)
        for (size_t i = 0; i < m; i += height) {
            const size_t ks = std::min(kFewDepth, k - p);
            kern.pack_a(std::min(height, m - i), ks, a.at(i, p), a.row_stride, a.col_stride, height,
                        packed_a.get() + p * m + i * ks);
        }

    const Grid grid(1, n, 1, 1, 8 * kern.lanes, serial);
    for_each_task(grid.tasks(), serial, [&](size_t task) {
        const size_t j = task * grid.cols_per_task;
        const size_t cols = std::min(grid.cols_per_task, n - j);
        const size_t whole = cols / kern.lanes * kern.lanes;
        const Scratch<T> packed_b(Slot::kTask, kFewDepth * kern.lanes);
        if (!memory(packed_b.get())) return;
        for (size_t p = 0; p < k; p += kFewDepth) {
            const size_t ks = std::min(kFewDepth, k - p);
            if (whole != cols)
                kern.pack_b(ks, cols - whole, b.at(p, j + whole), b.row_stride, b.col_stride,
                            kern.lanes, packed_b.get());
            for (size_t i = 0; i < m; i += height) {
                const size_t rows = std::min(height, m - i);
                const T* from = packed_a.get() + p * m + i * ks;
                if (whole != 0)
                    kern.multiply_few_rows(rows, whole, ks, from, b.at(p, j), b.row_stride,
                                           c.at(i, j), c.row_stride, p != 0);
                if (whole != cols)
                    kern.multiply(rows, cols - whole, ks, from, packed_b.get(), kern.lanes,
                                  c.at(i, j + whole), c.row_stride, p != 0);
            }
        }
        finish(0, j, m, cols);
    });
    memory.rethrow();
}

// Few terms in a sum: computed and finished in one pass over the output.
template <class T>
void multiply_few_terms(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
                        bool serial) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t m = c.rows, n = c.cols, k = a.cols;
    const bool pack = b.col_stride != 1;
    const Scratch<T> packed(Slot::kShared, pack ? k * n : 0);
    if (pack) {
        if (packed.get() == nullptr) throw std::bad_alloc();
        const auto ld = static_cast<ptrdiff_t>(n);
        kern.copy(k, n, b.data, b.row_stride, b.col_stride, packed.get(), ld);
        b = {packed.get(), k, n, ld, 1};
    }
    const Grid grid(m, n, 256, 1, n, serial);
    for_each_task(grid.row_tasks, serial, [&](size_t task) {
        const size_t i = task * grid.rows_per_task;
        finish.note_nan(kern.multiply_few_terms(
            std::min(grid.rows_per_task, m - i), n, k, a.at(i, 0), a.row_stride, a.col_stride,
            b.data, b.row_stride, c.at(i, 0), c.row_stride, finish.at(i, 0)));
    });
}

// Few columns, and A's rows contiguous: dot products.  Any strides of c.
template <class T>
void multiply_by_dots(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
                      Matrix<T> c, bool serial) {
    const size_t m = c.rows, n = c.cols, k = a.cols;
    Matrix<const T> bt = b.transposed();
    const bool pack = bt.col_stride != 1;
    const Scratch<T> packed(Slot::kShared, pack ? n * k : 0);
    if (pack) {
        if (packed.get() == nullptr) throw std::bad_alloc();
        kern.copy(n, k, bt.data, bt.row_stride, bt.col_stride, packed.get(),
                  static_cast<ptrdiff_t>(k));
        bt = {packed.get(), n, k, static_cast<ptrdiff_t>(k), 1};
    }
    const Grid grid(m, n, 1024, 4, n, serial);
    for_each_task(grid.row_tasks, serial, [&](size_t task) {
        const size_t i = task * grid.rows_per_task;
        kern.dot(std::min(grid.rows_per_task, m - i), n, k, a.at(i, 0), a.row_stride, bt.data,
                 bt.row_stride, c.at(i, 0), c.row_stride, c.col_stride);
    });
}

template <class T>
void copy_matrix(const ProductKernels<T>& kern, Matrix<const T> from, Matrix<T> to) {
    if (to.col_stride == 1) {
        kern.copy(to.rows, to.cols, from.data, from.row_stride, from.col_stride, to.data,
                  to.row_stride);
    } else if (to.row_stride == 1) {
        copy_matrix(kern, from.transposed(), to.transposed());
    } else {
        for (size_t i = 0; i < to.rows; ++i)
            for (size_t j = 0; j < to.cols; ++j) *to.at(i, j) = *from.at(i, j);
    }
}

template <class T>
Matrix<const T> read_only(Matrix<T> a) {
    return {a.data, a.rows, a.cols, a.row_stride, a.col_stride};
}

template <class T>
bool few_rows(const ProductKernels<T>& kern, size_t m, Matrix<const T> b) {
    return b.col_stride == 1 && m <= (far_apart(b) ? 1 : 2) * kern.few_rows;
}

// c = a b and the epilogue, c's columns contiguous.
template <class T>
void dense_by_rows(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
                   bool serial) {
    // One pass pays if there are steps to be done in it.  Both ways add in the same order.
    const size_t few_terms = finish.needed ? 8 : 3;
    if (a.cols <= few_terms && c.cols >= finish.kernels.lanes)
        multiply_few_terms(a, b, c, finish, serial);
    else if (few_rows(finish.kernels, c.rows, b))
        multiply_few_rows(a, b, c, finish, serial);
    else
        multiply_blocked(a, b, c, finish, serial);
}

// Dot products do not care how many columns there are; tiles leave part of their last vector empty.
template <class T>
bool dots_pay(const ProductKernels<T>& kern, size_t n, size_t k) {
    return k >= kern.lanes &&
           (n <= 16 || (n < 4 * kern.lanes && 8 * n < 7 * round_up(n, kern.lanes)));
}

template <class T>
bool by_dots(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return a.col_stride == 1 && dots_pay(kern, b.cols, a.cols);
}
template <class T>
bool by_dots_transposed(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b) {
    return b.row_stride == 1 && b.col_stride != 1 && dots_pay(kern, a.rows, a.cols);
}
// By way of the transpose a's rows need no packing, but the result has to be turned back.
template <class T>
bool few_columns(Matrix<const T> a, size_t n) {
    return a.row_stride == 1 && 2 * n < a.rows && (n <= 16 || (n <= 32 && 4 * n <= a.cols));
}

// c = a b and the epilogue.  The way depends on shapes and strides only.  c's columns are
// contiguous unless there is no epilogue.
template <class T>
void dense(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t m = c.rows, n = c.cols, k = a.cols;
    const bool serial = num_threads() == 1 || m * n * k + m * n + m * k + k * n < kSerialWork;

    if (k == 0) {
        for (size_t i = 0; i < m; ++i)
            for (size_t j = 0; j < n; ++j) *c.at(i, j) = 0;
        return finish.all();
    }
    if (by_dots(kern, a, b)) {
        multiply_by_dots(kern, a, b, c, serial);
        return finish.all();
    }
    if (by_dots_transposed(kern, a, b)) {
        multiply_by_dots(kern, b.transposed(), a.transposed(), c.transposed(), serial);
        return finish.all();
    }
    if (c.col_stride == 1 && !few_columns(a, n)) return dense_by_rows(a, b, c, finish, serial);

    // By way of c^T = b^T a^T, into memory of our own where c^T is not in row order.
    const Matrix<T> ct = c.transposed();
    const bool direct = ct.col_stride == 1;
    const Scratch<T> result(Slot::kResult, direct ? 0 : m * n);
    if (!direct && result.get() == nullptr) throw std::bad_alloc();
    const Matrix<T> to = direct ? ct : Matrix<T>{result.get(), n, m, static_cast<ptrdiff_t>(m), 1};
    const Finish<T> nothing{kern, to, {}, false, nullptr};
    dense_by_rows(b.transposed(), a.transposed(), to, nothing, serial);
    if (!direct) copy_matrix(kern, read_only(to), ct);
    finish.all();
}

// ---- skipping ----------------------------------------------------------------------------------

constexpr size_t kWordBits = 64;

// Rows that share one packing of a tile: their partial sums stay in L2.
constexpr size_t kSkipRows = 1024;
constexpr size_t kKeptRows = 512;
constexpr size_t kKeptBlocks = 2;  // blocks of 64 columns that reuse a chunk of those rows

// Rows taken on at once, so that what is made for them stays small whatever the number of rows.
template <class T>
size_t rows_at_once(size_t k) {
    constexpr size_t kElements = size_t{1} << 21;
    return std::max(kSkipRows, kElements / std::max<size_t>(1, k) / kSkipRows * kSkipRows);
}

// A band of rows of a in chunks of `width` along k.  Rows that are not contiguous, or so far apart
// that they would compete for the same sets of the caches, are copied to [chunk][row][width].
template <class T>
class Chunks {
  public:
    Chunks(Matrix<const T> a, size_t width)
        : a_(a),
          width_(width),
          copied_(must_copy(a)),
          memory_(Slot::kRows, copied_ ? a.rows * round_up(a.cols, width) : 0) {
        if (copied_ && memory_.get() == nullptr) throw std::bad_alloc();
    }
    static bool must_copy(Matrix<const T> a) {
        return a.col_stride != 1 || (a.rows > 64 && far_apart(a));
    }
    bool copied() const { return copied_; }
    // To be called once for every row before it is read.
    void fill(const ProductKernels<T>& kern, size_t i, size_t m) const {
        if (!copied_) return;
        for (size_t p = 0; p < a_.cols; p += width_)
            kern.copy(m, std::min(width_, a_.cols - p), a_.at(i, p), a_.row_stride, a_.col_stride,
                      const_cast<T*>(at(i, p)), ld());
    }
    // Element p of row i; p is a multiple of width.
    const T* at(size_t i, size_t p) const {
        return copied_ ? memory_.get() + p * a_.rows + i * width_ : a_.at(i, p);
    }
    ptrdiff_t ld() const { return copied_ ? static_cast<ptrdiff_t>(width_) : a_.row_stride; }

  private:
    Matrix<const T> a_;
    size_t width_;
    bool copied_;
    Scratch<T> memory_;
};

// How many words of 64 elements to look at before a product of that many multiply-adds: enough for
// a choice, and less than a hundredth of the work.
size_t sample_words(size_t work) {
    return std::min<size_t>(64, 2 + work / 131072);
}

// Place `s` of a sequence that fills [0, n) evenly in every part of it (steps of the golden ratio).
size_t scattered(size_t s, size_t n) {
    return static_cast<size_t>((s * 0x9e3779b9u & 0xffffffffu) * std::uint64_t{n} >> 32);
}

// The share of elements that are not zero, from words in some of the rows.
template <class T>
double density(const ProductKernels<T>& kern, Matrix<const T> a, size_t work) {
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

// How rows are taken past their zeros: in pairs, where two of them share much; and how many words
// at a time, by lists if it is more than one, where there is little in a word.
struct Passes {
    bool pairs;
    size_t words;
};
Passes passes_at(double density, size_t rows) {
    constexpr size_t kMany = 256;  // rows, for a tile that does not fit the first-level cache
    return {density > 0.35, density < 0.06 && rows >= kMany ? kListDepth / kWordBits : 1};
}

// What is not zero in a band of rows, and where: words[u][row], or counts if there are lists, and
// for each unit, of so many columns as are taken at a time, the values (and places) of kBand rows
// one after the other.  A product reads them as often as it has tiles of columns, and in order,
// wherever the rows lie.
template <class T>
class Nonzero {
  public:
    static constexpr size_t kBand = 128;

    Nonzero(Matrix<const T> a, Passes passes)
        : a_(a),
          passes_(passes),
          depth_(passes.words * kWordBits),
          units_(ceil_div(a.cols, depth_)),
          words_(Slot::kWords, units_ * a.rows),
          bands_(ceil_div(a.rows, kBand)),
          band_values_(std::min(kBand, a.rows) * depth_ + kValuesSlack),
          values_(Slot::kRows, units_ * bands_ * band_values_),
          places_(Slot::kPlaces, listed() ? units_ * bands_ * band_values_ : 0) {
        if (words_.get() == nullptr || values_.get() == nullptr) throw std::bad_alloc();
        if (listed() && places_.get() == nullptr) throw std::bad_alloc();
    }
    size_t depth() const { return depth_; }
    // out = in (null: 0) plus what unit u of `rows` rows from i on, of one band, makes of a tile.
    void multiply(const ProductKernels<T>& kern, size_t i, size_t rows, size_t u, size_t width,
                  const T* tile, const T* in, T* out, ptrdiff_t ld_in, ptrdiff_t ld_out) const {
        const size_t band = band_at(i, u);
        const std::uint64_t* words = words_.get() + u * a_.rows + i;
        if (listed())
            kern.multiply_listed(rows, width, words, values_.get() + band, places_.get() + band,
                                 tile, in, ld_in, out, ld_out);
        else
            kern.multiply_skipping(rows, width, words, values_.get() + band, passes_.pairs, tile,
                                   in, ld_in, out, ld_out);
    }
    // To be called for every band before it is read; `block` has room for kCopied rows of a unit.
    static constexpr size_t kCopied = 32;
    void find(const ProductKernels<T>& kern, size_t first, T* block) const {
        const size_t end = std::min(first + kBand, a_.rows);
        // Through memory as it lies: along a few rows, or unit by unit.
        const bool by_rows = a_.col_stride == 1;
        constexpr size_t kTogether = 64, kFewRows = 8;
        const size_t step_units = by_rows ? kTogether : 1, step_rows = by_rows ? kFewRows : kCopied;
        for (size_t u0 = 0; u0 < units_; u0 += step_units) {
            const size_t u1 = std::min(u0 + step_units, units_);
            size_t found[kTogether] = {};
            for (size_t i = first; i < end; i += step_rows) {
                const size_t rows = std::min(step_rows, end - i);
                for (size_t u = u0; u < u1; ++u) {
                    const size_t p = u * depth_, depth = std::min(depth_, a_.cols - p);
                    const T* from = a_.at(i, p);
                    ptrdiff_t ld = a_.row_stride;
                    if (!by_rows) {
                        const auto copied = static_cast<ptrdiff_t>(depth_);
                        kern.copy(rows, depth, from, ld, a_.col_stride, block, copied);
                        from = block;
                        ld = copied;
                    }
                    const size_t at = band_at(first, u) + found[u - u0];
                    std::uint64_t* words = words_.get() + u * a_.rows + i;
                    found[u - u0] += listed() ? kern.list(rows, depth, from, ld, words,
                                                          values_.get() + at, places_.get() + at)
                                              : kern.compact(rows, depth, from, ld, passes_.pairs,
                                                             words, values_.get() + at);
                }
            }
        }
    }

  private:
    bool listed() const { return passes_.words > 1; }
    size_t band_at(size_t i, size_t u) const { return (u * bands_ + i / kBand) * band_values_; }

    Matrix<const T> a_;
    Passes passes_;
    size_t depth_, units_;
    Scratch<std::uint64_t> words_;
    size_t bands_, band_values_;
    Scratch<T> values_;
    Scratch<std::uint8_t> places_;
};

// c = a b and the epilogue, skipping the zeros of a.  Any strides.
template <class T>
void skip_a(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
            bool fused) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t n = c.cols, k = a.cols;
    constexpr size_t band = Nonzero<T>::kBand;
    // Whole bytes of packed bits, so that no two tasks write one.
    const size_t width = even_piece(n, kern.skip_width, std::max<size_t>(kern.lanes, 8));
    const size_t tiles = ceil_div(n, width);
    const Passes passes = passes_at(density(kern, a, a.rows * k * n), a.rows);
    MemoryCheck memory;

    for (size_t i0 = 0; i0 < c.rows; i0 += rows_at_once<T>(k)) {
        const size_t m = std::min(rows_at_once<T>(k), c.rows - i0);
        const Nonzero<T> x(a.block(i0, 0, m, k), passes);
        const size_t depth = x.depth();
        for_each_task(ceil_div(m, band), num_threads() == 1, [&](size_t task) {
            const Scratch<T> block(Slot::kTask, Nonzero<T>::kCopied * depth);
            if (memory(block.get())) x.find(kern, task * band, block.get());
        });
        memory.rethrow();

        const size_t height = even_piece(m, kSkipRows, band);
        for_each_task(ceil_div(m, height) * tiles, num_threads() == 1, [&](size_t task) {
            const size_t i = task / tiles * height, rows = std::min(height, m - i);
            const size_t j = task % tiles * width, cols = std::min(width, n - j);
            const size_t padded = round_up(cols, kern.lanes);
            const Scratch<T> tile(Slot::kTaskTile, depth * width);
            const Scratch<T> sums(Slot::kTask, height * width);
            if (!memory(tile.get()) || !memory(sums.get())) return;
            if (padded != cols) std::fill_n(tile.get(), depth * padded, T{0});
            const Matrix<T> to = c.block(i0 + i, j, rows, cols);
            const bool direct = padded == cols && to.col_stride == 1;
            const Matrix<T> partial{sums.get(), rows, cols, static_cast<ptrdiff_t>(padded), 1};
            for (size_t p = 0; p < k; p += depth) {
                kern.copy(std::min(depth, k - p), cols, b.at(p, j), b.row_stride, b.col_stride,
                          tile.get(), partial.row_stride);
                const Matrix<T>& target = direct && p + depth >= k ? to : partial;
                for (size_t r = 0; r < rows; r += band)
                    x.multiply(kern, i + r, std::min(band, rows - r), p / depth, padded, tile.get(),
                               p == 0 ? nullptr : partial.at(r, 0), target.at(r, 0),
                               partial.row_stride, target.row_stride);
            }
            if (!direct) copy_matrix(kern, read_only(partial), to);
            if (fused) finish(i0 + i, j, rows, cols);
        });
        memory.rethrow();
    }
    if (!fused) finish.all();
}

// How the terms of kept outputs are cut: chunks of equal depth, whole vectors, and what is left.
struct KeptChunks {
    size_t depth, count, tail;

    template <class T>
    KeptChunks(const ProductKernels<T>& kern, size_t k)
        : depth(even_piece(std::max<size_t>(1, k), kern.kept_depth, kern.lanes)),
          count(ceil_div(k, depth)),
          tail(k - (count - 1) * depth) {}
};

// c = a b and the epilogue, only where the epilogue's bits are 1; c's columns are contiguous.
template <class T>
void keep_only(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t n = c.cols, k = a.cols;
    const KeptChunks chunks(kern, k);
    const size_t depth = chunks.depth;
    const size_t blocks = ceil_div(n, kWordBits), groups = ceil_div(blocks, kKeptBlocks);
    const size_t ld_sums = kWordBits + kSumsSlack;
    const Matrix<const T> bt = b.transposed();
    MemoryCheck memory;

    for (size_t i0 = 0; i0 < c.rows; i0 += rows_at_once<T>(k)) {
        const size_t m = std::min(rows_at_once<T>(k), c.rows - i0);
        const Chunks<T> x(a.block(i0, 0, m, k), depth);
        if (x.copied()) {
            const size_t band = even_piece(m, kSkipRows / 8, 16);
            for_each_task(ceil_div(m, band), num_threads() == 1, [&](size_t task) {
                x.fill(kern, task * band, std::min(band, m - task * band));
            });
        }
        const size_t height = even_piece(m, kKeptRows, 1);
        for_each_task(ceil_div(m, height) * groups, num_threads() == 1, [&](size_t task) {
            const size_t i = task / groups * height, rows = std::min(height, m - i);
            const size_t first = task % groups * kKeptBlocks;
            const size_t count = std::min(kKeptBlocks, blocks - first);
            const Scratch<T> tile(Slot::kTaskTile, kWordBits * depth + height * depth);
            const Scratch<T> sums(Slot::kTask, count * height * ld_sums);
            const Scratch<std::uint64_t> kept(Slot::kTaskWords, count * height);
            if (!memory(tile.get()) || !memory(sums.get()) || !memory(kept.get())) return;
            const auto block_cols = [&](size_t g) {
                return std::min(kWordBits, n - (first + g) * kWordBits);
            };
            for (size_t g = 0; g < count; ++g)
                kern.mask_words(rows, block_cols(g), finish.epilogue.bits,
                                finish.epilogue.bit + (i0 + i) * finish.epilogue.bit_stride +
                                    (first + g) * kWordBits,
                                finish.epilogue.bit_stride, kept.get() + g * height);
            for (size_t chunk = 0; chunk < chunks.count; ++chunk) {
                const size_t p = chunk * depth;
                const size_t ks = chunk + 1 < chunks.count ? depth : chunks.tail;
                const size_t padded = round_up(ks, kern.lanes);
                const auto ld = static_cast<ptrdiff_t>(padded);
                const T* from = x.at(i, p);
                ptrdiff_t ld_from = x.ld();
                if (padded != ks) {  // zeros after the end of k, on both sides
                    std::fill_n(tile.get(), kWordBits * padded + rows * padded, T{0});
                    T* const copied = tile.get() + kWordBits * padded;
                    kern.copy(rows, ks, from, ld_from, 1, copied, ld);
                    from = copied;
                    ld_from = ld;
                }
                for (size_t g = 0; g < count; ++g) {
                    kern.copy(block_cols(g), ks, bt.at((first + g) * kWordBits, p), bt.row_stride,
                              bt.col_stride, tile.get(), ld);
                    kern.multiply_kept(rows, padded, kept.get() + g * height, from, ld_from,
                                       tile.get(), sums.get() + g * height * ld_sums, ld_sums,
                                       chunk == 0);
                }
            }
            for (size_t g = 0; g < count; ++g) {
                const size_t j = (first + g) * kWordBits;
                finish.note_nan(kern.finish_kept(
                    rows, block_cols(g), kept.get() + g * height, sums.get() + g * height * ld_sums,
                    ld_sums, c.at(i0 + i, j), c.row_stride, finish.at(i0 + i, j)));
            }
        });
        memory.rethrow();
    }
}

// ---- the choice --------------------------------------------------------------------------------

// The share of ones in a packed mask of n bits, likewise.
double bit_density(const std::uint8_t* bits, size_t n, size_t work) {
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

using Terms = std::array<double, kCostTerms>;

// A count that is paid for in one of two places.
struct Either {
    double yes, no;
    Either(bool condition, double count) : yes(condition ? count : 0), no(condition ? 0 : count) {}
};

// What a dense product has to do.
template <class T>
Terms dense_terms(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b, bool kept) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const double outputs = kept ? m * n : 0;
    if (by_dots(kern, a, b) || by_dots_transposed(kern, a, b)) {
        const auto padded = static_cast<double>(round_up(a.cols, kern.lanes));
        const double copied = b.col_stride == 1 ? k * n : 0;
        // Rows that start in the middle of a vector are slower to load, and here nothing is packed.
        const ptrdiff_t stride = by_dots(kern, a, b) ? a.row_stride : b.col_stride;
        const bool aligned = stride % static_cast<ptrdiff_t>(kern.lanes) == 0;
        return {1,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                m * n * padded,
                m * n,
                copied,
                outputs,
                aligned ? 0 : m * n * padded};
    }
    const bool transposed = few_columns(a, b.cols);
    if (transposed) {
        const Matrix<const T> at = a.transposed();
        a = b.transposed();
        b = at;
    }
    const auto padded = static_cast<double>(round_up(b.cols, kern.lanes));
    const auto rows = static_cast<double>(a.rows), cols = static_cast<double>(b.cols);
    const bool in_place = !transposed && few_rows(kern, a.rows, b);
    const auto passes = static_cast<double>(ceil_div(a.rows, kern.few_rows));
    const Either pack_a(a.col_stride == 1, rows * k);
    const Either pack_b(b.col_stride == 1, in_place ? 0 : k * cols);
    return {1,
            rows * k * padded,
            pack_a.yes,
            pack_a.no,
            pack_b.yes,
            pack_b.no,
            in_place ? passes * k * cols : 0,
            m * n,
            0,
            0,
            transposed ? m * n : 0,
            outputs};
}

// What skipping the zeros of a has to do.  Rows in pairs share what they have in common.
template <class T>
Terms skip_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                 Matrix<const T> b, bool transpose_c) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const auto padded = static_cast<double>(round_up(b.cols, kern.lanes));
    const auto tiles = static_cast<double>(ceil_div(b.cols, kern.skip_width));
    const Passes passes = passes_at(density, a.rows);
    const double both = passes.pairs ? density * density : 0;
    const auto units = static_cast<double>(ceil_div(a.cols, passes.words * kWordBits));
    const Either find(a.col_stride == 1, m * k), copy(b.col_stride == 1, k * n);
    const Either copy_out(transpose_c, transpose_c || padded != n ? m * n : 0);
    return {1,
            density * m * k * padded,
            density * m * k * tiles,
            -both * m * k * padded,
            m * units * tiles,
            find.yes,
            find.no,
            copy.yes,
            copy.no,
            copy_out.yes,
            copy_out.no,
            m * n};
}

// What computing the kept outputs alone has to do.
template <class T>
Terms keep_terms(const ProductKernels<T>& kern, double density, Matrix<const T> a,
                 Matrix<const T> b) {
    const auto m = static_cast<double>(a.rows), n = static_cast<double>(b.cols);
    const auto k = static_cast<double>(a.cols);
    const KeptChunks chunks(kern, a.cols);
    const auto padded = static_cast<double>(round_up(a.cols, kern.lanes));
    const auto blocks = static_cast<double>(ceil_div(b.cols, kWordBits));
    const auto groups = static_cast<double>(ceil_div(ceil_div(b.cols, kWordBits), kKeptBlocks));
    const auto times = static_cast<double>(chunks.count);
    const Either copy(b.row_stride == 1, k * n);
    const Either copy_a(a.col_stride == 1, Chunks<T>::must_copy(a) ? m * k : 0);
    const auto ragged = static_cast<double>(chunks.tail % kern.lanes == 0 ? 0 : chunks.tail);
    return {1,
            density * m * n * padded,
            m * blocks * times,
            copy.yes,
            copy.no,
            m * n,
            copy_a.no,
            copy_a.yes,
            density * m * n * times,
            m * ragged * groups};
}

double cost(const Terms& terms, const float (&costs)[kCostTerms]) {
    double sum = 0;
    for (size_t t = 0; t < kCostTerms; ++t) sum += terms[t] * static_cast<double>(costs[t]);
    return sum;
}

template <class T>
Way choose(Matrix<const T> a, Matrix<const T> b, const Finish<T>& finish, Skip skip) {
    const ProductKernels<T>& kern = finish.kernels;
    const size_t m = a.rows, k = a.cols, n = b.cols;
    constexpr size_t kFewest = 4;
    if (m < kFewest || n < kFewest || k < kFewest) return Way::kDense;
    const std::uint8_t* bits = finish.epilogue.bits;
    const size_t work = m * n * k;
    Way best = Way::kDense;
    const Costs& costs = kern.costs[static_cast<size_t>(cpu_kind())];
    double best_cost = cost(dense_terms(kern, a, b, bits != nullptr), costs.dense);
    // `cost_at` and `measure` are asked for as little as will do: nothing is counted for a way that
    // is the better one at any density, or at none.
    const auto offer = [&](Way way, auto&& cost_at, auto&& measure) {
        if (cost_at(0.0) >= best_cost) return;
        double found = cost_at(1.0);
        if (found >= best_cost) found = cost_at(measure());
        if (found >= best_cost) return;
        best = way;
        best_cost = found;
    };
    if (bits != nullptr)
        offer(
            Way::kKeep, [&](double d) { return cost(keep_terms(kern, d, a, b), costs.keeping); },
            [&] { return bit_density(bits, m * n, work); });
    if (skip.a)
        offer(
            Way::kSkipA,
            [&](double d) { return cost(skip_terms(kern, d, a, b, false), costs.skipping); },
            [&] { return density(kern, a, work); });
    if (skip.b && k >= 4 * kFewest)  // with fewer terms, outputs are copied for too little
        offer(
            Way::kSkipB,
            [&](double d) {
                return cost(skip_terms(kern, d, b.transposed(), a.transposed(), true),
                            costs.skipping);
            },
            [&] { return density(kern, b, work); });
    return best;
}

template <class T>
void compute(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const Finish<T>& finish,
             Skip skip) {
    // A product that skips all it may has no NaN to look for.
    const Epilogue<T>& e = finish.epilogue;
    const bool plain = e.bias == nullptr && !e.relu && e.bits == nullptr && e.nonzero == nullptr;
    const Finish<T> nothing{finish.kernels, c, {}, false, nullptr};
    Way way = skip.way;
    if (a.cols == 0 || (!skip.a && !skip.b && e.bits == nullptr)) way = Way::kDense;
    switch (way == Way::kChoose ? choose(a, b, finish, skip) : way) {
        case Way::kChoose:
        case Way::kDense:
            return dense(a, b, c, finish);
        case Way::kSkipA:
            return skip_a(a, b, c, plain && !skip.b ? nothing : finish, true);
        case Way::kSkipB: {
            skip_a(b.transposed(), a.transposed(), c.transposed(), nothing, false);
            return plain && !skip.a ? void() : finish.all();
        }
        case Way::kKeep:
            return keep_only(a, b, c, finish);
    }
}

// The sum of one output again, without the terms that may be skipped.
template <class T>
T sum_without_zeros(Matrix<const T> a, Matrix<const T> b, size_t i, size_t j, Skip skip) {
    T sum = 0;
    for (size_t p = 0; p < a.cols && sum == sum; ++p) {
        const T x = *a.at(i, p), y = *b.at(p, j);
        if ((skip.a && x == 0) || (skip.b && y == 0)) continue;
        sum += x * y;
    }
    return sum;
}

template <class T, class Predicate>
bool any(Matrix<const T> a, Predicate&& predicate) {
    for (size_t i = 0; i < a.rows; ++i)
        for (size_t j = 0; j < a.cols; ++j)
            if (predicate(*a.at(i, j))) return true;
    return false;
}

// Dense products multiply zeros too, and 0 * inf is NaN where a skipping product has nothing.  If
// there is a factor that can do this, compute again past the zeros that it may meet, so that what
// is chosen does not show.  If zeros of both operands may be skipped and both have such factors,
// single outputs are done once more; true NaN ends their sums at once.
template <class T>
void repair_nan(Matrix<const T> a, Matrix<const T> b, const Finish<T>& finish, Skip skip) {
    const auto is_zero = [](T x) { return x == 0; };
    const auto not_finite = [](T x) { return !std::isfinite(x); };
    const bool by_a = skip.a && any(a, is_zero) && any(b, not_finite);
    const bool by_b = skip.b && any(b, is_zero) && any(a, not_finite);
    if (!by_a && !by_b) return;
    compute(a, b, finish.c, finish, Skip{by_a, by_b, by_a ? Way::kSkipA : Way::kSkipB});
    if (!by_a || !by_b) return;
    for (size_t i = 0; i < finish.c.rows; ++i)
        for (size_t j = 0; j < finish.c.cols; ++j) {
            T& c = *finish.c.at(i, j);
            if (c == c) continue;
            const T sum = sum_without_zeros(a, b, i, j, skip);
            if (sum != sum) continue;
            c = sum;
            finish(i, j, 1, 1);
        }
}

// True only if all of a is finite (and not so large that the sum of a few elements is not).
template <class T>
bool is_finite(const ProductKernels<T>& kern, Matrix<const T> a) {
    if (a.col_stride != 1) a = a.transposed();
    // Without a step nothing is written.
    return a.col_stride == 1 &&
           !kern.finish(a.rows, a.cols, const_cast<T*>(a.data), a.row_stride, Epilogue<T>{});
}

// True if the zeros that may be skipped meet finite factors only, so that no output needs to be
// looked at for what they did.  Not asked where the factors are more than the outputs.
template <class T>
bool harmless_zeros(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
                    Skip skip) {
    const size_t factors = a.cols * ((skip.a ? b.cols : 0) + (skip.b ? a.rows : 0));
    return factors < a.rows * b.cols && (!skip.a || is_finite(kern, b)) &&
           (!skip.b || is_finite(kern, a));
}

template <class T>
void run(const Product<T>& product) {
    const Matrix<const T> a = normalized(product.a), b = normalized(product.b);
    const Matrix<T> out = normalized(product.out);
    const Skip skip = product.skip;
    Epilogue<T> epilogue{product.bias, product.relu,  product.bits,   0,
                         out.cols,     product.scale, product.nonzero};
    if (out.rows == 0 || out.cols == 0) return;
    const ProductKernels<T>& kern = product_kernels<T>();
    const bool skipping = skip.a || skip.b;
    // Bits can be written along with the outputs where no two rows or tasks share a byte of them.
    std::uint8_t* const nonzero = epilogue.nonzero;
    const bool bits_along = out.cols % 8 == 0 && kern.tile_cols % 8 == 0;
    if (!bits_along) epilogue.nonzero = nullptr;
    const bool steps = epilogue.bias != nullptr || epilogue.relu || epilogue.bits != nullptr ||
                       epilogue.nonzero != nullptr;
    const bool needed = steps || (skipping && !harmless_zeros(kern, a, b, skip));

    const bool direct = out.col_stride == 1 || !needed;
    const Scratch<T> rows(Slot::kOutput, direct ? 0 : out.rows * out.cols);
    if (!direct && rows.get() == nullptr) throw std::bad_alloc();
    const Matrix<T> to =
        direct ? out
               : Matrix<T>{rows.get(), out.rows, out.cols, static_cast<ptrdiff_t>(out.cols), 1};
    std::atomic<bool> saw_nan{false};
    const Finish<T> finish{kern, to, epilogue, needed, &saw_nan};
    compute(a, b, to, finish, skip);
    if (skipping && saw_nan.load(std::memory_order_relaxed)) repair_nan(a, b, finish, skip);
    if (!direct) copy_matrix(kern, read_only(to), out);
    if (nonzero != nullptr && !bits_along)
        nonzero_bits(kElementOf<T>, out.data, out.rows * out.cols, nonzero);
}

// ---- chains of products ------------------------------------------------------------------------

template <class T>
size_t rows_of(const Product<T>& p) {
    return p.over_rows ? p.a.cols : p.out.rows;
}

// How many rows go through all products before the next do; 0 if all rows at once.
template <class T>
size_t rows_together(const std::vector<Product<T>>& products) {
    constexpr size_t kBytes = size_t{1} << 19;  // half of a second-level cache
    constexpr size_t kFewest = 64;  // otherwise what comes once for a product is too much
    constexpr size_t kThin = 32;
    if (products.size() < 2) return 0;
    const size_t rows = rows_of(products[0]);
    size_t row_bytes = 1;
    for (const Product<T>& p : products) {
        // Matrices larger than that in both directions are better packed once, for all rows.
        const size_t inner = p.over_rows ? p.out.rows : p.a.cols;
        if (rows_of(p) != rows || std::min(inner, p.out.cols) > kThin) return 0;
        if (!p.over_rows) row_bytes += sizeof(T) * p.out.cols;
    }
    const size_t step = kBytes / row_bytes / kFewest * kFewest;
    return step < rows ? step : 0;
}

// All products with `m` of their rows, `first`, a multiple of 8, and what follows.  Sums over rows
// go to `sums`, one after the other, and what is temporary to `scratch`, likewise.
template <class T>
void run_piece(const std::vector<Product<T>>& products, size_t first, size_t m, T* sums,
               T* scratch) {
    const auto piece_of = [&](auto x) { return x.block(first, 0, m, x.cols); };
    T* next = scratch;
    for (const Product<T>& whole : products) {
        Product<T> p = whole;
        p.b = p.over_rows ? piece_of(p.b) : p.b;
        p.a = p.over_rows ? piece_of(p.a.transposed()).transposed() : piece_of(p.a);
        const T* moved = scratch;
        for (const Product<T>* before = products.data(); before != &whole; ++before) {
            if (!before->temporary) continue;
            if (whole.a.data == before->out.data) p.a.data = moved;
            if (whole.b.data == before->out.data) p.b.data = moved;
            moved += m * before->out.cols;
        }
        if (p.over_rows) {
            p.out = {sums, p.out.rows, p.out.cols, static_cast<ptrdiff_t>(p.out.cols), 1};
            sums += p.out.rows * p.out.cols;
        } else {
            p.out = piece_of(p.out);
            if (p.bits != nullptr) p.bits += first / 8 * p.out.cols;
            if (p.nonzero != nullptr) p.nonzero += first / 8 * p.out.cols;
        }
        if (p.temporary) {
            p.out.data = next;
            next += m * p.out.cols;
        }
        run(p);
    }
}

// out (its sum so far, or anything if it is the first) = the sum of `pieces` matrices, `stride`
// elements apart.
template <class T>
void add_pieces(const T* sums, size_t pieces, size_t stride, bool first, Matrix<T> out) {
    for (size_t i = 0; i < out.rows; ++i)
        for (size_t j = 0; j < out.cols; ++j, ++sums) {
            T total = first ? 0 : *out.at(i, j);
            for (size_t piece = 0; piece < pieces; ++piece) total += sums[piece * stride];
            *out.at(i, j) = total;
        }
}

}  // namespace

template <class T>
std::vector<double> product_terms(Matrix<const T> a, Matrix<const T> b, Way way, bool kept,
                                  double density) {
    const ProductKernels<T>& kern = product_kernels<T>();
    a = normalized(a);
    b = normalized(b);
    const Terms terms = way == Way::kSkipA ? skip_terms(kern, density, a, b, false)
                        : way == Way::kSkipB
                            ? skip_terms(kern, density, b.transposed(), a.transposed(), true)
                        : way == Way::kKeep ? keep_terms(kern, density, a, b)
                                            : dense_terms(kern, a, b, kept);
    return {terms.begin(), terms.end()};
}

template <class T>
void multiply(const Product<T>& product) {
    run(product);
}

template <class T>
void multiply_chain(const std::vector<Product<T>>& products) {
    const size_t step = rows_together(products);
    if (step == 0) {
        for (const Product<T>& p : products) run(p);
        return;
    }
    constexpr size_t kBand = 64;  // pieces whose sums are held at once
    const size_t rows = rows_of(products[0]);
    const size_t pieces = std::min(kBand, ceil_div(rows, step));
    size_t summed = 0, temporary = 0;
    for (const Product<T>& p : products) {
        if (p.over_rows) summed += p.out.rows * p.out.cols;
        if (p.temporary) temporary += p.out.cols;
    }
    const Scratch<T> sums(Slot::kSums, std::max<size_t>(1, pieces * summed));
    MemoryCheck memory;
    if (!memory(sums.get())) memory.rethrow();
    for (size_t start = 0; start < rows; start += kBand * step) {
        const size_t here = std::min(kBand, ceil_div(rows - start, step));
        parallel_for(here, [&](size_t piece) {
            const size_t first = start + piece * step;
            const Scratch<T> scratch(Slot::kPiece, step * temporary + 1);
            if (!memory(scratch.get())) return;
            try {
                run_piece(products, first, std::min(step, rows - first),
                          sums.get() + piece * summed, scratch.get());
            } catch (const std::bad_alloc&) {
                memory(nullptr);
            }
        });
        memory.rethrow();
        const T* sum = sums.get();
        for (const Product<T>& p : products) {
            if (!p.over_rows) continue;
            add_pieces(sum, here, summed, start == 0, p.out);
            sum += p.out.rows * p.out.cols;
        }
    }
}

template std::vector<double> product_terms(Matrix<const float>, Matrix<const float>, Way, bool,
                                           double);
template std::vector<double> product_terms(Matrix<const double>, Matrix<const double>, Way, bool,
                                           double);
template void multiply(const Product<float>&);
template void multiply(const Product<double>&);
template void multiply_chain(const std::vector<Product<float>>&);
template void multiply_chain(const std::vector<Product<double>>&);

}  // namespace dropwise::ops
