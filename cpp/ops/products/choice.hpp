// Which strategy a product takes: the cheapest one, by a count of what each has to do.
//
// Relies on the strategies' own predicates for what they would do, on core/cost_terms.hpp for what
// is counted, and on the kernel table for what each count costs.  Computes no product.
#pragma once

#include <utility>
#include <vector>

#include "ops/products/blocks.hpp"
#include "ops/products/product.hpp"

namespace dropwise::ops {

// A strategy and what it costs by the count, in nanoseconds of one thread.
struct Choice {
    Strategy strategy;
    double nanoseconds;
};

// What multiply() takes: the strategy that is forced, or else the cheapest one.  Does not depend on
// the number of threads.
template <class T>
Choice choose(const Product<T>& product);

// The terms of the product's strategy, which is not kChosen, by name, as if that share of the
// operand's elements were not zero, or of the mask's bits were 1.
template <class T>
std::vector<std::pair<const char*, double>> product_terms(const Product<T>& product,
                                                          double density);

}  // namespace dropwise::ops
