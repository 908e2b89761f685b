// Which way a product takes.
#pragma once

#include <vector>

#include "ops/products/blocks.hpp"
#include "ops/products/product.hpp"

namespace dropwise::ops {

// The strategy that multiply() takes: the one that is forced, or else the cheapest one.
template <class T>
Strategy strategy_of(const Product<T>& product);

// What the cost of a strategy is counted from, at that density; bench/costs.py fits what each count
// is worth.  `kept`: outputs that a mask drops are computed and cleared.
template <class T>
std::vector<double> product_terms(Matrix<const T> a, Matrix<const T> b, Strategy strategy,
                                  bool kept, double density);

}  // namespace dropwise::ops
