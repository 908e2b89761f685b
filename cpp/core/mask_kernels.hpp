// Contracts of the kernels for masks and elementwise functions: a part of kernel_table.hpp.
//
// Included by kernel objects too, so nothing may be included here but <cstddef>, <cstdint> and
// structs, and no inline function may stand here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// Which mask: element i is dropped if and only if V(i) < threshold / 2**72 (docs: the mask
// contract).
struct MaskSpec {
    std::uint64_t key;
    std::uint64_t stream;          // 56 bits
    std::uint64_t threshold_low;   // floor(rate * 2**72): its low 64 bits
    std::uint32_t threshold_high;  // and the rest, 0 to 256
};

// Elements of which masks are made and applied at a time: such a mask stays in the first-level
// cache.
constexpr std::size_t kMaskChunk = 32768;
constexpr std::size_t kMaskWords = kMaskChunk / 64 + 16;  // a chunk's words, and room to overwrite

enum class Element { f32, f64, f16, bf16 };
constexpr std::size_t kElementSize[] = {4, 8, 2, 2};

// A mask and what it is applied to: out = scale * x where the bit is 1, else +0.0.
struct MaskedChunk {
    const void* x;
    void* out;
    const std::uint64_t* words;
    std::size_t n;
    double scale;
    bool stream;  // stores bypass the cache
};

// On n <= kMaskChunk elements.  `words` is a buffer of kMaskWords words: element e is bit e % 64 of
// words[e / 64], and what a kernel writes has zeros after the last element in its word.
// Arrays are aligned to their elements; `out` may be `x`.
struct ElementKernels {
    // Elements from `from` to `to` of the chunk; to its end last, because that ends its streams.
    void (*apply)(const MaskedChunk& chunk, std::size_t from, std::size_t to);
    // out = x and bit 1 where not x <= 0, else +0.0 and 0.
    void (*relu)(const void* x, void* out, std::uint64_t* words, std::size_t n);
    // Bit 1 where x != 0.
    void (*nonzero)(const void* x, std::uint64_t* words, std::size_t n);
};

// A chunk whose mask is ready, to be applied while the next mask is made: applying waits for
// memory, making a mask computes.
struct Meanwhile {
    void (*apply)(const MaskedChunk& chunk, std::size_t from, std::size_t to);
    std::size_t element_size;
    MaskedChunk chunk;
    std::size_t done;
};

struct MaskKernels {
    // The mask of the elements from `start` on; n >= 1.  Finishes `meanwhile`, if it is not null.
    void (*mask)(const MaskSpec& spec, std::uint64_t start, std::size_t n, std::uint64_t* words,
                 Meanwhile* meanwhile);
    ElementKernels elements[4];  // by Element
};

}  // namespace dropwise
