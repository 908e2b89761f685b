// The vector vocabulary on AVX2 with FMA, F16C and BMI.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

using Words = __m256i;
constexpr std::size_t kWords = 4;
constexpr int kInterleave = 2;

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
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    a = _mm256_shuffle_epi32(a, 0xB1);
    b = _mm256_shuffle_epi32(b, 0xB1);
    const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
    store(p, _mm256_permute2x128_si256(even, odd, 0x20));
    store(p + 4, _mm256_permute2x128_si256(even, odd, 0x31));
}

// ---- element access and masking: dropout -------------------------------------------------------

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

inline void fence_streams() {
    _mm_sfence();
}

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
