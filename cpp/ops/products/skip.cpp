// First all tasks compress bands of rows, then each task multiplies them by a tile of columns.
#include "ops/products/skip.hpp"

#include <algorithm>

#include "ops/products/density.hpp"

namespace dropwise::ops {

namespace {

// A step of the sum over k, for some rows of c and a tile of its columns.
template <class T>
struct TileStep {
    size_t width;   // of the tile, a multiple of lanes
    const T* tile;  // [unit of k][width]
    const T* in;    // the sums so far; null: 0
    ptrdiff_t ld_in;
    T* out;
    ptrdiff_t ld_out;
};

// Rows of a without their zeros.  k is cut into units of `depth` elements, and rows into bands of
// kBand.  For each unit and row there is a word that says where elements are not zero (or, with
// lists, a count), and for each unit and band the values of its rows (with lists, their places
// too), one after the other.  A product reads them once for each tile of columns, in order,
// wherever the rows lie.
template <class T>
class CompressedRows {
  public:
    static constexpr size_t kBand = 128;
    static constexpr size_t kCopiedRows = 32;  // that are copied before they are compressed

    CompressedRows(Matrix<const T> a, SkipPlan plan)
        : a_(a),
          plan_(plan),
          depth_(plan.words * kWordBits),
          units_(ceil_div(a.cols, depth_)),
          words_(Slot::kWords, units_ * a.rows),
          bands_(ceil_div(a.rows, kBand)),
          band_values_(std::min(kBand, a.rows) * depth_ + kValuesSlack),
          values_(Slot::kRows, units_ * bands_ * band_values_),
          places_(Slot::kPlaces, has_lists() ? units_ * bands_ * band_values_ : 0) {
        words_.require();
        values_.require();
        places_.require();
    }
    size_t depth() const { return depth_; }

    // Adds to a tile what unit u of `rows` rows of one band, from row i on, contributes.
    void multiply(const ProductKernels<T>& kern, size_t i, size_t rows, size_t u,
                  const TileStep<T>& s) const {
        const size_t band = band_at(i, u);
        const std::uint64_t* words = words_.get() + u * a_.rows + i;
        if (has_lists())
            kern.multiply_listed(rows, s.width, words, values_.get() + band, places_.get() + band,
                                 s.tile, s.in, s.ld_in, s.out, s.ld_out);
        else
            kern.multiply_skipping(rows, s.width, words, values_.get() + band, plan_.pairs, s.tile,
                                   s.in, s.ld_in, s.out, s.ld_out);
    }

    size_t units() const { return units_; }

    // To be called for each band and all units before they are read: those from first_unit to
    // end_unit.  `copy` has room for kCopiedRows rows of a unit.
    void compress_band(const ProductKernels<T>& kern, size_t first, size_t first_unit,
                       size_t end_unit, T* copy) const {
        const size_t end = std::min(first + kBand, a_.rows);
        // Memory is read as it lies: along a few rows, or unit by unit.
        const bool by_rows = a_.col_stride == 1;
        constexpr size_t kUnitsTogether = 64, kFewRows = 8;
        const size_t step_units = by_rows ? kUnitsTogether : 1;
        const size_t step_rows = by_rows ? kFewRows : kCopiedRows;
        for (size_t u0 = first_unit; u0 < end_unit; u0 += step_units) {
            const size_t u1 = std::min(u0 + step_units, end_unit);
            size_t found[kUnitsTogether] = {};
            for (size_t i = first; i < end; i += step_rows)
                for (size_t u = u0; u < u1; ++u) {
                    const size_t at = band_at(first, u) + found[u - u0];
                    found[u - u0] += compress(kern, i, std::min(step_rows, end - i), u, at, copy);
                }
        }
    }

  private:
    bool has_lists() const { return plan_.words > 1; }
    size_t band_at(size_t i, size_t u) const { return (u * bands_ + i / kBand) * band_values_; }

    // Unit u of `rows` rows from i on; their values go to position `at`.  Returns their number.
    size_t compress(const ProductKernels<T>& kern, size_t i, size_t rows, size_t u, size_t at,
                    T* copy) const {
        const size_t p = u * depth_, depth = std::min(depth_, a_.cols - p);
        const T* from = a_.at(i, p);
        ptrdiff_t ld = a_.row_stride;
        if (a_.col_stride != 1) {
            const auto ld_copy = static_cast<ptrdiff_t>(depth_);
            kern.copy(rows, depth, from, ld, a_.col_stride, copy, ld_copy);
            from = copy;
            ld = ld_copy;
        }
        std::uint64_t* words = words_.get() + u * a_.rows + i;
        if (has_lists())
            return kern.list(rows, depth, from, ld, words, values_.get() + at, places_.get() + at);
        return kern.compact(rows, depth, from, ld, plan_.pairs, words, values_.get() + at);
    }

    Matrix<const T> a_;
    SkipPlan plan_;
    size_t depth_, units_;
    Scratch<std::uint64_t> words_;  // [unit][row]
    size_t bands_, band_values_;
    Scratch<T> values_;  // [unit][band][band_values_]
    Scratch<std::uint8_t> places_;
};

template <class T>
class SkippingProduct {
  public:
    SkippingProduct(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                    size_t threads)
        : kern_(epilogue.kernels),
          a_(a),
          b_(b),
          epilogue_(epilogue),
          threads_(threads),
          // Whole bytes of packed bits, so that no two tasks write to one.
          width_(even_piece(b.cols, kern_.skip_width, std::max<size_t>(kern_.lanes, 8))),
          plan_(skip_plan(nonzero_density(kern_, a, a.rows * a.cols * b.cols), a.rows)) {}

    void run() {
        const size_t step = rows_at_once<T>(a_.cols);
        for (size_t i = 0; i < a_.rows; i += step) multiply_rows(i, std::min(step, a_.rows - i));
    }

  private:
    static constexpr size_t kBand = CompressedRows<T>::kBand;

    void multiply_rows(size_t first, size_t m) {
        const CompressedRows<T> x(a_.block(first, 0, m, a_.cols), plan_);
        compress(x, ceil_div(m, kBand));

        // Fewer rows share a packed tile where there would be too few tasks.
        const size_t tiles = ceil_div(b_.cols, width_), wanted = tasks_wanted(threads_);
        const size_t most = std::min(kRowsPerTile, std::max(kBand, m * tiles / wanted));
        const size_t height = even_piece(m, most, kBand);
        for_each_task(ceil_div(m, height) * tiles, threads_, [&](size_t task) {
            const size_t i = task / tiles * height;
            multiply_tile(x, first, i, std::min(height, m - i), task % tiles * width_);
        });
        memory_.throw_if_failed();
    }

    // Tasks are bands of rows or, where these are few, some units of one.
    void compress(const CompressedRows<T>& x, size_t bands) {
        const size_t wanted = std::min(x.units(), ceil_div(tasks_wanted(threads_), bands));
        const size_t share = ceil_div(x.units(), wanted), shares = ceil_div(x.units(), share);
        for_each_task(bands * shares, threads_, [&](size_t task) {
            const Scratch<T> copy(Slot::kTask, CompressedRows<T>::kCopiedRows * x.depth());
            const size_t u = task % shares * share;
            if (memory_.granted(copy))
                x.compress_band(kern_, task / shares * kBand, u, std::min(u + share, x.units()),
                                copy.get());
        });
        memory_.throw_if_failed();
    }

    // The tile of columns from j on, for `rows` of the compressed rows, from the i-th on; the first
    // of all of them is row `first` of c.
    void multiply_tile(const CompressedRows<T>& x, size_t first, size_t i, size_t rows, size_t j) {
        const size_t k = a_.cols, cols = std::min(width_, b_.cols - j), depth = x.depth();
        const size_t padded = round_up(cols, kern_.lanes);
        const Scratch<T> tile(Slot::kTaskTile, depth * width_);
        const Scratch<T> sums(Slot::kTask, rows * width_);
        if (!memory_.granted(tile, sums)) return;
        clear_columns(tile.get(), depth, padded, cols);
        const Matrix<T> to = epilogue_.c.block(first + i, j, rows, cols);
        const bool direct = padded == cols && to.col_stride == 1;
        const Matrix<T> partial{sums.get(), rows, cols, static_cast<ptrdiff_t>(padded), 1};
        for (size_t p = 0; p < k; p += depth) {
            kern_.copy(std::min(depth, k - p), cols, b_.at(p, j), b_.row_stride, b_.col_stride,
                       tile.get(), partial.row_stride);
            const Matrix<T>& target = direct && p + depth >= k ? to : partial;
            for (size_t r = 0; r < rows; r += kBand)
                x.multiply(kern_, i + r, std::min(kBand, rows - r), p / depth,
                           {padded, tile.get(), p == 0 ? nullptr : partial.at(r, 0),
                            partial.row_stride, target.at(r, 0), target.row_stride});
        }
        if (!direct) copy_matrix(kern_, read_only(partial), to);
        epilogue_.apply_to_block(first + i, j, rows, cols);
    }

    const ProductKernels<T>& kern_;
    Matrix<const T> a_, b_;
    const EpilogueCaller<T>& epilogue_;
    size_t threads_;
    size_t width_;  // of a tile
    SkipPlan plan_;
    MemoryCheck memory_;
};

}  // namespace

template <class T>
void multiply_skipping(Matrix<const T> a, Matrix<const T> b, const EpilogueCaller<T>& epilogue,
                       size_t threads) {
    SkippingProduct<T>(a, b, epilogue, threads).run();
}

template void multiply_skipping(Matrix<const float>, Matrix<const float>,
                                const EpilogueCaller<float>&, size_t);
template void multiply_skipping(Matrix<const double>, Matrix<const double>,
                                const EpilogueCaller<double>&, size_t);

}  // namespace dropwise::ops
