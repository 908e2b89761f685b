// What the strategies share: block sizes, how tasks are dealt out, memory inside tasks, and the
// caller of the epilogue.
//
// Relies on core/ only.  Knows no strategy and makes no choice.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "core/buffer.hpp"
#include "core/kernel_table.hpp"
#include "core/matrix.hpp"
#include "core/threads.hpp"

namespace dropwise::ops {

using std::ptrdiff_t;
using std::size_t;

template <class T>
constexpr Element kElementOf = sizeof(T) == 4 ? Element::f32 : Element::f64;

// The kernels of the active instruction set.
template <class T>
const ProductKernels<T>& product_kernels();

constexpr size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}
constexpr size_t round_up(size_t a, size_t b) {
    return ceil_div(a, b) * b;
}

// The size of equal pieces of n, a multiple of `step`, none much larger than `largest`.
constexpr size_t even_piece(size_t n, size_t largest, size_t step) {
    return round_up(ceil_div(n, std::max<size_t>(1, ceil_div(n, largest))), step);
}

constexpr size_t kWordBits = 64;  // of a mask, and elements of k that one word stands for

// Rows of A that share one copy of a tile of B: their partial sums stay in L2.
constexpr size_t kRowsPerTile = 1024;

// Rows that are compressed or copied before they are multiplied.  The memory for that stays
// bounded, however many rows there are.
template <class T>
size_t rows_at_once(size_t k) {
    constexpr size_t kElements = size_t{1} << 21;
    return std::max(kRowsPerTile, kElements / std::max<size_t>(1, k) / kRowsPerTile * kRowsPerTile);
}

// True if rows that are read together may compete for the same sets of the first-level cache.
template <class T>
bool far_apart(Matrix<const T> a) {
    constexpr ptrdiff_t kFar = 4096 / sizeof(T);
    return a.row_stride >= kFar || a.row_stride <= -kFar;
}

template <class T>
Matrix<const T> read_only(Matrix<T> a) {
    return {a.data, a.rows, a.cols, a.row_stride, a.col_stride};
}

// A matrix in C order at `data`.
template <class T>
Matrix<T> contiguous(T* data, size_t rows, size_t cols) {
    return {data, rows, cols, static_cast<ptrdiff_t>(cols), 1};
}

template <class T>
void copy_matrix(const ProductKernels<T>& kern, Matrix<const T> from, Matrix<T> to);

template <class Body>
void for_each_task(size_t n_tasks, size_t threads, Body&& body) {
    if (threads == 1 || n_tasks == 1)
        for (size_t task = 0; task < n_tasks; ++task) body(task);
    else
        parallel_for(n_tasks, body, static_cast<int>(threads));
}

// How many tasks there should be for so many threads: one that comes late, or is taken away, must
// not keep the others waiting for half of the work.
inline size_t tasks_wanted(size_t threads) {
    return threads == 1 ? 1 : 2 * threads;
}

// A multiple of `step` whose columns make up whole bytes of packed bits in any row: no two tasks
// write to one byte.
inline size_t whole_bytes(size_t step) {
    while (step % 8 != 0) step *= 2;
    return step;
}

// How the rows and columns of an output are dealt out to threads.
struct Grid {
    size_t rows_per_task, cols_per_task, row_tasks, col_tasks;

    // Tasks of about `row_block` rows, or fewer if that gives too few tasks.  A task has a multiple
    // of row_step rows and of col_step columns, which make up whole bytes of packed bits, except
    // the last ones.
    Grid(size_t m, size_t n, size_t row_block, size_t row_step, size_t col_step, size_t threads) {
        size_t tasks = ceil_div(m, row_block);
        if (tasks < 4 * threads) tasks = std::min(round_up(tasks, threads), ceil_div(m, row_step));
        rows_per_task = round_up(ceil_div(m, tasks), row_step);
        row_tasks = ceil_div(m, rows_per_task);
        const size_t groups = row_tasks >= threads ? 1 : ceil_div(threads, row_tasks);
        cols_per_task = round_up(ceil_div(n, groups), whole_bytes(col_step));
        col_tasks = ceil_div(n, cols_per_task);
    }
    size_t tasks() const { return row_tasks * col_tasks; }
};

// Whether tasks got their memory.  A task must not throw: it asks granted(), returns if that is
// false, and the caller of the tasks throws after all of them have returned.
class MemoryCheck {
  public:
    template <class... T>
    bool granted(const Scratch<T>&... scratch) noexcept {
        const bool all = (... && !scratch.failed());
        if (!all) failed_.store(true, std::memory_order_relaxed);
        return all;
    }
    void note_failure() noexcept { failed_.store(true, std::memory_order_relaxed); }
    void throw_if_failed() const {
        if (failed_.load(std::memory_order_relaxed)) throw std::bad_alloc();
    }

  private:
    std::atomic<bool> failed_{false};
};

// Applies the epilogue to blocks of the output c, and notes whether a result is NaN.
template <class T>
struct EpilogueCaller {
    const ProductKernels<T>& kernels;
    Matrix<T> c;         // columns contiguous, if the epilogue is needed
    Epilogue<T> origin;  // as it is for output (0, 0)
    bool needed;         // false: there is no step, and nobody wants to know about NaN
    std::atomic<bool>* saw_nan;

    // Leaves outputs as they are.
    static EpilogueCaller none(const ProductKernels<T>& kernels, Matrix<T> c) {
        return {kernels, c, {}, false, nullptr};
    }

    // The epilogue of a block whose first output is (i, j).
    Epilogue<T> at(size_t i, size_t j) const {
        Epilogue<T> e = origin;
        if (e.bias != nullptr) e.bias += j;
        e.bit += i * e.bit_stride + j;
        return e;
    }
    void note_nan(bool seen) const {
        if (seen && saw_nan != nullptr) saw_nan->store(true, std::memory_order_relaxed);
    }
    void apply_to_block(size_t i, size_t j, size_t m, size_t n) const {
        if (needed) note_nan(kernels.apply_epilogue(m, n, c.at(i, j), c.row_stride, at(i, j)));
    }
    // Not inside a task: throws std::bad_alloc.
    void apply_to_all() const {
        size_t done = 0;
        if (needed && c.cols < kShortRow && c.row_stride == static_cast<ptrdiff_t>(c.cols))
            done = apply_to_short_rows();
        if (done < c.rows) apply_to_block(done, 0, c.rows - done, c.cols);
    }

  private:
    static constexpr size_t kShortRow = 32, kJoinedRows = 64;

    // Contiguous rows shorter than a few vectors are taken kJoinedRows at a time, as one long row
    // with the bias repeated.  Returns how many rows that was possible for.
    size_t apply_to_short_rows() const {
        const size_t groups = c.rows / kJoinedRows, width = kJoinedRows * c.cols;
        const Scratch<T> repeated(Slot::kTask, origin.bias == nullptr ? 0 : width);
        repeated.require();
        Epilogue<T> e = origin;
        e.bit_stride = width;
        if (e.bias != nullptr) {
            for (size_t i = 0; i < kJoinedRows; ++i)
                std::copy_n(origin.bias, c.cols, repeated.get() + i * c.cols);
            e.bias = repeated.get();
        }
        note_nan(kernels.apply_epilogue(groups, width, c.data, static_cast<ptrdiff_t>(width), e));
        return groups * kJoinedRows;
    }
};

// Sets the columns from `first` on to 0, of `rows` rows of `width` elements, one after the other.
// What the columns before it hold is undefined.
template <class T>
void clear_columns(T* x, size_t rows, size_t width, size_t first) {
    if (first == width) return;
    if (first <= width / 2) {  // all of it is as quick
        std::fill_n(x, rows * width, T{0});
        return;
    }
    for (size_t i = 0; i < rows; ++i) std::fill_n(x + i * width + first, width - first, T{0});
}

}  // namespace dropwise::ops
