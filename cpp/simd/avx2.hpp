// The vector vocabulary on AVX2 with FMA, F16C and BMI.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd/bmi.hpp"

namespace {
namespace simd {

// 64-bit lanes of words, for masks.

using Words = __m256i;
constexpr std::size_t kWords = 4;

inline Words broadcast(std::uint64_t v) {
    return _mm256_set1_epi64x(static_cast<long long>(v));
}
inline Words lane_numbers() {
    return _mm256_setr_epi64x(0, 1, 2, 3);
}
inline Words load(const std::uint64_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store(std::uint64_t* p, Words v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
inline Words add(Words a, Words b) {
    return _mm256_add_epi64(a, b);
}
inline Words multiply_low(Words a, Words b) {
    return _mm256_mul_epu32(a, b);
}
inline Words high_half(Words a) {
    return _mm256_srli_epi64(a, 32);
}
inline Words low_to_high(Words a) {
    return _mm256_slli_epi64(a, 32);
}
inline Words bit_and(Words a, Words b) {
    return _mm256_and_si256(a, b);
}
inline Words bit_xor(Words a, Words b) {
    return _mm256_xor_si256(a, b);
}
inline Words bit_xor(Words a, Words b, Words c) {
    return bit_xor(bit_xor(a, b), c);
}
inline Words bit_select(Words where, Words a, Words b) {
    return _mm256_or_si256(_mm256_and_si256(where, a), _mm256_andnot_si256(where, b));
}
inline std::uint64_t nonzero_lanes(Words a) {
    const __m256i zero = _mm256_cmpeq_epi64(a, _mm256_setzero_si256());
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(zero))) ^ 0xF;
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    a = _mm256_shuffle_epi32(a, 0xB1);
    b = _mm256_shuffle_epi32(b, 0xB1);
    const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
    store(p, _mm256_permute2x128_si256(even, odd, 0x20));
    store(p + 4, _mm256_permute2x128_si256(even, odd, 0x31));
}

// Element access and masking, for elementwise kernels.

struct F32 {
    using Element = float;
    using Vec = __m256;
    using Scale = __m256;
    static constexpr std::size_t kLanes = 8;
    static Scale scale(double s) { return _mm256_set1_ps(static_cast<float>(s)); }
    static Vec load(const Element* p) { return _mm256_loadu_ps(p); }
    static void store(Element* p, Vec v) { _mm256_storeu_ps(p, v); }
    static void stream(Element* p, Vec v) { _mm256_stream_ps(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm256_mul_ps(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const __m256i spread = _mm256_set1_epi32(static_cast<int>(bits));
        const __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(spread, lane), lane);
        return _mm256_and_ps(v, _mm256_castsi256_ps(kept));
    }
    static std::uint64_t positive(Vec v) {
        return static_cast<unsigned>(
            _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NLE_UQ)));
    }
    static std::uint64_t nonzero(Vec v) {
        return static_cast<unsigned>(
            _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
    }
};

struct F64 {
    using Element = double;
    using Vec = __m256d;
    using Scale = __m256d;
    static constexpr std::size_t kLanes = 4;
    static Scale scale(double s) { return _mm256_set1_pd(s); }
    static Vec load(const Element* p) { return _mm256_loadu_pd(p); }
    static void store(Element* p, Vec v) { _mm256_storeu_pd(p, v); }
    static void stream(Element* p, Vec v) { _mm256_stream_pd(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm256_mul_pd(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
        const __m256i spread = _mm256_set1_epi64x(static_cast<long long>(bits));
        const __m256i kept = _mm256_cmpeq_epi64(_mm256_and_si256(spread, lane), lane);
        return _mm256_and_pd(v, _mm256_castsi256_pd(kept));
    }
    static std::uint64_t positive(Vec v) {
        return static_cast<unsigned>(
            _mm256_movemask_pd(_mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_NLE_UQ)));
    }
    static std::uint64_t nonzero(Vec v) {
        return static_cast<unsigned>(
            _mm256_movemask_pd(_mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_NEQ_UQ)));
    }
};

struct F16Format {
    static constexpr short kMinusInf = static_cast<short>(0xFC00);
    static __m256 widen(__m128i v) { return _mm256_cvtph_ps(v); }
    static __m128i narrow(__m256 v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
};

struct BF16Format {
    static constexpr short kMinusInf = static_cast<short>(0xFF80);
    static __m256 widen(__m128i v) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
    }
    static __m128i narrow(__m256 v) {
        const __m256i u = _mm256_castps_si256(v);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        const __m256i rounded =
            _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x00400000));
        const __m256 result =
            _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet),
                             _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(result), 16);
        return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    }
};

template <class Format>
struct Half {
    using Element = std::uint16_t;
    using Vec = __m128i;
    using Scale = __m256;
    static constexpr std::size_t kLanes = 8;
    static Scale scale(double s) { return F32::scale(s); }
    static Vec load(const Element* p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    }
    static void store(Element* p, Vec v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
    static void stream(Element* p, Vec v) { _mm_stream_si128(reinterpret_cast<__m128i*>(p), v); }
    static Vec multiply(Vec v, Scale s) {
        return Format::narrow(_mm256_mul_ps(Format::widen(v), s));
    }
    static Vec keep(Vec v, std::uint64_t bits) {
        const __m128i lane = _mm_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128);
        const __m128i spread = _mm_set1_epi16(static_cast<short>(bits));
        return _mm_and_si128(v, _mm_cmpeq_epi16(_mm_and_si128(spread, lane), lane));
    }
    static std::uint64_t positive(Vec v) {
        const __m128i above = _mm_cmpgt_epi16(v, _mm_set1_epi16(Format::kMinusInf));
        return to_bits(_mm_andnot_si128(_mm_cmpeq_epi16(v, _mm_setzero_si128()), above));
    }
    static std::uint64_t nonzero(Vec v) {
        const __m128i zero = _mm_cmpeq_epi16(_mm_add_epi16(v, v), _mm_setzero_si128());
        return to_bits(zero) ^ 0xFF;
    }

  private:
    static std::uint64_t to_bits(__m128i lanes) {
        return static_cast<unsigned>(
            _mm_movemask_epi8(_mm_packs_epi16(lanes, _mm_setzero_si128())));
    }
};
using F16 = Half<F16Format>;
using BF16 = Half<BF16Format>;

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.
template <class T>
struct Vec;

// Element kCount - n + l is all ones where l < n: a sliding window over it is the mask of n lanes.
alignas(64) constexpr std::int32_t kLaneWindow[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                      0,  0,  0,  0,  0,  0,  0,  0};

template <>
struct Vec<float> {
    using Reg = __m256;
    static constexpr std::size_t kLanes = 8, kRegisters = 16;
    static constexpr std::size_t kSums = 8;  // registers that one call of sums() adds up

    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static Reg load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
    static Reg load_n(const float* p, std::size_t n) { return _mm256_maskload_ps(p, lanes(n)); }
    static void store_n(float* p, Reg v, std::size_t n) {
        // Not a masked store: those take tens of cycles on some CPUs.
        __m128 part = _mm256_castps256_ps128(v);
        if (n & 8) return store(p, v);
        if (n & 4) {
            _mm_storeu_ps(p, part);
            part = _mm256_extractf128_ps(v, 1);
            p += 4;
        }
        if (n & 2) {
            _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
            part = _mm_movehl_ps(part, part);
            p += 2;
        }
        if (n & 1) _mm_store_ss(p, part);
    }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }

    // Bit l of the result: lane l is not zero (NaN counts), is NaN.
    static std::uint64_t nonzero(Reg v) { return bits(_mm256_cmp_ps(v, zero(), _CMP_NEQ_UQ)); }
    static std::uint64_t nan(Reg v) { return bits(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)); }
    // +0.0 where v <= 0, else v: NaN stays.
    static Reg relu(Reg v) { return _mm256_and_ps(v, _mm256_cmp_ps(v, zero(), _CMP_NLE_UQ)); }
    // Lanes whose bit is 0 become +0.0.
    static Reg keep(std::uint64_t bits, Reg v) {
        const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
        return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)));
    }

    // Lane l is the next of from[] where bit l is 1, else +0.0; from[] has at least kLanes
    // elements.
    static Reg expand(std::uint64_t bits, const float* from) {
        const std::uint64_t lanes = _pdep_u64(bits, 0x0101010101010101) * 0xff;
        const std::uint64_t index = _pdep_u64(0x0706050403020100, lanes);
        const __m256i source =
            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(index)));
        return keep(bits, _mm256_permutevar8x32_ps(load(from), source));
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, float* to) {
        const std::uint64_t lanes = _pdep_u64(bits, 0x0101010101010101) * 0xff;
        const std::uint64_t index = _pext_u64(0x0706050403020100, lanes);
        store(to, _mm256_permutevar8x32_ps(
                      v, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(index)))));
    }

    static void transpose(Reg (&r)[kLanes]) {
        Reg d[8], e[8];
        for (int i = 0; i < 8; i += 2) {
            d[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            d[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            e[i] = _mm256_shuffle_ps(d[i], d[i + 2], 0x44);
            e[i + 1] = _mm256_shuffle_ps(d[i], d[i + 2], 0xee);
            e[i + 2] = _mm256_shuffle_ps(d[i + 1], d[i + 3], 0x44);
            e[i + 3] = _mm256_shuffle_ps(d[i + 1], d[i + 3], 0xee);
        }
        for (int i = 0; i < 4; ++i) {
            r[i] = _mm256_permute2f128_ps(e[i], e[i + 4], 0x20);
            r[i + 4] = _mm256_permute2f128_ps(e[i], e[i + 4], 0x31);
        }
    }

    // out[i] += the sum of the lanes of r[i].
    static void sums(const Reg (&r)[kSums], float* out) {
        Reg a[4], b[2];
        for (int i = 0; i < 4; ++i)
            a[i] = add(_mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]),
                       _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]));
        for (int i = 0; i < 2; ++i)
            b[i] = add(_mm256_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44),
                       _mm256_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
        // Each 128-bit part of b[i] holds sums of r[4 i] to r[4 i + 3].
        const Reg sum =
            add(_mm256_permute2f128_ps(b[0], b[1], 0x20), _mm256_permute2f128_ps(b[0], b[1], 0x31));
        store(out, add(load(out), sum));
    }

  private:
    static __m256i lanes(std::size_t n) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneWindow + 8 - n));
    }
    static std::uint64_t bits(Reg mask) {
        return static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(mask)));
    }
};

template <>
struct Vec<double> {
    using Reg = __m256d;
    static constexpr std::size_t kLanes = 4, kRegisters = 16;
    static constexpr std::size_t kSums = 4;

    static Reg zero() { return _mm256_setzero_pd(); }
    static Reg broadcast(const double* p) { return _mm256_broadcast_sd(p); }
    static Reg load(const double* p) { return _mm256_loadu_pd(p); }
    static void store(double* p, Reg v) { _mm256_storeu_pd(p, v); }
    static Reg load_n(const double* p, std::size_t n) { return _mm256_maskload_pd(p, lanes(n)); }
    static void store_n(double* p, Reg v, std::size_t n) {
        __m128d part = _mm256_castpd256_pd128(v);
        if (n & 4) return store(p, v);
        if (n & 2) {
            _mm_storeu_pd(p, part);
            part = _mm256_extractf128_pd(v, 1);
            p += 2;
        }
        if (n & 1) _mm_store_sd(p, part);
    }
    static Reg add(Reg a, Reg b) { return _mm256_add_pd(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm256_mul_pd(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_pd(a, b, c); }

    static std::uint64_t nonzero(Reg v) { return bits(_mm256_cmp_pd(v, zero(), _CMP_NEQ_UQ)); }
    static std::uint64_t nan(Reg v) { return bits(_mm256_cmp_pd(v, v, _CMP_UNORD_Q)); }
    static Reg relu(Reg v) { return _mm256_and_pd(v, _mm256_cmp_pd(v, zero(), _CMP_NLE_UQ)); }
    static Reg keep(std::uint64_t bits, Reg v) {
        const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
        const __m256i set =
            _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(bits)), lane);
        return _mm256_and_pd(v, _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, lane)));
    }

    static Reg expand(std::uint64_t bits, const double* from) {
        const std::uint64_t lanes = _pdep_u64(bits, 0x0001000100010001) * 0xffff;
        const std::uint64_t index = _pdep_u64(0x0706050403020100, lanes);  // of halves
        const __m256i source =
            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(index)));
        return keep(
            bits, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(load(from)), source)));
    }
    static void compress(std::uint64_t bits, Reg v, double* to) {
        const std::uint64_t lanes = _pdep_u64(bits, 0x0001000100010001) * 0xffff;
        const std::uint64_t index = _pext_u64(0x0706050403020100, lanes);  // of halves
        const __m256i source =
            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(index)));
        store(to, _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v), source)));
    }

    static void transpose(Reg (&r)[kLanes]) {
        Reg d[4];
        for (int i = 0; i < 4; i += 2) {
            d[i] = _mm256_unpacklo_pd(r[i], r[i + 1]);
            d[i + 1] = _mm256_unpackhi_pd(r[i], r[i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            r[i] = _mm256_permute2f128_pd(d[i], d[i + 2], 0x20);
            r[i + 2] = _mm256_permute2f128_pd(d[i], d[i + 2], 0x31);
        }
    }

    static void sums(const Reg (&r)[kSums], double* out) {
        const Reg a = add(_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
        const Reg b = add(_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
        const Reg sum = add(_mm256_permute2f128_pd(a, b, 0x20), _mm256_permute2f128_pd(a, b, 0x31));
        store(out, add(load(out), sum));
    }

  private:
    static __m256i lanes(std::size_t n) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneWindow + 8 - 2 * n));
    }
    static std::uint64_t bits(Reg mask) {
        return static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_pd(mask)));
    }
};

}  // namespace simd
}  // namespace
