#include "ops/elementwise.hpp"

#include "core/dispatch.hpp"
#include "ops/chunks.hpp"
#include "ops/mask.hpp"

namespace dropwise {
namespace {

// Input and output beyond this do not stay in a last-level cache, so that stores which bypass it
// are faster; below, they cost several times more.
constexpr std::size_t kStreamBytes = std::size_t{24} << 20;

// One operation's view of its arrays.
struct Run {
    const ElementKernels& kernel;
    std::size_t size;
    const char* x;
    char* out;
    bool stream;

    Run(Element element, const void* x, void* out, std::size_t n)
        : kernel(kernels().masks.elements[static_cast<std::size_t>(element)]),
          size(kElementSize[static_cast<std::size_t>(element)]),
          x(static_cast<const char*>(x)),
          out(static_cast<char*>(out)),
          stream(x != out && n > kStreamBytes / (2 * size)) {}

    MaskedChunk chunk(std::size_t first, std::size_t n, const ChunkMask& mask, double scale) const {
        return {x + first * size, out + first * size, mask.words, n, scale, stream};
    }
};

}  // namespace

void dropout_forward(Element element, const void* x, void* out, std::size_t n, std::uint8_t* bits,
                     const MaskSpec& spec, std::uint64_t offset, double scale) {
    const Run run(element, x, out, n);
    const auto make_mask = kernels().masks.mask;
    for_each_span(n, [&](const Span& span) {
        ChunkMask masks[2];
        bool turn = false;
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

void apply_bits(Element element, const void* x, void* out, std::size_t n, const std::uint8_t* bits,
                double scale) {
    const Run run(element, x, out, n);
    for_each_chunk(n, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        mask.load(bits, first, count);
        run.kernel.apply(run.chunk(first, count, mask, scale), 0, count);
    });
}

void relu(Element element, const void* x, void* out, std::size_t n, std::uint8_t* bits) {
    const Run run(element, x, out, n);
    for_each_chunk(n, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        run.kernel.relu(run.x + first * run.size, run.out + first * run.size, mask.words, count);
        mask.save(bits, first, count);
    });
}

void nonzero_bits(Element element, const void* x, std::size_t n, std::uint8_t* bits) {
    const Run run(element, x, nullptr, n);
    for_each_chunk(n, [&](std::size_t first, std::size_t count) {
        ChunkMask mask;
        run.kernel.nonzero(run.x + first * run.size, mask.words, count);
        mask.save(bits, first, count);
    });
}

}  // namespace dropwise
