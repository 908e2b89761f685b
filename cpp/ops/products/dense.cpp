// Four ways: packed blocks, B in place, few terms in one pass, and dot products; each of them,
// where that saves packing, on the transpose.
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

// Panels of both operands are packed, as BLIS does.  k is cut into pieces that depend on k alone,
// and one thread adds up all pieces of an output, in order.
template <class T>
class BlockedProduct {
  public:
    BlockedProduct(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                   size_t threads)
        : kern_(epilogue.kernels),
          a_(a),
          b_(b),
          epilogue_(epilogue),
          threads_(threads),
          depth_(even_piece(a.cols, kDepth<T>, 1)),
          panel_(even_piece(b.cols, kern_.tile_cols, kern_.lanes)),
          width_(even_piece(b.cols, kWidth<T>, panel_)),
          packed_b_(Slot::kShared, depth_ * width_) {
        packed_b_.require();
    }

    void run() {
        const size_t m = a_.rows, n = b_.cols, k = a_.cols;
        for (size_t j = 0; j < n; j += width_) {
            const size_t cols = std::min(width_, n - j);
            const Grid grid(m, cols, kHeight, kern_.tile_rows, panel_, threads_);
            for (size_t p = 0; p < k; p += depth_) {
                const Block block{p, std::min(depth_, k - p), j, cols};
                pack_b(block);
                for_each_task(grid.tasks(), threads_,
                              [&](size_t task) { multiply(block, grid, task); });
            }
        }
        memory_.throw_if_failed();
    }

  private:
    // The part of B that is packed at a time: `depth` rows from p on, `cols` columns from j on.
    struct Block {
        size_t p, depth, j, cols;
    };

    void pack_b(const Block& block) {
        const size_t panels = width_ / panel_;
        const bool alone = threads_ == 1 || block.depth * block.cols < 16384;
        const size_t packers = alone ? 1 : std::min<size_t>(panels, 8);
        const size_t share = ceil_div(panels, packers) * panel_;
        for_each_task(ceil_div(block.cols, share), alone ? 1 : threads_, [&](size_t task) {
            const size_t j = task * share;
            kern_.pack_b(block.depth, std::min(share, block.cols - j), b_.at(block.p, block.j + j),
                         b_.row_stride, b_.col_stride, panel_, packed_b_.get() + j * block.depth);
        });
    }

    void multiply(const Block& block, const Grid& grid, size_t task) {
        const size_t first = task / grid.col_tasks * grid.rows_per_task;
        const size_t j = task % grid.col_tasks * grid.cols_per_task;
        const size_t end = std::min(first + grid.rows_per_task, a_.rows);
        const size_t cols = std::min(grid.cols_per_task, block.cols - j);
        const size_t height = std::min(end - first, round_up(kHeight, kern_.tile_rows));
        const Scratch<T> packed_a(Slot::kTask, height * block.depth + kPackSlack);
        if (!memory_.granted(packed_a)) return;
        for (size_t i = first; i < end; i += height) {
            const size_t rows = std::min(height, end - i);
            kern_.pack_a(rows, block.depth, a_.at(i, block.p), a_.row_stride, a_.col_stride,
                         kern_.tile_rows, packed_a.get());
            multiply_rows(block, packed_a.get(), i, rows, j, cols);
        }
    }

    // Rows that are packed, from i on, by `cols` columns of the block, from its j-th on.
    void multiply_rows(const Block& block, const T* packed_a, size_t i, size_t rows, size_t j,
                       size_t cols) {
        const Matrix<T>& c = epilogue_.c;
        const T* const packed_b = packed_b_.get() + j * block.depth;
        const bool last = block.p + block.depth == a_.cols;
        for (size_t t = 0; t < rows; t += kern_.tile_rows) {
            const size_t tile_rows = std::min(kern_.tile_rows, rows - t);
            kern_.multiply(tile_rows, cols, block.depth, packed_a + t * block.depth, packed_b,
                           panel_, c.at(i + t, block.j + j), c.row_stride, block.p != 0);
            if (last) epilogue_.apply_to_block(i + t, block.j + j, tile_rows, cols);
        }
    }

    const ProductKernels<T>& kern_;
    Matrix<const T> a_, b_;
    const EpilogueCaller<T>& epilogue_;
    size_t threads_;
    size_t depth_, panel_, width_;  // of a block of packed B; a panel has panel_ columns
    Scratch<T> packed_b_;
    MemoryCheck memory_;
};

// Whether threads share the columns of b alone: packing a, which each of them does, costs little
// then, and packing b takes no turns.
template <class T>
bool takes_bands(Matrix<const T> a, Matrix<const T> b) {
    constexpr size_t kFewRows = 512;
    return a.rows <= kFewRows && 2 * a.rows <= b.cols;
}

// Each task computes a band of columns, with memory of its own.
template <class T>
void multiply_bands(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                    size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    const size_t panel = whole_bytes(even_piece(b.cols, kern.tile_cols, kern.lanes));
    const size_t width =
        even_piece(b.cols, std::max(2 * panel, b.cols / tasks_wanted(threads)), panel);
    MemoryCheck memory;
    for_each_task(ceil_div(b.cols, width), threads, [&](size_t task) {
        const size_t j = task * width, cols = std::min(width, b.cols - j);
        EpilogueCaller<T> part = epilogue;
        part.c = epilogue.c.block(0, j, a.rows, cols);
        part.origin = epilogue.at(0, j);
        try {
            BlockedProduct<T>(a, b.block(0, j, b.rows, cols), part, 1).run();
        } catch (const std::bad_alloc&) {
            memory.note_failure();
        }
    });
    memory.throw_if_failed();
}

// Few rows, and B's columns contiguous: B is used where it lies, read in order, once for each
// tile's worth of rows.
template <class T>
class UnpackedProduct {
  public:
    UnpackedProduct(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue)
        : kern_(epilogue.kernels),
          a_(a),
          b_(b),
          epilogue_(epilogue),
          height_(even_piece(a.rows, kern_.max_unpacked_rows, 1)),
          packed_a_(Slot::kShared, a.rows * a.cols + kPackSlack) {
        packed_a_.require();
    }

    void run(size_t threads) {
        pack_a();
        const Grid grid(1, b_.cols, 1, 1, 8 * kern_.lanes, threads);
        for_each_task(grid.tasks(), threads, [&](size_t task) {
            const size_t j = task * grid.cols_per_task;
            multiply_columns(j, std::min(grid.cols_per_task, b_.cols - j));
        });
        memory_.throw_if_failed();
    }

  private:
    static constexpr size_t kPieceDepth = 32;  // rows of B between two turns over the rows of A

    void pack_a() {
        const size_t m = a_.rows, k = a_.cols;
        for (size_t p = 0; p < k; p += kPieceDepth)
            for (size_t i = 0; i < m; i += height_) {
                const size_t depth = std::min(kPieceDepth, k - p);
                kern_.pack_a(std::min(height_, m - i), depth, a_.at(i, p), a_.row_stride,
                             a_.col_stride, height_, packed_a_.get() + p * m + i * depth);
            }
    }

    // `cols` columns from j on.  What is left after whole vectors is packed, and so padded.
    void multiply_columns(size_t j, size_t cols) {
        const size_t m = a_.rows, k = a_.cols;
        const size_t whole = cols / kern_.lanes * kern_.lanes;
        const Scratch<T> packed_b(Slot::kTask, kPieceDepth * kern_.lanes);
        if (!memory_.granted(packed_b)) return;
        const Matrix<T>& c = epilogue_.c;
        for (size_t p = 0; p < k; p += kPieceDepth) {
            const size_t depth = std::min(kPieceDepth, k - p);
            if (whole != cols)
                kern_.pack_b(depth, cols - whole, b_.at(p, j + whole), b_.row_stride, b_.col_stride,
                             kern_.lanes, packed_b.get());
            for (size_t i = 0; i < m; i += height_) {
                const size_t rows = std::min(height_, m - i);
                const T* from = packed_a_.get() + p * m + i * depth;
                if (whole != 0)
                    kern_.multiply_unpacked(rows, whole, depth, from, b_.at(p, j), b_.row_stride,
                                            c.at(i, j), c.row_stride, p != 0);
                if (whole != cols)
                    kern_.multiply(rows, cols - whole, depth, from, packed_b.get(), kern_.lanes,
                                   c.at(i, j + whole), c.row_stride, p != 0);
            }
        }
        epilogue_.apply_to_block(0, j, m, cols);
    }

    const ProductKernels<T>& kern_;
    Matrix<const T> a_, b_;
    const EpilogueCaller<T>& epilogue_;
    size_t height_;  // of a panel of packed A
    Scratch<T> packed_a_;
    MemoryCheck memory_;
};

// A copy of a matrix with contiguous rows, or the matrix itself if its rows are contiguous.
template <class T>
class ContiguousRows {
  public:
    ContiguousRows(const ProductKernels<T>& kern, Matrix<const T> from)
        : matrix_(from), memory_(Slot::kShared, from.col_stride == 1 ? 0 : from.rows * from.cols) {
        if (from.col_stride == 1) return;
        memory_.require();
        const Matrix<T> copied = contiguous(memory_.get(), from.rows, from.cols);
        copy_matrix(kern, from, copied);
        matrix_ = read_only(copied);
    }
    const Matrix<const T>& matrix() const { return matrix_; }

  private:
    Matrix<const T> matrix_;
    Scratch<T> memory_;
};

// Few terms in a sum: product and epilogue in one pass over the output.
template <class T>
void multiply_few_terms(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                        size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    const size_t m = a.rows, n = b.cols;
    const Matrix<T>& c = epilogue.c;
    const ContiguousRows<T> rows_of_b(kern, b);
    const Matrix<const T>& from = rows_of_b.matrix();
    const Grid grid(m, n, 256, 1, n, threads);
    for_each_task(grid.row_tasks, threads, [&](size_t task) {
        const size_t i = task * grid.rows_per_task;
        epilogue.note_nan(kern.multiply_few_terms(
            std::min(grid.rows_per_task, m - i), n, a.cols, a.at(i, 0), a.row_stride, a.col_stride,
            from.data, from.row_stride, c.at(i, 0), c.row_stride, epilogue.at(i, 0)));
    });
}

// Few columns, and A's rows contiguous: dot products.  Any strides of c; no epilogue.
template <class T>
void multiply_by_dots(const ProductKernels<T>& kern, Matrix<const T> a, Matrix<const T> b,
                      Matrix<T> c, size_t threads) {
    const size_t m = c.rows, n = c.cols;
    const ContiguousRows<T> columns_of_b(kern, b.transposed());
    const Matrix<const T>& bt = columns_of_b.matrix();
    const Grid grid(m, n, 1024, 4, n, threads);
    for_each_task(grid.row_tasks, threads, [&](size_t task) {
        const size_t i = task * grid.rows_per_task;
        kern.dot(std::min(grid.rows_per_task, m - i), n, a.cols, a.at(i, 0), a.row_stride, bt.data,
                 bt.row_stride, c.at(i, 0), c.row_stride, c.col_stride);
    });
}

// By tiles; c's columns are contiguous.
template <class T>
void multiply_by_tiles(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                       size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    // One pass pays if it can apply the epilogue too.  The order of summation is the same.
    const size_t few_terms = epilogue.needed ? 8 : 3;
    if (a.cols <= few_terms && b.cols >= kern.lanes)
        multiply_few_terms(a, b, epilogue, threads);
    else if (reads_b_unpacked(kern, a.rows, b))
        UnpackedProduct<T>(a, b, epilogue).run(threads);
    else if (threads > 1 && takes_bands(a, b))
        multiply_bands(a, b, epilogue, threads);
    else
        BlockedProduct<T>(a, b, epilogue, threads).run();
}

// Through c^T = b^T a^T, into memory of its own where c^T is not in row order.
template <class T>
void multiply_transposed(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                         size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    const Matrix<T> ct = epilogue.c.transposed();
    const bool direct = ct.col_stride == 1;
    const Scratch<T> result(Slot::kResult, direct ? 0 : ct.rows * ct.cols);
    result.require();
    const Matrix<T> to = direct ? ct : contiguous(result.get(), ct.rows, ct.cols);
    multiply_by_tiles(b.transposed(), a.transposed(), EpilogueCaller<T>::none(kern, to), threads);
    if (!direct) copy_matrix(kern, read_only(to), ct);
}

}  // namespace

template <class T>
void multiply_dense(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                    size_t threads) {
    const ProductKernels<T>& kern = epilogue.kernels;
    const Matrix<T>& c = epilogue.c;
    const size_t m = c.rows, n = c.cols, k = a.cols;

    if (k == 0) {
        for (size_t i = 0; i < m; ++i)
            for (size_t j = 0; j < n; ++j) *c.at(i, j) = 0;
    } else if (takes_dots(kern, a, b)) {
        multiply_by_dots(kern, a, b, c, threads);
    } else if (takes_dots_transposed(kern, a, b)) {
        multiply_by_dots(kern, b.transposed(), a.transposed(), c.transposed(), threads);
    } else if (c.col_stride == 1 && !takes_transpose(a, n)) {
        return multiply_by_tiles(a, b, epilogue, threads);  // which apply the epilogue as they go
    } else {
        multiply_transposed(a, b, epilogue, threads);
    }
    epilogue.apply_to_all();
}

template void multiply_dense(Matrix<const float>, Matrix<const float>, const EpilogueCaller<float>&,
                             size_t);
template void multiply_dense(Matrix<const double>, Matrix<const double>,
                             const EpilogueCaller<double>&, size_t);

}  // namespace dropwise::ops
