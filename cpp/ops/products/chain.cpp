// Cuts a chain into pieces of rows where that keeps what passes between its products in cache.
#include "ops/products/chain.hpp"

#include <algorithm>
#include <new>

#include "core/threads.hpp"
#include "ops/products/blocks.hpp"
#include "ops/products/choice.hpp"

namespace dropwise::ops {

template <class T>
bool is_thin(const std::vector<Product<T>>& products) {
    constexpr size_t kThin = 32;
    if (products.size() < 2) return false;
    const size_t rows = rows_of(products[0]);
    return std::all_of(products.begin(), products.end(), [&](const Product<T>& p) {
        // A matrix larger than that in both directions is better packed once, for all rows.
        const size_t inner = p.over_rows ? p.out.rows : p.a.cols;
        return rows_of(p) == rows && std::min(inner, p.out.cols) <= kThin;
    });
}

namespace {

// The number of rows in a piece; 0 if each product is to take all rows at once.
template <class T>
size_t rows_per_piece(const std::vector<Product<T>>& products) {
    constexpr size_t kBytes = size_t{1} << 19;  // that a piece writes: half of an L2 cache
    constexpr size_t kFewest = 64;  // rows: with fewer, the fixed cost of a product is too much
    if (!is_thin(products)) return 0;
    const size_t rows = rows_of(products[0]);
    size_t row_bytes = 1;
    for (const Product<T>& p : products)
        if (!p.over_rows) row_bytes += sizeof(T) * p.out.cols;
    const size_t step = kBytes / row_bytes / kFewest * kFewest;
    return step != 0 && step < rows ? even_piece(rows, step, kFewest) : 0;
}

// All products for `m` of their rows, from row `first` on, a multiple of 8.  Sums over rows go to
// `sums`, one after the other, and temporary results to `scratch`, likewise.
template <class T>
void run_piece(const std::vector<Product<T>>& products, size_t first, size_t m, T* sums,
               T* scratch) {
    T* next = scratch;
    for (const Product<T>& whole : products) {
        Product<T> p = rows_from(whole, first, m);
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
        }
        if (p.temporary) {
            p.out.data = next;
            next += m * p.out.cols;
        }
        multiply(p);
    }
}

// out = or (unless `first`) += the sum of `pieces` matrices that are `stride` elements apart.
template <class T>
void add_pieces(const T* sums, size_t pieces, size_t stride, bool first, Matrix<T> out) {
    for (size_t i = 0; i < out.rows; ++i)
        for (size_t j = 0; j < out.cols; ++j, ++sums) {
            T total = first ? 0 : *out.at(i, j);
            for (size_t piece = 0; piece < pieces; ++piece) total += sums[piece * stride];
            *out.at(i, j) = total;
        }
}

// Whether no product reads what an earlier one writes.
template <class T>
bool are_independent(const std::vector<Product<T>>& products) {
    for (const Product<T>* p = products.data(); p != products.data() + products.size(); ++p)
        for (const Product<T>* before = products.data(); before != p; ++before)
            if (p->a.data == before->out.data || p->b.data == before->out.data ||
                (p->bits != nullptr && p->bits == before->nonzero))
                return false;
    return true;
}

// Each product over all of its rows.  If there are many of them, each is the task of one thread.
template <class T>
void multiply_each(const std::vector<Product<T>>& products) {
    double cost = 0;
    if (num_threads() > 1 && are_independent(products))
        for (const Product<T>& p : products) cost += choose(p).nanoseconds;
    const int threads = threads_worth(cost);
    if (threads == 1 || products.size() < tasks_wanted(static_cast<size_t>(threads))) {
        for (const Product<T>& p : products) multiply(p);
        return;
    }
    MemoryCheck memory;
    const auto run = [&](size_t i) {
        try {
            multiply(products[i]);
        } catch (const std::bad_alloc&) {
            memory.note_failure();
        }
    };
    parallel_for(products.size(), run, threads);
    memory.throw_if_failed();
}

}  // namespace

template <class T>
void multiply_chain(const std::vector<Product<T>>& products) {
    const size_t step = rows_per_piece(products);
    if (step == 0) return multiply_each(products);
    constexpr size_t kBand = 64;  // pieces whose sums are held at once
    const size_t rows = rows_of(products[0]);
    const size_t pieces = std::min(kBand, ceil_div(rows, step));
    size_t summed = 0, temporary = 0;
    double cost = 0;
    for (const Product<T>& p : products) {
        if (p.over_rows) summed += p.out.rows * p.out.cols;
        if (p.temporary) temporary += p.out.cols;
        cost += choose(p).nanoseconds;
    }
    const Scratch<T> sums(Slot::kSums, std::max<size_t>(1, pieces * summed));
    sums.require();
    MemoryCheck memory;
    for (size_t start = 0; start < rows; start += kBand * step) {
        const size_t here = std::min(kBand, ceil_div(rows - start, step));
        const auto run = [&](size_t piece) {
            const size_t first = start + piece * step;
            const Scratch<T> scratch(Slot::kPiece, step * temporary + 1);
            if (!memory.granted(scratch)) return;
            try {
                run_piece(products, first, std::min(step, rows - first),
                          sums.get() + piece * summed, scratch.get());
            } catch (const std::bad_alloc&) {
                memory.note_failure();
            }
        };
        parallel_for(here, run, threads_worth(cost));
        memory.throw_if_failed();
        const T* sum = sums.get();
        for (const Product<T>& p : products) {
            if (!p.over_rows) continue;
            add_pieces(sum, here, summed, start == 0, p.out);
            sum += p.out.rows * p.out.cols;
        }
    }
}

template bool is_thin(const std::vector<Product<float>>&);
template bool is_thin(const std::vector<Product<double>>&);
template void multiply_chain(const std::vector<Product<float>>&);
template void multiply_chain(const std::vector<Product<double>>&);

}  // namespace dropwise::ops
