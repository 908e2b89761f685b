// One kernel call for each chunk.
#include "ops/mask.hpp"

#include <algorithm>

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

std::size_t Box::size() const {
    std::size_t n = 1;
    for (const std::uint64_t length : lengths) n *= length;
    return n;
}

namespace {

// The global index where a run along the last dimension begins.
std::uint64_t start_of_run(const Box& box, std::size_t run) {
    std::uint64_t start = box.first;
    for (std::size_t d = box.lengths.size() - 1; d-- > 0;) {
        start += run % box.lengths[d] * box.strides[d];
        run /= box.lengths[d];
    }
    return start;
}

// Adds the n bits of `words` to those of `to`, which are 0 from bit `at` on.
void add_bits(const std::uint64_t* words, std::size_t n, std::uint64_t* to, std::size_t at) {
    const std::size_t shift = at % 64;
    to += at / 64;
    for (std::size_t w = 0; w < (n + 63) / 64; ++w) {
        to[w] |= words[w] << shift;
        if (shift != 0) to[w + 1] |= words[w] >> (64 - shift);
    }
}

}  // namespace

void mask_box(const MaskSpec& spec, const Box& box, std::uint8_t* bits) {
    constexpr double kRunCost = 60;  // nanoseconds, for each run beside its elements
    const MaskKernels& kernel = kernels().masks;
    const std::size_t n = box.size(), run_length = box.lengths.back();
    const double cost = kMaskCost + kRunCost / static_cast<double>(run_length);
    for_each_chunk(n, cost, [&](std::size_t first, std::size_t count) {
        ChunkMask all{}, part;
        std::size_t run = first / run_length, skipped = first % run_length;
        for (std::size_t done = 0; done < count; ++run, skipped = 0) {
            const std::size_t length = std::min(run_length - skipped, count - done);
            kernel.mask(spec, start_of_run(box, run) + skipped, length, part.words, nullptr);
            add_bits(part.words, length, all.words, done);
            done += length;
        }
        all.save(bits, first, count);
    });
}

}  // namespace dropwise
