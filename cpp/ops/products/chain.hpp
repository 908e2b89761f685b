// Several products in one call.
//
// Relies on multiply() for each of them; knows no strategy.
#pragma once

#include <cstddef>
#include <vector>

#include "ops/products/product.hpp"

namespace dropwise::ops {

// The rows that a chain shares, as a product of it has them.
template <class T>
std::size_t rows_of(const Product<T>& p) {
    return p.over_rows ? p.a.cols : p.out.rows;
}

// The product for `m` of these rows, from row `first` on, a multiple of 8.
template <class T>
Product<T> rows_from(const Product<T>& whole, std::size_t first, std::size_t m) {
    const auto rows = [&](auto x) { return x.block(first, 0, m, x.cols); };
    Product<T> p = whole;
    if (p.over_rows) {
        p.a = rows(p.a.transposed()).transposed();
        p.b = rows(p.b);
        return p;
    }
    p.a = rows(p.a);
    p.out = rows(p.out);
    if (p.bits != nullptr) p.bits += first / 8 * p.out.cols;
    if (p.nonzero != nullptr) p.nonzero += first / 8 * p.out.cols;
    return p;
}

// Whether there is so little to do for each row that a chain should stay with a few of them.
template <class T>
bool is_thin(const std::vector<Product<T>>& products);

// One product after the other.  An operand may be the out of an earlier one: all of it, perhaps
// transposed, over the same rows.  Sums over rows are complete when the call returns.  If there is
// little to do for each row, the chain is cut into pieces of rows, and each piece goes through all
// products: what one product writes is then still in cache when another reads it.  Products of
// which none reads what another writes may be computed at once.  Throws std::bad_alloc; what was
// written until then is undefined.
template <class T>
void multiply_chain(const std::vector<Product<T>>& products);

}  // namespace dropwise::ops
