// One kernel call for each chunk; dropout makes the mask of a chunk while it applies the one
// before.
#include "ops/elementwise.hpp"

#include <algorithm>
#include <cstring>

#include "core/dispatch.hpp"
#include "core/threads.hpp"
#include "ops/chunks.hpp"
#include "ops/mask.hpp"

namespace dropwise {
namespace {

// If input and output together are larger than this, they do not stay in a last-level cache, and
// stores that bypass it are faster; for smaller arrays such stores cost several times more.
constexpr std::size_t kStreamBytes = std::size_t{24} << 20;

// The arrays of a call as bytes, and the kernels for their type.
struct Run {
    const ElementKernels& kernel;
    std::size_t size;  // bytes of an element
    const char* x;
    char* out;
    bool stream;
    double cost;  // of an element, as in ops/chunks.hpp

    explicit Run(const Elements& e)
        : kernel(kernels().masks.elements[static_cast<std::size_t>(e.type)]),
          size(kElementSize[static_cast<std::size_t>(e.type)]),
          x(static_cast<const char*>(e.x)),
          out(static_cast<char*>(e.out)),
          stream(e.x != e.out && e.n > kStreamBytes / (2 * size)),
          cost(kByteCost * static_cast<double>(size)) {}

    MaskedChunk chunk(std::size_t first, std::size_t n, const ChunkMask& mask, double scale) const {
        return {x + first * size, out + first * size, mask.words, n, scale, stream};
    }
};

}  // namespace

void dropout_forward(const Elements& elements, std::uint8_t* bits, const MaskSpec& spec,
                     std::uint64_t offset, double scale) {
    const Run run(elements);
    const auto make_mask = kernels().masks.mask;
    for_each_span(elements.n, run.cost + kMaskCost, [&](const Span& span) {
        ChunkMask masks[2];
        bool turn = false;
        // Each mask is applied while the next one is made.
        Meanwhile before{run.kernel.apply, run.size, {}, 0};
        span.for_each_chunk([&](std::size_t first, std::size_t count) {
            ChunkMask& mask = masks[turn];
            make_mask(spec, offset + first, count, mask.words, &before);
            if (bits != nullptr) mask.save(bits, first, count);
            before.chunk = run.chunk(first, count, mask, scale);
            before.done = 0;
            turn = !turn;
        });
        run.kernel.apply(before.chunk, 0, before.chunk.n);
    });
}

void apply_bits(const Elements& elements, const std::uint8_t* bits, double scale) {
    const Run run(elements);
    for_each_chunk(elements.n, run.cost, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        mask.load(bits, first, count);
        run.kernel.apply(run.chunk(first, count, mask, scale), 0, count);
    });
}

void relu(const Elements& elements, std::uint8_t* bits) {
    const Run run(elements);
    for_each_chunk(elements.n, run.cost, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        run.kernel.relu(run.x + first * run.size, run.out + first * run.size, mask.words, count);
        mask.save(bits, first, count);
    });
}

void nonzero_bits(Element type, const void* x, std::size_t n, std::uint8_t* bits) {
    const Run run({type, x, nullptr, n});
    for_each_chunk(n, run.cost, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        run.kernel.nonzero(run.x + first * run.size, mask.words, count);
        mask.save(bits, first, count);
    });
}

void take_rows(const void* x, std::size_t bytes, const std::int64_t* rows, std::size_t n,
               void* out) {
    constexpr double kCostOfByte = 0.1;                   // nanoseconds
    constexpr std::size_t kBytes = std::size_t{1} << 16;  // that a task copies, about
    const std::size_t count = std::max<std::size_t>(1, kBytes / std::max<std::size_t>(1, bytes));
    const auto* const from = static_cast<const unsigned char*>(x);
    auto* const to = static_cast<unsigned char*>(out);
    const auto run = [&](std::size_t task) {
        const std::size_t end = std::min(n, (task + 1) * count);
        for (std::size_t i = task * count; i < end; ++i)
            std::memcpy(to + i * bytes, from + static_cast<std::size_t>(rows[i]) * bytes, bytes);
    };
    parallel_for((n + count - 1) / count, run,
                 threads_worth(kCostOfByte * static_cast<double>(n * bytes)));
}

}  // namespace dropwise
