// The vector vocabulary on AVX-512 (F, BW, DQ, VL, CD).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

using Words = __m512i;
constexpr std::size_t kWords = 8;
constexpr int kInterleave = 8;  // planes in flight: spills cost less than waiting for multiplies

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
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    const __m512i first = _mm512_setr_epi32(1, 0, 17, 16, 3, 2, 19, 18, 5, 4, 21, 20, 7, 6, 23, 22);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    _mm512_storeu_si512(p, _mm512_permutex2var_epi32(a, first, b));
    _mm512_storeu_si512(p + 8, _mm512_permutex2var_epi32(a, second, b));
}

// ---- element access and masking: dropout -------------------------------------------------------

// GCC folds load, multiply and zero-masking into one masked multiply from memory, whose masked load
// the hardware prefetcher does not follow: half the speed once the arrays leave the cache.
#if defined(__GNUC__)
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

#undef DROPWISE_KEEP_APART

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

inline void fence_streams() {
    _mm_sfence();
}

// ---- floating point: products ------------------------------------------------------------------

}  // namespace simd
}  // namespace
