// A chain of products in blocks of rows, each computed as if it were alone.
//
// Relies on multiply_chain() for each block.
#pragma once

#include <cstddef>
#include <vector>

#include "ops/products/product.hpp"

namespace dropwise::ops {

// What multiply_chain() gives for each block of `block_rows` rows, a multiple of 8, the last one
// perhaps of fewer.  Sums over rows are added up in a binary tree: neighbours in pairs, these again
// in pairs, and so on; one that is left over goes on to the next round.  So a sum over 2**k blocks
// that begin at a multiple of 2**k is a node of the tree for all of them, whoever computes it.
// Blocks are shared out to threads, if there are enough.  Throws std::bad_alloc; what was written
// until then is undefined.
template <class T>
void multiply_by_blocks(const std::vector<Product<T>>& products, std::size_t block_rows);

}  // namespace dropwise::ops
