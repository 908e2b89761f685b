#include "ops/products/dense.hpp"

#include <algorithm>

namespace dropwise::ops {

namespace {

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

}  // namespace

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

template void dense(Matrix<const float>, Matrix<const float>, Matrix<float>, const Finish<float>&);
template void dense(Matrix<const double>, Matrix<const double>, Matrix<double>,
                    const Finish<double>&);

}  // namespace dropwise::ops
