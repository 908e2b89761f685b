// What all products share.
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

template <class T>
const ProductKernels<T>& product_kernels();

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

template <class T>
void copy_matrix(const ProductKernels<T>& kern, Matrix<const T> from, Matrix<T> to);

template <class T>
Matrix<const T> read_only(Matrix<T> a) {
    return {a.data, a.rows, a.cols, a.row_stride, a.col_stride};
}

constexpr size_t kWordBits = 64;

// Rows that share one packing of a tile: their partial sums stay in L2.
constexpr size_t kSkipRows = 1024;

// Rows taken on at once, so that what is made for them stays small whatever the number of rows.
template <class T>
size_t rows_at_once(size_t k) {
    constexpr size_t kElements = size_t{1} << 21;
    return std::max(kSkipRows, kElements / std::max<size_t>(1, k) / kSkipRows * kSkipRows);
}

}  // namespace dropwise::ops
