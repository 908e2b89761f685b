#include "ops/products/skip.hpp"

#include <algorithm>

#include "ops/products/density.hpp"

namespace dropwise::ops {

namespace {

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

}  // namespace

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

template void skip_a(Matrix<const float>, Matrix<const float>, Matrix<float>, const Finish<float>&,
                     bool);
template void skip_a(Matrix<const double>, Matrix<const double>, Matrix<double>,
                     const Finish<double>&, bool);

}  // namespace dropwise::ops
