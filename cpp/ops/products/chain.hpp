// Several products in one call.
//
// Relies on multiply() for each of them; knows no strategy.
#pragma once

#include <vector>

#include "ops/products/product.hpp"

namespace dropwise::ops {

// One product after the other.  An operand may be the out of an earlier one: all of it, perhaps
// transposed, over the same rows.  Sums over rows are complete when the call returns.  If there is
// little to do for each row, the chain is cut into pieces of rows, and each piece goes through all
// products: what one product writes is then still in cache when another reads it.  Products of
// which none reads what another writes may be computed at once.  Throws std::bad_alloc; what was
// written until then is undefined.
template <class T>
void multiply_chain(const std::vector<Product<T>>& products);

}  // namespace dropwise::ops
