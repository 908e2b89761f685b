#include "ops/products/row_blocks.hpp"

#include <algorithm>
#include <new>

#include "core/threads.hpp"
#include "ops/products/blocks.hpp"
#include "ops/products/chain.hpp"
#include "ops/products/choice.hpp"

namespace dropwise::ops {

namespace {

// to[j * stride] += from[j].
template <class T>
void add(size_t n, T* to, ptrdiff_t stride, const T* from) {
    if (stride == 1)
        for (size_t j = 0; j < n; ++j) to[j] += from[j];
    else
        for (size_t j = 0; j < n; ++j) to[static_cast<ptrdiff_t>(j) * stride] += from[j];
}

// to += a, and to += b + c: two rounds of a tree over four.
template <class T>
void add_four(size_t n, T* to, ptrdiff_t stride, const T* a, const T* b, const T* c) {
    if (stride == 1)
        for (size_t j = 0; j < n; ++j) to[j] = (to[j] + a[j]) + (b[j] + c[j]);
    else
        for (size_t j = 0; j < n; ++j) {
            T& sum = to[static_cast<ptrdiff_t>(j) * stride];
            sum = (sum + a[j]) + (b[j] + c[j]);
        }
}

// Adds up, in a tree, `out` and the `others` matrices after it: contiguous ones, `apart` elements
// from each other.  Overwrites them.
template <class T>
void add_tree(Matrix<T> out, T* leaves, size_t others, size_t apart) {
    constexpr size_t kChunk = 2048;  // elements of each leaf that are in the cache at once
    constexpr double kCost = 0.3;    // nanoseconds for each element of a leaf
    if (out.row_stride == static_cast<ptrdiff_t>(out.cols) && out.col_stride == 1)
        out = contiguous(out.data, 1, out.rows * out.cols);
    const size_t chunks = ceil_div(out.cols, kChunk);
    const auto run = [&](size_t task) {
        const size_t i = task / chunks, j = task % chunks * kChunk;
        const size_t n = std::min(kChunk, out.cols - j);
        T* const first = leaves + i * out.cols + j;
        const auto leaf = [&](size_t k) { return k == 0 ? out.at(i, j) : first + (k - 1) * apart; };
        const auto stride = [&](size_t k) { return k == 0 ? out.col_stride : 1; };
        size_t step = 1;
        if (others >= 3) {
            size_t k = 0;
            for (; k + 3 <= others; k += 4)
                add_four(n, leaf(k), stride(k), leaf(k + 1), leaf(k + 2), leaf(k + 3));
            for (size_t rest = k + 1; rest <= others; ++rest) add(n, leaf(k), 1, leaf(rest));
            step = 4;
        }
        for (; step <= others; step *= 2)
            for (size_t k = 0; k + step <= others; k += 2 * step)
                add(n, leaf(k), stride(k), leaf(k + step));
    };
    const double elements = static_cast<double>(out.rows * out.cols * others);
    parallel_for(out.rows * chunks, run, threads_worth(kCost * elements));
}

template <class T>
void multiply_all(const std::vector<Product<T>>& products) {
    if (products.size() == 1)
        multiply(products[0]);
    else
        multiply_chain(products);
}

template <class T>
class Blocks {
  public:
    Blocks(const std::vector<Product<T>>& products, size_t block_rows)
        : products_(products), block_rows_(block_rows), rows_(rows_of(products[0])) {
        // A sum that is an empty matrix takes no part.
        products_.erase(std::remove_if(products_.begin(), products_.end(),
                                       [](const Product<T>& p) {
                                           return p.over_rows && p.out.rows * p.out.cols == 0;
                                       }),
                        products_.end());
        double cost = 0;
        for (const Product<T>& p : products_) {
            if (p.over_rows) summed_ += p.out.rows * p.out.cols;
            if (num_threads() > 1) cost += choose(p).nanoseconds;
        }
        threads_ = static_cast<size_t>(threads_worth(cost));
    }

    void compute() {
        const size_t count = ceil_div(rows_, block_rows_);
        if (products_.empty()) return;
        if (summed_ == 0 && products_.size() == 1) return run_together(count);
        if (summed_ == 0) return run(0, count, nullptr);
        // The memory of the sums at once: of all blocks of a band but the first, and of one node
        // for each level above.
        band_ = std::min(kBand, std::max<size_t>(2, kElements / summed_));
        while ((band_ & (band_ - 1)) != 0) band_ &= band_ - 1;
        size_t levels = 0;
        for (size_t n = band_; n < count; n *= 2) ++levels;
        const size_t leaves = std::min(band_, count) - 1;
        const Scratch<T> memory(Slot::kBlockSums, (leaves + levels) * summed_);
        memory.require();
        leaves_ = memory.get();
        Sums out;
        for (const Product<T>& p : products_)
            if (p.over_rows) out.push_back(p.out);
        sum(0, count, out, memory.get() + leaves * summed_);
    }

  private:
    using Sums = std::vector<Matrix<T>>;  // one for each product over rows

    static constexpr size_t kBand = 8;                                   // blocks
    static constexpr size_t kElements = (size_t{32} << 20) / sizeof(T);  // of their sums

    // The sums as contiguous matrices, one after the other.
    Sums sums_at(T* memory) const {
        Sums sums;
        for (const Product<T>& p : products_) {
            if (!p.over_rows) continue;
            sums.push_back(contiguous(memory, p.out.rows, p.out.cols));
            memory += p.out.rows * p.out.cols;
        }
        return sums;
    }

    void add(const Sums& to, T* leaves, size_t others) const {
        for (const Matrix<T>& out : to) {
            add_tree(out, leaves, others, summed_);
            leaves += out.rows * out.cols;
        }
    }

    // `to` = the sums over `count` blocks from `first` on.
    void sum(size_t first, size_t count, const Sums& to, T* memory) const {
        if (count <= band_) {
            run(first, count, &to);
            if (count > 1) add(to, leaves_, count - 1);
            return;
        }
        size_t half = band_;
        while (2 * half < count) half *= 2;
        sum(first, half, to, memory + summed_);
        sum(first + half, count - half, sums_at(memory), memory + summed_);
        add(to, memory, 1);
    }

    // Blocks from `first` on; the sums of the first go to `to`, those of others to the leaves.
    void run(size_t first, size_t count, const Sums* to) const {
        if (threads_ == 1 || count < threads_) {
            for (size_t i = 0; i < count; ++i) run_block(first, i, to);
            return;
        }
        MemoryCheck memory;
        const auto task = [&](size_t i) {
            try {
                run_block(first, i, to);
            } catch (const std::bad_alloc&) {
                memory.note_failure();
            }
        };
        parallel_for(count, task, static_cast<int>(threads_));
        memory.throw_if_failed();
    }

    // One product.  Where only kept outputs are computed, each by itself, neighbours that go so are
    // one product: it copies b once for all of them.
    void run_together(size_t count) const {
        const Product<T>& whole = products_[0];
        if (whole.bits == nullptr) return run(0, count, nullptr);
        for (size_t i = 0; i < count;) {
            size_t end = i;
            while (end < count && is_kept(block_of(whole, end))) ++end;
            if (end == i) {
                run_block(i, 0, nullptr);
                ++i;
                continue;
            }
            const size_t start = i * block_rows_;
            Product<T> together =
                rows_from(whole, start, std::min(end * block_rows_, rows_) - start);
            together.strategy = Strategy::kKept;
            multiply(together);
            i = end;
        }
    }

    static bool is_kept(const Product<T>& block) {
        return choose(block).strategy == Strategy::kKept;
    }

    Product<T> block_of(const Product<T>& whole, size_t i) const {
        const size_t start = i * block_rows_;
        return rows_from(whole, start, std::min(block_rows_, rows_ - start));
    }

    void run_block(size_t first, size_t i, const Sums* to) const {
        Sums sums;
        if (to != nullptr) sums = i == 0 ? *to : sums_at(leaves_ + (i - 1) * summed_);
        std::vector<Product<T>> block;
        block.reserve(products_.size());
        auto next = sums.begin();
        for (const Product<T>& whole : products_) {
            block.push_back(block_of(whole, first + i));
            if (whole.over_rows) block.back().out = *next++;
        }
        multiply_all(block);
    }

    std::vector<Product<T>> products_;
    size_t block_rows_, rows_, threads_ = 1, summed_ = 0, band_ = 0;
    T* leaves_ = nullptr;
};

}  // namespace

template <class T>
void multiply_by_blocks(const std::vector<Product<T>>& products, size_t block_rows) {
    if (rows_of(products[0]) <= block_rows) return multiply_all(products);
    if (is_thin(products)) return Blocks<T>(products, block_rows).compute();
    for (const Product<T>& p : products) Blocks<T>({p}, block_rows).compute();
}

template void multiply_by_blocks(const std::vector<Product<float>>&, size_t);
template void multiply_by_blocks(const std::vector<Product<double>>&, size_t);

}  // namespace dropwise::ops
