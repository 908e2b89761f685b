// Packed dropout masks on one chunk, for one instruction set: version 1 of the mask contract.
//
// Philox runs with one 32-bit word in each 64-bit lane.  The upper halves of the lanes hold
// garbage, which the widening multiply ignores and XOR keeps apart.  A group is 128 elements, the
// output of one counter; a block is kWords groups, one to a lane.
//
// Compiled once per set (cpp/cmake/IsaKernels.cmake).  Nothing here allocates, throws or starts
// threads; ops/mask.cpp cuts the work into chunks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernel_table.hpp"
#include "simd/vec.hpp"

namespace {
namespace mask {

using dropwise::kMaskChunk;
using dropwise::kMaskWords;
using dropwise::MaskSpec;
using dropwise::Meanwhile;
using simd::Words;

constexpr int kRounds = 10;
constexpr int kMaxPlanes = 8;
constexpr int kInterleave = 4;  // planes in flight: fewer wait for multiplies, more only spill
constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr std::uint64_t kRefineTag = 0x80;
constexpr std::size_t kGroup = 128;
constexpr std::size_t kGroupWords = 2;
constexpr std::size_t kBlockWords = simd::kWords * kGroupWords;
constexpr std::size_t kAdvance = 1024;  // elements applied at a time while the next mask is made

// The chunk, the up to 127 elements before it in its first group, and the rest of the last block.
static_assert(kMaskChunk / 64 + kBlockWords <= kMaskWords, "chunk buffers are too small");

// What all blocks of a call share.
struct Schedule {
    std::uint64_t key0[kRounds], key1[kRounds];
    std::uint64_t stream_low, stream_high;

    explicit Schedule(const MaskSpec& spec)
        : stream_low(spec.stream & 0xFFFFFFFF), stream_high(spec.stream >> 32) {
        std::uint32_t k0 = static_cast<std::uint32_t>(spec.key);
        std::uint32_t k1 = static_cast<std::uint32_t>(spec.key >> 32);
        for (int r = 0; r < kRounds; ++r, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
            key0[r] = k0;
            key1[r] = k1;
        }
    }
};

// Applies the mask that is ready to some more elements, up to the end of a cache line: a line that
// is written past the cache in two parts costs as much as the mask.
inline void advance(Meanwhile* m, std::size_t elements) {
    if (m == nullptr || m->done == m->chunk.n) return;
    std::size_t to = m->chunk.n;
    if (elements < to - m->done) {
        const auto out = reinterpret_cast<std::uintptr_t>(m->chunk.out);
        to = m->done + elements;
        to -= (out + to * m->element_size) % 64 / m->element_size;
    }
    m->apply(m->chunk, m->done, to);
    m->done = to;
}

// Prefetches the input of the next elements that advance() will apply, some cache lines a round,
// because a CPU has room for few requests at a time.
class Prefetch {
  public:
    explicit Prefetch(const Meanwhile* m) : at_(nullptr) {
        if (m != nullptr && m->done != m->chunk.n)
            at_ = static_cast<const char*>(m->chunk.x) + m->done * m->element_size;
    }
    void next() {
        constexpr int kLines = (5 * simd::kWords + 7) / 8;  // nearly a block's of float32
        if (at_ == nullptr) return;
        DROPWISE_UNROLL for (int line = 0; line < kLines; ++line) simd::prefetch(at_ + 64 * line);
        at_ += 64 * kLines;
    }

  private:
    const char* at_;
};

// N Philox states side by side, so that their multiplies overlap.
template <int N>
struct States {
    Words c0[N], c1[N], c2[N], c3[N];
};

template <int N>
inline void run_rounds(States<N>& s, const Schedule& schedule, int from, int to,
                       Prefetch& prefetch) {
    const Words m0 = simd::broadcast(kMultiplier0), m1 = simd::broadcast(kMultiplier1);
    DROPWISE_UNROLL for (int r = from; r < to; ++r) {
        prefetch.next();
        const Words k0 = simd::broadcast(schedule.key0[r]);
        const Words k1 = simd::broadcast(schedule.key1[r]);
        DROPWISE_UNROLL for (int j = 0; j < N; ++j) {
            const Words p0 = simd::multiply_low(s.c0[j], m0);
            const Words p1 = simd::multiply_low(s.c2[j], m1);
            s.c0[j] = simd::bit_xor(simd::high_half(p1), s.c1[j], k0);
            s.c1[j] = p1;
            s.c2[j] = simd::bit_xor(simd::high_half(p0), s.c3[j], k1);
            s.c3[j] = p0;
        }
    }
}

// The last round packs: output words 0 and 1 of a lane become the high and the low half of `first`,
// words 2 and 3 those of `second`.  The halves are swapped back only when a result is stored.
inline Words last_round_first(Words c1, Words c2, Words key) {
    const Words p1 = simd::multiply_low(c2, simd::broadcast(kMultiplier1));
    return simd::bit_xor(p1, simd::low_to_high(c1), key);
}
inline Words last_round_second(Words c0, Words c3, Words key) {
    const Words p0 = simd::multiply_low(c0, simd::broadcast(kMultiplier0));
    return simd::bit_xor(p0, simd::low_to_high(c3), key);
}

// Writes, for n_blocks blocks from `group` on, the bits of V >= threshold as far as the planes
// decide it, and which elements the planes leave tied (these count as >=).
// Only the low half of the group number varies within a call.
template <int kPlanes>
void compare_planes(const MaskSpec& spec, const Schedule& k, std::uint64_t group,
                    std::size_t n_blocks, std::uint64_t* above, std::uint64_t* tied,
                    Meanwhile* meanwhile) {
    constexpr std::size_t kBlock = simd::kWords * kGroup;
    constexpr std::size_t kAdvanceBlocks = kBlock < kAdvance ? kAdvance / kBlock : 1;
    constexpr int N = kPlanes < kInterleave ? kPlanes : kInterleave;

    // Round 1 turns the constant words c1 and c2 of the counter into constants.
    const std::uint64_t p1 = kMultiplier1 * k.stream_low;
    const std::uint64_t c0_round1 = (p1 >> 32) ^ (group >> 32) ^ k.key0[0];
    const std::uint64_t c1_round1 = p1 & 0xFFFFFFFF;
    const std::uint64_t p0 = kMultiplier0 * c0_round1;
    const Words m0 = simd::broadcast(kMultiplier0), m1 = simd::broadcast(kMultiplier1);
    const Words round2_c0 = simd::broadcast(c1_round1 ^ k.key0[1]);
    const Words round2_c2 = simd::broadcast((p0 >> 32) ^ k.key1[1]);
    const Words round3_c0 = simd::broadcast(k.key0[2]);
    const Words round3_c2 = simd::broadcast((p0 & 0xFFFFFFFF) ^ k.key1[2]);

    // Plane by plane, the least significant first: the counter's c3 with round 1's key, the verdict
    // where the plane's bit differs from the threshold's, and the last keys.  These carry the
    // inverted threshold bit, so that the packed output says where the two bits agree.
    Words round1_c2[kPlanes], verdict[kPlanes], last_first[kPlanes], last_second[kPlanes];
    for (int j = 0; j < kPlanes; ++j) {
        const int plane = kPlanes - j;
        const bool bit = spec.threshold_high >> (kMaxPlanes - plane) & 1;
        const std::uint64_t flip = bit ? 0 : ~std::uint64_t{0};
        const std::uint64_t c3 = static_cast<std::uint64_t>(plane) << 24 | k.stream_high;
        round1_c2[j] = simd::broadcast(c3 ^ k.key1[0]);
        verdict[j] = simd::broadcast(flip);
        last_first[j] = simd::broadcast(k.key0[kRounds - 1] << 32 ^ flip);
        last_second[j] = simd::broadcast(k.key1[kRounds - 1] << 32 ^ flip);
    }

    const Words step = simd::broadcast(simd::kWords);
    Words counter = simd::add(simd::broadcast(group), simd::lane_numbers());
    for (std::size_t block = 0; block < n_blocks; ++block) {
        if (block % kAdvanceBlocks == 0) advance(meanwhile, kAdvance);
        Prefetch prefetch(meanwhile);
        const Words q0 = simd::multiply_low(counter, m0);
        counter = simd::add(counter, step);
        const Words q0_high = simd::high_half(q0);
        const Words q1 = simd::multiply_low(simd::bit_xor(q0, round2_c2), m1);
        const Words q1_high = simd::bit_xor(simd::high_half(q1), round3_c0);

        const Words ones = simd::broadcast(~std::uint64_t{0});
        Words above_first = ones, above_second = ones, tied_first = ones, tied_second = ones;
        DROPWISE_UNROLL for (int base = 0; base < kPlanes; base += N) {
            States<N> s;
            DROPWISE_UNROLL for (int j = 0; j < N; ++j) {
                const Words c2 = simd::bit_xor(q0_high, round1_c2[base + j]);
                const Words p = simd::multiply_low(c2, m1);
                const Words c0 = simd::bit_xor(simd::high_half(p), round2_c0);
                s.c0[j] = simd::bit_xor(q1_high, p);
                s.c1[j] = q1;
                s.c3[j] = simd::multiply_low(c0, m0);
                s.c2[j] = simd::bit_xor(simd::high_half(s.c3[j]), round3_c2);
            }
            run_rounds(s, k, 3, kRounds - 1, prefetch);
            DROPWISE_UNROLL for (int j = 0; j < N; ++j) {
                const int plane = base + j;
                const Words first = last_round_first(s.c1[j], s.c2[j], last_first[plane]);
                const Words second = last_round_second(s.c0[j], s.c3[j], last_second[plane]);
                above_first = simd::bit_select(first, above_first, verdict[plane]);
                above_second = simd::bit_select(second, above_second, verdict[plane]);
                tied_first = simd::bit_and(tied_first, first);
                tied_second = simd::bit_and(tied_second, second);
            }
        }
        simd::store_swapped_pairs(above + block * kBlockWords, above_first, above_second);
        simd::store_swapped_pairs(tied + block * kBlockWords, tied_first, tied_second);
    }
}

// Tied elements wait in a queue that is refined in batches, the last one padded.  A chunk has 128
// of them on average, and the queue has room for them all but for chance.
constexpr std::size_t kRefineBatch = 2 * simd::kWords;
constexpr std::size_t kQueue = 320;
static_assert(kQueue % kRefineBatch == 0, "padding must not leave the queue");

// Clears the bits of those of the N * kWords elements at `positions` whose refinement is below the
// threshold.
template <int N>
inline void refine_batch(const MaskSpec& spec, const Schedule& k, std::uint64_t first_element,
                         const std::uint64_t* positions, std::uint64_t* above) {
    States<N> s;
    DROPWISE_UNROLL for (int j = 0; j < N; ++j) {
        const Words position = simd::load(positions + j * simd::kWords);
        s.c0[j] = simd::add(position, simd::broadcast(first_element));
        s.c1[j] = simd::high_half(s.c0[j]);
        s.c2[j] = simd::broadcast(k.stream_low);
        s.c3[j] = simd::broadcast(kRefineTag << 24 | k.stream_high);
    }
    Prefetch nothing(nullptr);
    run_rounds(s, k, 0, kRounds - 1, nothing);
    std::uint64_t swapped[N * simd::kWords];
    DROPWISE_UNROLL for (int j = 0; j < N; ++j) {
        const Words key = simd::broadcast(k.key0[kRounds - 1] << 32);
        simd::store(swapped + j * simd::kWords, last_round_first(s.c1[j], s.c2[j], key));
    }
    for (std::size_t t = 0; t < N * simd::kWords; ++t) {
        const std::uint64_t r = swapped[t] << 32 | swapped[t] >> 32;
        const std::uint64_t drop = r < spec.threshold_low;
        above[positions[t] / 64] &= ~(drop << positions[t] % 64);
    }
}

// The same for n positions, in a queue with room for whole batches.
void refine(const MaskSpec& spec, const Schedule& k, std::uint64_t first_element,
            std::uint64_t* positions, std::size_t n, std::uint64_t* above) {
    for (; n % kRefineBatch != 0; ++n) positions[n] = positions[0];
    std::size_t t = 0;
    for (; t + 2 * kRefineBatch <= n; t += 2 * kRefineBatch)
        refine_batch<4>(spec, k, first_element, positions + t, above);
    if (t != n) refine_batch<2>(spec, k, first_element, positions + t, above);
}

// Refines the tied elements of the first n_words words of a chunk.
void refine_ties(const MaskSpec& spec, const Schedule& k, std::uint64_t first_element,
                 std::uint64_t* above, const std::uint64_t* tied, std::size_t n_words) {
    std::uint64_t queue[kQueue];
    std::size_t queued = 0;
    for (std::size_t base = 0; base < n_words; base += 64) {
        // Every fifth word has a tie: a branch on each word would be mispredicted.
        const std::size_t count = n_words - base < 64 ? n_words - base : 64;
        std::uint64_t found = 0;
        for (std::size_t w = 0; w < count; w += simd::kWords)
            found |= simd::nonzero_lanes(simd::load(tied + base + w)) << w;
        for (found &= ~std::uint64_t{0} >> (64 - count); found != 0; found &= found - 1) {
            if (queued > kQueue - 64) {  // a word may add 64
                refine(spec, k, first_element, queue, queued, above);
                queued = 0;
            }
            const std::size_t w = base + simd::count_trailing_zeros(found);
            for (std::uint64_t word = tied[w]; word != 0; word &= word - 1)
                queue[queued++] = w * 64 + simd::count_trailing_zeros(word);
        }
    }
    if (queued != 0) refine(spec, k, first_element, queue, queued, above);
}

// Generates the words of n_groups groups from `group` on; overwrites the rest of the last block.
void compare_groups(const MaskSpec& spec, const Schedule& k, std::uint64_t group,
                    std::size_t n_groups, std::uint64_t* above, std::uint64_t* tied,
                    Meanwhile* meanwhile) {
    const std::size_t n_blocks = (n_groups + simd::kWords - 1) / simd::kWords;
    // Planes below the threshold's last set bit cannot change the comparison.
    const bool exact = spec.threshold_low == 0;
    if (exact && spec.threshold_high % 128 == 0)
        compare_planes<1>(spec, k, group, n_blocks, above, tied, meanwhile);
    else if (exact && spec.threshold_high % 64 == 0)
        compare_planes<2>(spec, k, group, n_blocks, above, tied, meanwhile);
    else if (exact && spec.threshold_high % 16 == 0)
        compare_planes<4>(spec, k, group, n_blocks, above, tied, meanwhile);
    else
        compare_planes<8>(spec, k, group, n_blocks, above, tied, meanwhile);
}

// The mask of the n <= kMaskChunk elements from `start` on, 1 = kept: element e is bit e % 64 of
// words[e / 64], with zeros after the last.  All kMaskWords words may be overwritten.
void mask_chunk(const MaskSpec& spec, std::uint64_t start, std::size_t n, std::uint64_t* words,
                Meanwhile* meanwhile) {
    const std::size_t n_words = (n + 63) / 64;
    const std::uint64_t group = start / kGroup;
    const std::size_t skip = start % kGroup;
    const bool all = spec.threshold_high >> kMaxPlanes;
    const bool none = (spec.threshold_high | spec.threshold_low) == 0;

    if (all || none) {
        for (std::size_t w = 0; w < n_words; ++w) words[w] = none ? ~std::uint64_t{0} : 0;
    } else {
        const Schedule schedule(spec);
        std::uint64_t tied[kMaskWords];
        const std::size_t n_groups = (skip + n + kGroup - 1) / kGroup;
        // The second counter word is constant in a call, so a carry into it starts another.
        const std::uint64_t to_carry = (std::uint64_t{1} << 32) - (group & 0xFFFFFFFF);
        const std::size_t before =
            to_carry < n_groups ? static_cast<std::size_t>(to_carry) : n_groups;
        compare_groups(spec, schedule, group, before, words, tied, meanwhile);
        if (before < n_groups) {
            const std::size_t w = before * kGroupWords;
            compare_groups(spec, schedule, group + before, n_groups - before, words + w, tied + w,
                           meanwhile);
        }
        if (spec.threshold_low != 0)
            refine_ties(spec, schedule, group * kGroup, words, tied, (skip + n + 63) / 64);

        const std::size_t w = skip / 64, bit = skip % 64;
        if (skip != 0)
            for (std::size_t i = 0; i < n_words; ++i)
                words[i] = words[i + w] >> bit | words[i + w + 1] << 1 << (63 - bit);
    }
    if (n % 64 != 0) words[n_words - 1] &= (std::uint64_t{1} << n % 64) - 1;
    advance(meanwhile, kMaskChunk);
}

}  // namespace mask
}  // namespace
