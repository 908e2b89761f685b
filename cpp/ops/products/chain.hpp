// Chains of products.
#pragma once

#include <vector>

#include "ops/products/product.hpp"

namespace dropwise::ops {

// One product after the other.  An operand may be what an earlier one wrote: all of it, perhaps
// transposed, over the same rows; sums over rows are there at the end.  With little to do for each
// row, some rows go through all products before the next do: what one product writes is then still
// in the cache when another reads it.
template <class T>
void multiply_chain(const std::vector<Product<T>>& products);

}  // namespace dropwise::ops
