#include "ops/products/kept.hpp"

#include <algorithm>

namespace dropwise::ops {

namespace {

constexpr size_t kKeptRows = 512;

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

}  // namespace

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

template void keep_only(Matrix<const float>, Matrix<const float>, Matrix<float>,
                        const Finish<float>&);
template void keep_only(Matrix<const double>, Matrix<const double>, Matrix<double>,
                        const Finish<double>&);

}  // namespace dropwise::ops
