// The vector vocabulary on NEON (AArch64).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "simd/lanes.hpp"

namespace {
namespace simd {

// 64-bit lanes of words, for masks.

using Words = uint64x2_t;
constexpr std::size_t kWords = 2;

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
inline std::uint64_t nonzero_lanes(Words a) {
    return std::uint64_t{vgetq_lane_u64(a, 0) != 0} | std::uint64_t{vgetq_lane_u64(a, 1) != 0} << 1;
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    a = vreinterpretq_u64_u32(vrev64q_u32(vreinterpretq_u32_u64(a)));
    b = vreinterpretq_u64_u32(vrev64q_u32(vreinterpretq_u32_u64(b)));
    store(p, vzip1q_u64(a, b));
    store(p + 2, vzip2q_u64(a, b));
}

// Element access and masking, for elementwise kernels.

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

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.
template <class T>
struct Vec;

template <>
struct Vec<float> {
    using Reg = float32x4_t;
    static constexpr std::size_t kLanes = 4, kRegisters = 32;
    static constexpr std::size_t kSums = 4;  // registers that one call of sums() adds up

    static Reg zero() { return vdupq_n_f32(0.0f); }
    static Reg broadcast(const float* p) { return vld1q_dup_f32(p); }
    static Reg load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, Reg v) { vst1q_f32(p, v); }
    static Reg load_n(const float* p, std::size_t n) { return load_lanes<Vec>(p, n); }
    static void store_n(float* p, Reg v, std::size_t n) { store_lanes<Vec>(p, v, n); }
    static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
    static Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }

    // Bit l of the result: lane l is not zero (NaN counts), is NaN.
    static std::uint64_t nonzero(Reg v) { return bits(vmvnq_u32(vceqzq_f32(v))); }
    static std::uint64_t nan(Reg v) { return bits(vmvnq_u32(vceqq_f32(v, v))); }
    // +0.0 where v <= 0, else v: NaN stays.
    static Reg relu(Reg v) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vclezq_f32(v)));
    }
    // Lanes whose bit is 0 become +0.0.
    static Reg keep(std::uint64_t bits, Reg v) {
        const std::uint32_t lane[4] = {1, 2, 4, 8};
        const uint32x4_t set =
            vtstq_u32(vdupq_n_u32(static_cast<std::uint32_t>(bits)), vld1q_u32(lane));
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), set));
    }

    // Lane l is the next of from[] where bit l is 1, else +0.0; from[] has at least kLanes
    // elements.
    static Reg expand(std::uint64_t bits, const float* from) {
        return expand_lanes<Vec>(bits, from);
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, float* to) { compress_lanes<Vec>(bits, v, to); }

    static void transpose(Reg (&r)[kLanes]) {
        const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
        const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
        const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
        const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
        r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
        r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
        r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
        r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
    }

    // out[i] += the sum of the lanes of r[i].
    static void sums(const Reg (&r)[kSums], float* out) {
        const Reg sum = vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3]));
        store(out, add(load(out), sum));
    }

  private:
    static std::uint64_t bits(uint32x4_t mask) {
        const std::uint32_t lane[4] = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(mask, vld1q_u32(lane)));
    }
};

template <>
struct Vec<double> {
    using Reg = float64x2_t;
    static constexpr std::size_t kLanes = 2, kRegisters = 32;
    static constexpr std::size_t kSums = 2;

    static Reg zero() { return vdupq_n_f64(0.0); }
    static Reg broadcast(const double* p) { return vld1q_dup_f64(p); }
    static Reg load(const double* p) { return vld1q_f64(p); }
    static void store(double* p, Reg v) { vst1q_f64(p, v); }
    static Reg load_n(const double* p, std::size_t n) {
        if (n >= 2) return load(p);
        return n == 1 ? vsetq_lane_f64(*p, zero(), 0) : zero();
    }
    static void store_n(double* p, Reg v, std::size_t n) {
        if (n >= 2) return store(p, v);
        if (n == 1) *p = vgetq_lane_f64(v, 0);
    }
    static Reg add(Reg a, Reg b) { return vaddq_f64(a, b); }
    static Reg mul(Reg a, Reg b) { return vmulq_f64(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f64(c, a, b); }

    static std::uint64_t nonzero(Reg v) { return ~bits(vceqzq_f64(v)) & 3; }
    static std::uint64_t nan(Reg v) { return ~bits(vceqq_f64(v, v)) & 3; }
    static Reg relu(Reg v) {
        return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(v), vclezq_f64(v)));
    }
    static Reg keep(std::uint64_t bits, Reg v) {
        const std::uint64_t lane[2] = {1, 2};
        const uint64x2_t set = vtstq_u64(vdupq_n_u64(bits), vld1q_u64(lane));
        return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(v), set));
    }

    static Reg expand(std::uint64_t bits, const double* from) {
        return expand_lanes<Vec>(bits, from);
    }
    static void compress(std::uint64_t bits, Reg v, double* to) {
        compress_lanes<Vec>(bits, v, to);
    }

    static void transpose(Reg (&r)[kLanes]) {
        const Reg a = r[0];
        r[0] = vtrn1q_f64(a, r[1]);
        r[1] = vtrn2q_f64(a, r[1]);
    }

    static void sums(const Reg (&r)[kSums], double* out) {
        store(out, add(load(out), vpaddq_f64(r[0], r[1])));
    }

  private:
    static std::uint64_t bits(uint64x2_t mask) {
        return (vgetq_lane_u64(mask, 0) & 1) | (vgetq_lane_u64(mask, 1) & 2);
    }
};

inline int trailing_zeros(std::uint64_t w) {
    return w == 0 ? 64 : __builtin_ctzll(w);
}
inline int popcount(std::uint64_t w) {
    return __builtin_popcountll(w);
}
inline void prefetch(const void* p) {
    __builtin_prefetch(p);
}

}  // namespace simd
}  // namespace
