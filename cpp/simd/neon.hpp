// The vector vocabulary on NEON (AArch64).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

using Words = uint64x2_t;
constexpr std::size_t kWords = 2;
constexpr int kInterleave = 4;

inline Words broadcast(std::uint64_t v) {
    return vdupq_n_u64(v);
}
inline Words lane_numbers() {
    return vcombine_u64(vcreate_u64(0), vcreate_u64(1));
}
inline Words load(const std::uint64_t* p) {
    return vld1q_u64(p);
}
inline void store(std::uint64_t* p, Words v) {
    vst1q_u64(p, v);
}
inline Words add(Words a, Words b) {
    return vaddq_u64(a, b);
}
inline Words multiply_low(Words a, Words b) {
    return vmull_u32(vmovn_u64(a), vmovn_u64(b));
}
inline Words high_half(Words a) {
    return vshrq_n_u64(a, 32);
}
inline Words low_to_high(Words a) {
    return vshlq_n_u64(a, 32);
}
inline Words bit_and(Words a, Words b) {
    return vandq_u64(a, b);
}
inline Words bit_xor(Words a, Words b) {
    return veorq_u64(a, b);
}
inline Words bit_xor(Words a, Words b, Words c) {
    return bit_xor(bit_xor(a, b), c);
}
inline Words bit_select(Words where, Words a, Words b) {
    return vbslq_u64(where, a, b);
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    a = vreinterpretq_u64_u32(vrev64q_u32(vreinterpretq_u32_u64(a)));
    b = vreinterpretq_u64_u32(vrev64q_u32(vreinterpretq_u32_u64(b)));
    store(p, vzip1q_u64(a, b));
    store(p + 2, vzip2q_u64(a, b));
}

// ---- element access and masking: dropout -------------------------------------------------------

constexpr std::uint64_t kLaneBits64[2] = {1, 2};
constexpr std::uint32_t kLaneBits32[4] = {1, 2, 4, 8};
constexpr std::uint16_t kLaneBits16[4] = {1, 2, 4, 8};

struct F32 {
    using Element = float;
    using Vec = float32x4_t;
    using Scale = float32x4_t;
    static constexpr std::size_t kLanes = 4;
    static Scale scale(double s) { return vdupq_n_f32(static_cast<float>(s)); }
    static Vec load(const Element* p) { return vld1q_f32(p); }
    static void store(Element* p, Vec v) { vst1q_f32(p, v); }
    static void stream(Element* p, Vec v) { store(p, v); }
    static Vec multiply(Vec v, Scale s) { return vmulq_f32(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const uint32x4_t kept =
            vtstq_u32(vdupq_n_u32(static_cast<std::uint32_t>(bits)), vld1q_u32(kLaneBits32));
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), kept));
    }
    static std::uint64_t positive(Vec v) { return to_bits(vcleq_f32(v, vdupq_n_f32(0))) ^ 0xF; }
    static std::uint64_t nonzero(Vec v) { return to_bits(vceqq_f32(v, vdupq_n_f32(0))) ^ 0xF; }

  private:
    static std::uint64_t to_bits(uint32x4_t lanes) {
        return vaddvq_u32(vandq_u32(lanes, vld1q_u32(kLaneBits32)));
    }
};

struct F64 {
    using Element = double;
    using Vec = float64x2_t;
    using Scale = float64x2_t;
    static constexpr std::size_t kLanes = 2;
    static Scale scale(double s) { return vdupq_n_f64(s); }
    static Vec load(const Element* p) { return vld1q_f64(p); }
    static void store(Element* p, Vec v) { vst1q_f64(p, v); }
    static void stream(Element* p, Vec v) { store(p, v); }
    static Vec multiply(Vec v, Scale s) { return vmulq_f64(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const uint64x2_t kept = vtstq_u64(vdupq_n_u64(bits), vld1q_u64(kLaneBits64));
        return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(v), kept));
    }
    static std::uint64_t positive(Vec v) { return to_bits(vcleq_f64(v, vdupq_n_f64(0))) ^ 3; }
    static std::uint64_t nonzero(Vec v) { return to_bits(vceqq_f64(v, vdupq_n_f64(0))) ^ 3; }

  private:
    static std::uint64_t to_bits(uint64x2_t lanes) {
        return vaddvq_u64(vandq_u64(lanes, vld1q_u64(kLaneBits64)));
    }
};

struct F16Format {
    static constexpr std::int16_t kMinusInf = static_cast<std::int16_t>(0xFC00);
    static float32x4_t widen(uint16x4_t v) { return vcvt_f32_f16(vreinterpret_f16_u16(v)); }
    static uint16x4_t narrow(float32x4_t v) { return vreinterpret_u16_f16(vcvt_f16_f32(v)); }
};

struct BF16Format {
    static constexpr std::int16_t kMinusInf = static_cast<std::int16_t>(0xFF80);
    static float32x4_t widen(uint16x4_t v) { return vreinterpretq_f32_u32(vshll_n_u16(v, 16)); }
    static uint16x4_t narrow(float32x4_t v) {
        const uint32x4_t u = vreinterpretq_u32_f32(v);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
        const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x00400000));
        return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
    }
};

template <class Format>
struct Half {
    using Element = std::uint16_t;
    using Vec = uint16x4_t;
    using Scale = float32x4_t;
    static constexpr std::size_t kLanes = 4;
    static Scale scale(double s) { return F32::scale(s); }
    static Vec load(const Element* p) { return vld1_u16(p); }
    static void store(Element* p, Vec v) { vst1_u16(p, v); }
    static void stream(Element* p, Vec v) { store(p, v); }
    static Vec multiply(Vec v, Scale s) { return Format::narrow(vmulq_f32(Format::widen(v), s)); }
    static Vec keep(Vec v, std::uint64_t bits) {
        return vand_u16(
            v, vtst_u16(vdup_n_u16(static_cast<std::uint16_t>(bits)), vld1_u16(kLaneBits16)));
    }
    static std::uint64_t positive(Vec v) {
        return to_bits(vand_u16(vcgt_s16(vreinterpret_s16_u16(v), vdup_n_s16(Format::kMinusInf)),
                                vtst_u16(v, v)));
    }
    static std::uint64_t nonzero(Vec v) { return to_bits(vtst_u16(v, vdup_n_u16(0x7FFF))); }

  private:
    static std::uint64_t to_bits(uint16x4_t lanes) {
        return vaddv_u16(vand_u16(lanes, vld1_u16(kLaneBits16)));
    }
};
using F16 = Half<F16Format>;
using BF16 = Half<BF16Format>;

inline void fence_streams() {}

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
