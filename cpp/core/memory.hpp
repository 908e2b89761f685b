// Memory of large results, which is recycled: the system clears the pages of new memory as they are
// touched, and that takes longer than computing what goes there.
//
// Blocks are of size classes, a few to each doubling.  One that is given back is kept for the next
// that asks for its class, the last one first, because it may still be in a cache.  What is kept is
// limited; beyond that, the block that was given back longest ago returns to the system.
#pragma once

#include <cstddef>

namespace dropwise {

// `bytes` or more, uninitialised, aligned to 64 bytes.  Throws std::bad_alloc.
void* take_block(std::size_t bytes);

// To be called once for each block, with what take_block returned.  Any thread may.
void give_block(void* block) noexcept;

struct KeptMemory {
    std::size_t limit, bytes, blocks;  // the latter two of what is kept now
};
KeptMemory kept_memory() noexcept;

// 256 MiB, unless set; 0: blocks are not kept.  What is beyond the limit returns to the system.
void set_memory_limit(std::size_t bytes) noexcept;

// Returns all memory that is kept to the system.
void clear_kept_memory() noexcept;

}  // namespace dropwise
