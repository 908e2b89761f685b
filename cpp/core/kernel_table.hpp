// Where ops and kernels meet: the functions and block sizes one instruction set offers.
//
// A kernel gets raw pointers, allocates nothing, throws nothing and starts no threads; ops cut the
// work into pieces that fit these contracts.  Included by kernel objects too, so only <cstddef> and
// <cstdint> may be included here, and nothing here may have an inline function.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dropwise {

// ---- masks and dropout -------------------------------------------------------------------------

// Which mask: element i is dropped if and only if V(i) < threshold / 2**72 (docs: the mask
// contract).
struct MaskSpec {
    std::uint64_t key;
    std::uint64_t stream;          // 56 bits
    std::uint64_t threshold_low;   // floor(rate * 2**72): its low 64 bits
    std::uint32_t threshold_high;  // and the rest, 0 to 256
};

// Masks are made and applied a chunk at a time, so that they stay in the first-level cache.
constexpr std::size_t kMaskChunk = 16384;
constexpr std::size_t kMaskWords = kMaskChunk / 64 + 16;  // a chunk's words, and room to overwrite

enum class Element { f32, f64, f16, bf16 };
constexpr std::size_t kElementSize[] = {4, 8, 2, 2};

// On n <= kMaskChunk elements.  `words` is a buffer of kMaskWords words: element e is bit e % 64 of
// words[e / 64], and what a kernel writes has zeros after the last element in its word.
// Arrays are aligned to their elements; `out` may be `x`.
struct ElementKernels {
    // out = scale * x where the bit is 1, else +0.0; `stream` bypasses the cache.
    void (*apply)(const void* x, void* out, const std::uint64_t* words, std::size_t n, double scale,
                  bool stream);
    // out = x and bit 1 where not x <= 0, else +0.0 and 0.
    void (*relu)(const void* x, void* out, std::uint64_t* words, std::size_t n);
    // Bit 1 where x != 0.
    void (*nonzero)(const void* x, std::uint64_t* words, std::size_t n);
};

struct MaskKernels {
    // The mask of the elements from `start` on; n >= 1.
    void (*mask)(const MaskSpec& spec, std::uint64_t start, std::size_t n, std::uint64_t* words);
    ElementKernels elements[4];  // by Element
};

// ---- products ----------------------------------------------------------------------------------

struct KernelTable {
    const char* name;
    MaskKernels masks;
};

}  // namespace dropwise
