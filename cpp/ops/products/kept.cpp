// A task computes the kept outputs of some rows in a few blocks of 64 columns.
#include "ops/products/kept.hpp"

#include <algorithm>

namespace dropwise::ops {

namespace {

constexpr size_t kRowsPerTask = 512;

// Rows of a in chunks of `width` along k: where they lie, or copied to [chunk][row][width].
template <class T>
class RowChunks {
  public:
    RowChunks(Matrix<const T> a, size_t width)
        : a_(a),
          width_(width),
          copied_(must_copy_rows(a)),
          memory_(Slot::kRows, copied_ ? a.rows * round_up(a.cols, width) : 0) {
        memory_.require();
    }
    bool copied() const { return copied_; }
    // If rows are copied, to be called for each of them before it is read.
    void copy(const ProductKernels<T>& kern, size_t i, size_t m) const {
        for (size_t p = 0; p < a_.cols; p += width_)
            kern.copy(m, std::min(width_, a_.cols - p), a_.at(i, p), a_.row_stride, a_.col_stride,
                      copy_at(i, p), ld());
    }
    // Element p of row i; p is a multiple of width.
    const T* at(size_t i, size_t p) const { return copied_ ? copy_at(i, p) : a_.at(i, p); }
    ptrdiff_t ld() const { return copied_ ? static_cast<ptrdiff_t>(width_) : a_.row_stride; }

  private:
    T* copy_at(size_t i, size_t p) const { return memory_.get() + p * a_.rows + i * width_; }

    Matrix<const T> a_;
    size_t width_;
    bool copied_;
    Scratch<T> memory_;
};

template <class T>
class KeptProduct {
  public:
    KeptProduct(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                size_t threads)
        : kern_(epilogue.kernels),
          a_(a),
          bt_(b.transposed()),
          epilogue_(epilogue),
          threads_(threads),
          chunks_(kern_, a.cols) {}

    void run() {
        const size_t step = rows_at_once<T>(a_.cols);
        for (size_t i = 0; i < a_.rows; i += step) multiply_rows(i, std::min(step, a_.rows - i));
    }

  private:
    static constexpr size_t kLdSums = kWordBits + kSumsSlack;

    // What a task computes: rows from `first` on, and blocks of 64 columns from column j on.
    struct Task {
        size_t first, rows, j, blocks;
    };
    // The memory of a task.
    struct Buffers {
        T* tile;              // [64][depth], and the rows' own copy after it where k is padded
        T* sums;              // [block][row][kLdSums]
        std::uint64_t* kept;  // [block][row]: the bits of the block's columns
    };

    void multiply_rows(size_t first, size_t m) {
        const RowChunks<T> x(a_.block(first, 0, m, a_.cols), chunks_.depth);
        if (x.copied()) {
            const size_t band = even_piece(m, 128, 16);
            for_each_task(ceil_div(m, band), threads_, [&](size_t task) {
                x.copy(kern_, task * band, std::min(band, m - task * band));
            });
        }
        const size_t blocks = ceil_div(bt_.rows, kWordBits);
        const size_t groups = ceil_div(blocks, kBlocksPerChunk);
        // Fewer rows share a copied tile where there would be too few tasks.
        constexpr size_t kFewestRows = 64;
        const size_t wanted = tasks_wanted(threads_);
        const size_t most = std::min(kRowsPerTask, std::max(kFewestRows, m * groups / wanted));
        const size_t height = even_piece(m, most, 1);
        for_each_task(ceil_div(m, height) * groups, threads_, [&](size_t task) {
            const size_t i = task / groups * height, block = task % groups * kBlocksPerChunk;
            multiply_task(x, i,
                          {first + i, std::min(height, m - i), block * kWordBits,
                           std::min(kBlocksPerChunk, blocks - block)});
        });
        memory_.throw_if_failed();
    }

    // The task's first row is row i of x.
    void multiply_task(const RowChunks<T>& x, size_t i, const Task& t) {
        const Scratch<T> tile(Slot::kTaskTile, (kWordBits + t.rows) * chunks_.depth);
        const Scratch<T> sums(Slot::kTask, t.blocks * t.rows * kLdSums);
        const Scratch<std::uint64_t> kept(Slot::kTaskWords, t.blocks * t.rows);
        if (!memory_.granted(tile, sums, kept)) return;
        const Buffers buffers{tile.get(), sums.get(), kept.get()};

        const Epilogue<T>& e = epilogue_.origin;
        for (size_t g = 0; g < t.blocks; ++g)
            kern_.mask_words(t.rows, block_cols(t, g), e.bits,
                             e.bit + t.first * e.bit_stride + t.j + g * kWordBits, e.bit_stride,
                             buffers.kept + g * t.rows);
        for (size_t chunk = 0; chunk < chunks_.count; ++chunk)
            add_chunk(t, chunk, x.at(i, chunk * chunks_.depth), x.ld(), buffers);
        for (size_t g = 0; g < t.blocks; ++g) {
            const size_t j = t.j + g * kWordBits;
            epilogue_.note_nan(kern_.expand_kept(
                t.rows, block_cols(t, g), buffers.kept + g * t.rows,
                buffers.sums + g * t.rows * kLdSums, kLdSums, epilogue_.c.at(t.first, j),
                epilogue_.c.row_stride, epilogue_.at(t.first, j)));
        }
    }

    // Adds the terms of one chunk of the rows, which lies at `from`, to the sums.
    void add_chunk(const Task& t, size_t chunk, const T* from, ptrdiff_t ld_from,
                   const Buffers& buffers) {
        const size_t p = chunk * chunks_.depth;
        const size_t depth = chunk + 1 < chunks_.count ? chunks_.depth : chunks_.tail;
        const size_t padded = round_up(depth, kern_.lanes);
        const auto ld = static_cast<ptrdiff_t>(padded);
        if (padded != depth) {  // zeros after the end of k, in both operands
            T* const copied = buffers.tile + kWordBits * padded;
            clear_columns(buffers.tile, kWordBits + t.rows, padded, depth);
            kern_.copy(t.rows, depth, from, ld_from, 1, copied, ld);
            from = copied;
            ld_from = ld;
        }
        for (size_t g = 0; g < t.blocks; ++g) {
            kern_.copy(block_cols(t, g), depth, bt_.at(t.j + g * kWordBits, p), bt_.row_stride,
                       bt_.col_stride, buffers.tile, ld);
            kern_.multiply_kept(t.rows, padded, buffers.kept + g * t.rows, from, ld_from,
                                buffers.tile, buffers.sums + g * t.rows * kLdSums, kLdSums,
                                chunk == 0);
        }
    }

    size_t block_cols(const Task& t, size_t g) const {
        return std::min(kWordBits, bt_.rows - t.j - g * kWordBits);
    }

    const ProductKernels<T>& kern_;
    Matrix<const T> a_, bt_;
    const EpilogueCaller<T>& epilogue_;
    size_t threads_;
    KeptChunks chunks_;
    MemoryCheck memory_;
};

}  // namespace

template <class T>
void multiply_kept(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                   size_t threads) {
    KeptProduct<T>(a, b, epilogue, threads).run();
}

template void multiply_kept(Matrix<const float>, Matrix<const float>, const EpilogueCaller<float>&,
                            size_t);
template void multiply_kept(Matrix<const double>, Matrix<const double>,
                            const EpilogueCaller<double>&, size_t);

}  // namespace dropwise::ops
