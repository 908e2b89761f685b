// One kernel call for each chunk.
#include "ops/mask.hpp"

#include "core/dispatch.hpp"
#include "ops/chunks.hpp"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed masks are little-endian words of memory; this target is not"
#endif

namespace dropwise {

MaskSpec make_mask_spec(double rate, std::uint64_t key, std::uint64_t stream) noexcept {
    // Scaling by powers of two and taking away the integer part are exact.
    const double scaled = rate * 0x1p8;
    const auto high = static_cast<std::uint32_t>(scaled);
    const auto low = static_cast<std::uint64_t>((scaled - high) * 0x1p64);
    return {key, stream, low, high};
}

void mask_bits(const MaskSpec& spec, std::uint64_t offset, std::size_t n, std::uint8_t* bits) {
    const MaskKernels& kernel = kernels().masks;
    for_each_chunk(n, kMaskCost, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        kernel.mask(spec, offset + first, count, mask.words, nullptr);
        mask.save(bits, first, count);
    });
}

}  // namespace dropwise
