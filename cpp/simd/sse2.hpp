// The portable set on x86-64: SSE2, which every such CPU has.
//
// Included by scalar.hpp only, after single.hpp and lanes.hpp.
#pragma once

#include <emmintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd/lanes.hpp"

namespace {
namespace simd {

using Words = __m128i;
constexpr std::size_t kWords = 2;

inline Words broadcast(std::uint64_t v) {
    return _mm_set1_epi64x(static_cast<long long>(v));
}
inline Words lane_numbers() {
    return _mm_set_epi64x(1, 0);
}
inline Words load(const std::uint64_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline void store(std::uint64_t* p, Words v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
}
inline Words add(Words a, Words b) {
    return _mm_add_epi64(a, b);
}
inline Words multiply_low(Words a, Words b) {
    return _mm_mul_epu32(a, b);
}
inline Words high_half(Words a) {
    return _mm_srli_epi64(a, 32);
}
inline Words low_to_high(Words a) {
    return _mm_slli_epi64(a, 32);
}
inline Words bit_and(Words a, Words b) {
    return _mm_and_si128(a, b);
}
inline Words bit_xor(Words a, Words b) {
    return _mm_xor_si128(a, b);
}
inline Words bit_select(Words where, Words a, Words b) {
    return _mm_or_si128(_mm_and_si128(where, a), _mm_andnot_si128(where, b));
}
inline std::uint64_t nonzero_lanes(Words a) {
    const __m128i zero = _mm_cmpeq_epi32(a, _mm_setzero_si128());  // of half lanes
    const __m128i both = _mm_and_si128(zero, _mm_shuffle_epi32(zero, 0xB1));
    return static_cast<unsigned>(_mm_movemask_pd(_mm_castsi128_pd(both))) ^ 3;
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    a = _mm_shuffle_epi32(a, 0xB1);
    b = _mm_shuffle_epi32(b, 0xB1);
    store(p, _mm_unpacklo_epi64(a, b));
    store(p + 2, _mm_unpackhi_epi64(a, b));
}

struct F32 {
    using Element = float;
    using Vec = __m128;
    using Scale = __m128;
    static constexpr std::size_t kLanes = 4;
    static Scale scale(double s) { return _mm_set1_ps(static_cast<float>(s)); }
    static Vec load(const Element* p) { return _mm_loadu_ps(p); }
    static void store(Element* p, Vec v) { _mm_storeu_ps(p, v); }
    static void stream(Element* p, Vec v) { _mm_stream_ps(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm_mul_ps(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const __m128i lane = _mm_setr_epi32(1, 2, 4, 8);
        const __m128i spread = _mm_set1_epi32(static_cast<int>(bits));
        const __m128i kept = _mm_cmpeq_epi32(_mm_and_si128(spread, lane), lane);
        return _mm_and_ps(v, _mm_castsi128_ps(kept));
    }
    static std::uint64_t positive(Vec v) {
        return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpnle_ps(v, _mm_setzero_ps())));
    }
    static std::uint64_t nonzero(Vec v) {
        return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpneq_ps(v, _mm_setzero_ps())));
    }
};

struct F64 {
    using Element = double;
    using Vec = __m128d;
    using Scale = __m128d;
    static constexpr std::size_t kLanes = 2;
    static Scale scale(double s) { return _mm_set1_pd(s); }
    static Vec load(const Element* p) { return _mm_loadu_pd(p); }
    static void store(Element* p, Vec v) { _mm_storeu_pd(p, v); }
    static void stream(Element* p, Vec v) { _mm_stream_pd(p, v); }
    static Vec multiply(Vec v, Scale s) { return _mm_mul_pd(v, s); }
    static Vec keep(Vec v, std::uint64_t bits) {
        const __m128i lane = _mm_setr_epi32(1, 1, 2, 2);
        const __m128i spread = _mm_set1_epi32(static_cast<int>(bits));
        const __m128i kept = _mm_cmpeq_epi32(_mm_and_si128(spread, lane), lane);
        return _mm_and_pd(v, _mm_castsi128_pd(kept));
    }
    static std::uint64_t positive(Vec v) {
        return static_cast<unsigned>(_mm_movemask_pd(_mm_cmpnle_pd(v, _mm_setzero_pd())));
    }
    static std::uint64_t nonzero(Vec v) {
        return static_cast<unsigned>(_mm_movemask_pd(_mm_cmpneq_pd(v, _mm_setzero_pd())));
    }
};

inline void fence_streams() {
    _mm_sfence();
}

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.
template <class T>
struct Vec;

template <>
struct Vec<float> {
    using Reg = __m128;
    static constexpr std::size_t kLanes = 4, kRegisters = 16;
    static constexpr std::size_t kSums = 4;  // registers that one call of sums() adds up

    static Reg zero() { return _mm_setzero_ps(); }
    static Reg broadcast(const float* p) { return _mm_set1_ps(*p); }
    static Reg load(const float* p) { return _mm_loadu_ps(p); }
    static void store(float* p, Reg v) { _mm_storeu_ps(p, v); }
    static Reg load_n(const float* p, std::size_t n) { return load_lanes<Vec>(p, n); }
    static void store_n(float* p, Reg v, std::size_t n) { store_lanes<Vec>(p, v, n); }
    static Reg add(Reg a, Reg b) { return _mm_add_ps(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm_mul_ps(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return add(mul(a, b), c); }

    // Bit l of the result: lane l is not zero (NaN counts), is NaN.
    static std::uint64_t nonzero(Reg v) { return bits(_mm_cmpneq_ps(v, zero())); }
    static std::uint64_t nan(Reg v) { return bits(_mm_cmpunord_ps(v, v)); }
    // +0.0 where v <= 0, else v: NaN stays.
    static Reg relu(Reg v) { return _mm_and_ps(v, _mm_cmpnle_ps(v, zero())); }
    // Lanes whose bit is 0 become +0.0.
    static Reg keep(std::uint64_t bits, Reg v) {
        const __m128i lane = _mm_setr_epi32(1, 2, 4, 8);
        const __m128i set = _mm_and_si128(_mm_set1_epi32(static_cast<int>(bits)), lane);
        return _mm_and_ps(v, _mm_castsi128_ps(_mm_cmpeq_epi32(set, lane)));
    }
    // Lane l is the next of from[] where bit l is 1, else +0.0; from[] has at least kLanes
    // elements.
    static Reg expand(std::uint64_t bits, const float* from) {
        return expand_lanes<Vec>(bits, from);
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, float* to) { compress_lanes<Vec>(bits, v, to); }

    static void transpose(Reg (&r)[kLanes]) { _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]); }

    // out[i] += the sum of the lanes of r[i].
    static void sums(const Reg (&r)[kSums], float* out) {
        Reg t[kSums] = {r[0], r[1], r[2], r[3]};
        transpose(t);
        store(out, add(load(out), add(add(t[0], t[1]), add(t[2], t[3]))));
    }

  private:
    static std::uint64_t bits(Reg mask) {
        return static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_ps(mask)));
    }
};

template <>
struct Vec<double> {
    using Reg = __m128d;
    static constexpr std::size_t kLanes = 2, kRegisters = 16;
    static constexpr std::size_t kSums = 2;

    static Reg zero() { return _mm_setzero_pd(); }
    static Reg broadcast(const double* p) { return _mm_set1_pd(*p); }
    static Reg load(const double* p) { return _mm_loadu_pd(p); }
    static void store(double* p, Reg v) { _mm_storeu_pd(p, v); }
    static Reg load_n(const double* p, std::size_t n) {
        if (n >= 2) return load(p);
        return n == 1 ? _mm_load_sd(p) : zero();
    }
    static void store_n(double* p, Reg v, std::size_t n) {
        if (n >= 2) return store(p, v);
        if (n == 1) _mm_store_sd(p, v);
    }
    static Reg add(Reg a, Reg b) { return _mm_add_pd(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm_mul_pd(a, b); }
    static Reg fma(Reg a, Reg b, Reg c) { return add(mul(a, b), c); }

    static std::uint64_t nonzero(Reg v) { return bits(_mm_cmpneq_pd(v, zero())); }
    static std::uint64_t nan(Reg v) { return bits(_mm_cmpunord_pd(v, v)); }
    static Reg relu(Reg v) { return _mm_and_pd(v, _mm_cmpnle_pd(v, zero())); }
    static Reg keep(std::uint64_t bits, Reg v) {
        const auto lane = [bits](int l) { return -static_cast<long long>(bits >> l & 1); };
        return _mm_and_pd(v, _mm_castsi128_pd(_mm_set_epi64x(lane(1), lane(0))));
    }
    static Reg expand(std::uint64_t bits, const double* from) {
        return expand_lanes<Vec>(bits, from);
    }
    static void compress(std::uint64_t bits, Reg v, double* to) {
        compress_lanes<Vec>(bits, v, to);
    }

    static void transpose(Reg (&r)[kLanes]) {
        const Reg low = _mm_unpacklo_pd(r[0], r[1]);
        r[1] = _mm_unpackhi_pd(r[0], r[1]);
        r[0] = low;
    }

    static void sums(const Reg (&r)[kSums], double* out) {
        const Reg sum = add(_mm_unpacklo_pd(r[0], r[1]), _mm_unpackhi_pd(r[0], r[1]));
        store(out, add(load(out), sum));
    }

  private:
    static std::uint64_t bits(Reg mask) {
        return static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_pd(mask)));
    }
};

inline void prefetch(const void*) {}

}  // namespace simd
}  // namespace
