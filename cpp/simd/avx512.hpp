// The vector vocabulary on AVX-512 (F, BW, DQ, VL, CD).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd/bmi.hpp"

namespace {
namespace simd {

// 64-bit lanes of words, for masks.

using Words = __m512i;
constexpr std::size_t kWords = 8;

inline Words broadcast(std::uint64_t v) {
    return _mm512_set1_epi64(static_cast<long long>(v));
}
inline Words lane_numbers() {
    return _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
}
inline Words load(const std::uint64_t* p) {
    return _mm512_loadu_si512(p);
}
inline void store(std::uint64_t* p, Words v) {
    _mm512_storeu_si512(p, v);
}
inline Words add(Words a, Words b) {
    return _mm512_add_epi64(a, b);
}
inline Words multiply_low(Words a, Words b) {
    return _mm512_mul_epu32(a, b);
}
inline Words high_half(Words a) {
    return _mm512_srli_epi64(a, 32);
}
inline Words low_to_high(Words a) {
    return _mm512_slli_epi64(a, 32);
}
inline Words bit_and(Words a, Words b) {
    return _mm512_and_si512(a, b);
}
inline Words bit_xor(Words a, Words b) {
    return _mm512_xor_si512(a, b);
}
inline Words bit_xor(Words a, Words b, Words c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}
inline Words bit_select(Words where, Words a, Words b) {
    return _mm512_ternarylogic_epi64(where, a, b, 0xCA);
}
inline std::uint64_t nonzero_lanes(Words a) {
    return _mm512_test_epi64_mask(a, a);
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    const __m512i first = _mm512_setr_epi32(1, 0, 17, 16, 3, 2, 19, 18, 5, 4, 21, 20, 7, 6, 23, 22);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    _mm512_storeu_si512(p, _mm512_permutex2var_epi32(a, first, b));
    _mm512_storeu_si512(p + 8, _mm512_permutex2var_epi32(a, second, b));
}

// Element access and masking, for elementwise kernels.

// GCC folds load, multiply and zero-masking into one masked multiply from memory.  The hardware
// does not prefetch masked loads: half the speed once the arrays leave the cache.  It also folds a
// load that two multiplies share into both.
#if defined(__GNUC__) || defined(__clang__)
#define DROPWISE_KEEP_APART(v) __asm__("" : "+v"(v))
#else
#define DROPWISE_KEEP_APART(v) static_cast<void>(0)
#endif

struct F32 {
    using Element = float;
    using Vec = __m512;
    using Scale = __m512;
    static constexpr std::size_t kLanes = 16;
    static Scale scale(double s) { return _mm512_set1_ps(static_cast<float>(s)); }
    static Vec load(const Element* p) { return _mm512_loadu_ps(p); }
    static void store(Element* p, Vec v) { _mm512_storeu_ps(p, v); }
    static void stream(Element* p, Vec v) { _mm512_stream_ps(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm512_mul_ps(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        DROPWISE_KEEP_APART(v);
        return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v);
    }
    static std::uint64_t positive(Vec v) {
        return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NLE_UQ);
    }
    static std::uint64_t nonzero(Vec v) {
        return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    }
};

struct F64 {
    using Element = double;
    using Vec = __m512d;
    using Scale = __m512d;
    static constexpr std::size_t kLanes = 8;
    static Scale scale(double s) { return _mm512_set1_pd(s); }
    static Vec load(const Element* p) { return _mm512_loadu_pd(p); }
    static void store(Element* p, Vec v) { _mm512_storeu_pd(p, v); }
    static void stream(Element* p, Vec v) { _mm512_stream_pd(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm512_mul_pd(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        DROPWISE_KEEP_APART(v);
        return _mm512_maskz_mov_pd(static_cast<__mmask8>(bits), v);
    }
    static std::uint64_t positive(Vec v) {
        return _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NLE_UQ);
    }
    static std::uint64_t nonzero(Vec v) {
        return _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
    }
};

struct F16Format {
    static constexpr short kMinusInf = static_cast<short>(0xFC00);
    static __m512 widen(__m256i v) { return _mm512_cvtph_ps(v); }
    static __m256i narrow(__m512 v) {
        return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
};

struct BF16Format {
    static constexpr short kMinusInf = static_cast<short>(0xFF80);
    static __m512 widen(__m256i v) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
    }
    static __m256i narrow(__m512 v) {
        const __m512i u = _mm512_castps_si512(v);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        const __m512i rounded =
            _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        const __m512i result = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x00400000));
        return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
    }
};

template <class Format>
struct Half {
    using Element = std::uint16_t;
    using Vec = __m256i;
    using Scale = __m512;
    static constexpr std::size_t kLanes = 16;
    static Scale scale(double s) { return F32::scale(s); }
    static Vec load(const Element* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static void store(Element* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    static void stream(Element* p, Vec v) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), v); }
    static Vec multiply(Vec v, Scale s) {
        return Format::narrow(_mm512_mul_ps(Format::widen(v), s));
    }
    static Vec keep(Vec v, std::uint64_t bits) {
        return _mm256_maskz_mov_epi16(static_cast<__mmask16>(bits), v);
    }
    static std::uint64_t positive(Vec v) {
        return _mm256_cmpgt_epi16_mask(v, _mm256_set1_epi16(Format::kMinusInf)) &
               _mm256_test_epi16_mask(v, v);
    }
    static std::uint64_t nonzero(Vec v) {
        return _mm256_test_epi16_mask(v, _mm256_set1_epi16(0x7FFF));
    }
};
using F16 = Half<F16Format>;
using BF16 = Half<BF16Format>;

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.
template <class T>
struct Vec;

template <>
struct Vec<float> {
    using Reg = __m512;
    static constexpr std::size_t kLanes = 16, kRegisters = 32;
    static constexpr std::size_t kSums = 8;  // registers that one call of sums() adds up

    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
    static Reg load_n(const float* p, std::size_t n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
    static void store_n(float* p, Reg v, std::size_t n) { _mm512_mask_storeu_ps(p, lanes(n), v); }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }

    // Bit l of the result: lane l is not zero (NaN counts), is NaN.
    static std::uint64_t nonzero(Reg v) { return _mm512_cmp_ps_mask(v, zero(), _CMP_NEQ_UQ); }
    static std::uint64_t nan(Reg v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q); }
    // +0.0 where v <= 0, else v: NaN stays.
    static Reg relu(Reg v) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, zero(), _CMP_NLE_UQ), v);
    }
    // Lanes whose bit is 0 become +0.0.
    static Reg keep(std::uint64_t bits, Reg v) {
        return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v);
    }

    // Lane l is the next of from[] where bit l is 1, else +0.0; from[] has at least kLanes
    // elements.
    static Reg expand(std::uint64_t bits, const float* from) {
        return _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), load(from));
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, float* to) {
        // In a register: compressing to memory takes more than a hundred cycles on some CPUs.
        store(to, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), v));
    }

    static void transpose(Reg (&r)[kLanes]) {
        __m512d d[16];
        for (int i = 0; i < 16; i += 2) {
            d[i] = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
            d[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        }
        for (int i = 0; i < 16; i += 4) {
            r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(d[i], d[i + 2]));
            r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(d[i], d[i + 2]));
            r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(d[i + 1], d[i + 3]));
            r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(d[i + 1], d[i + 3]));
        }
        Reg e[16];
        for (int i = 0; i < 4; ++i) {
            e[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
            e[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
            e[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
            e[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        }
        for (int i = 0; i < 8; ++i) {
            r[i] = _mm512_shuffle_f32x4(e[i], e[i + 8], 0x88);
            r[i + 8] = _mm512_shuffle_f32x4(e[i], e[i + 8], 0xdd);
        }
    }

    // out[i] += the sum of the lanes of r[i].
    static void sums(const Reg (&r)[kSums], float* out) {
        Reg a[4], b[2];
        for (int i = 0; i < 4; ++i)
            a[i] = add(_mm512_unpacklo_ps(r[i], r[i + 4]), _mm512_unpackhi_ps(r[i], r[i + 4]));
        for (int i = 0; i < 2; ++i)
            b[i] = add(_mm512_unpacklo_ps(a[i], a[i + 2]), _mm512_unpackhi_ps(a[i], a[i + 2]));
        // Each 128-bit part of b[i] holds sums of r[i], r[i + 2], r[i + 4], r[i + 6].
        const Reg c =
            add(_mm512_shuffle_f32x4(b[0], b[1], 0x44), _mm512_shuffle_f32x4(b[0], b[1], 0xee));
        const __m256 lo = _mm512_castps512_ps256(c);
        const __m256 hi = _mm512_extractf32x8_ps(c, 1);
        const __m256 even = _mm256_add_ps(lo, _mm256_permute2f128_ps(lo, lo, 1));
        const __m256 odd = _mm256_add_ps(hi, _mm256_permute2f128_ps(hi, hi, 1));
        const __m256 sum = _mm256_permutevar8x32_ps(_mm256_blend_ps(even, odd, 0xf0),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sum));
    }

  private:
    static __mmask16 lanes(std::size_t n) { return static_cast<__mmask16>((1u << n) - 1); }
};

template <>
struct Vec<double> {
    using Reg = __m512d;
    static constexpr std::size_t kLanes = 8, kRegisters = 32;
    static constexpr std::size_t kSums = 8;

    static Reg zero() { return _mm512_setzero_pd(); }
    static Reg broadcast(const double* p) { return _mm512_set1_pd(*p); }
    static Reg load(const double* p) { return _mm512_loadu_pd(p); }
    static void store(double* p, Reg v) { _mm512_storeu_pd(p, v); }
    static Reg load_n(const double* p, std::size_t n) { return _mm512_maskz_loadu_pd(lanes(n), p); }
    static void store_n(double* p, Reg v, std::size_t n) { _mm512_mask_storeu_pd(p, lanes(n), v); }
    static Reg add(Reg a, Reg b) { return _mm512_add_pd(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm512_mul_pd(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_pd(a, b, c); }

    static std::uint64_t nonzero(Reg v) { return _mm512_cmp_pd_mask(v, zero(), _CMP_NEQ_UQ); }
    static std::uint64_t nan(Reg v) { return _mm512_cmp_pd_mask(v, v, _CMP_UNORD_Q); }
    static Reg relu(Reg v) {
        return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(v, zero(), _CMP_NLE_UQ), v);
    }
    static Reg keep(std::uint64_t bits, Reg v) {
        return _mm512_maskz_mov_pd(static_cast<__mmask8>(bits), v);
    }

    static Reg expand(std::uint64_t bits, const double* from) {
        return _mm512_maskz_expand_pd(static_cast<__mmask8>(bits), load(from));
    }
    static void compress(std::uint64_t bits, Reg v, double* to) {
        store(to, _mm512_maskz_compress_pd(static_cast<__mmask8>(bits), v));
    }

    static void transpose(Reg (&r)[kLanes]) {
        Reg d[8], e[8];
        for (int i = 0; i < 8; i += 2) {
            d[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
            d[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            e[i] = _mm512_shuffle_f64x2(d[i], d[i + 2], 0x88);
            e[i + 2] = _mm512_shuffle_f64x2(d[i], d[i + 2], 0xdd);
            e[i + 4] = _mm512_shuffle_f64x2(d[i + 4], d[i + 6], 0x88);
            e[i + 6] = _mm512_shuffle_f64x2(d[i + 4], d[i + 6], 0xdd);
        }
        for (int i = 0; i < 4; ++i) {
            r[i] = _mm512_shuffle_f64x2(e[i], e[i + 4], 0x88);
            r[i + 4] = _mm512_shuffle_f64x2(e[i], e[i + 4], 0xdd);
        }
    }

    static void sums(const Reg (&r)[kSums], double* out) {
        Reg a[4];
        for (int i = 0; i < 4; ++i)
            a[i] = add(_mm512_unpacklo_pd(r[2 * i], r[2 * i + 1]),
                       _mm512_unpackhi_pd(r[2 * i], r[2 * i + 1]));
        // Each 128-bit part of a[i] holds sums of r[2 i] and r[2 i + 1].
        const Reg b =
            add(_mm512_shuffle_f64x2(a[0], a[1], 0x88), _mm512_shuffle_f64x2(a[0], a[1], 0xdd));
        const Reg c =
            add(_mm512_shuffle_f64x2(a[2], a[3], 0x88), _mm512_shuffle_f64x2(a[2], a[3], 0xdd));
        const Reg d = add(_mm512_shuffle_f64x2(b, c, 0x88), _mm512_shuffle_f64x2(b, c, 0xdd));
        store(out, add(load(out), d));
    }

  private:
    static __mmask8 lanes(std::size_t n) { return static_cast<__mmask8>((1u << n) - 1); }
};

}  // namespace simd
}  // namespace
