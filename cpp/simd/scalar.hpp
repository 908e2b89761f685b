// The vector vocabulary of the portable set: SSE2 where it is the baseline, plain C++ elsewhere.
//
// DROPWISE_NO_SSE2 forces the plain path, so that it can be tested on any machine.
#pragma once

#include <cstddef>
#include <cstdint>

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(DROPWISE_NO_SSE2)
#define DROPWISE_SSE2 1
#include <emmintrin.h>
#endif

namespace {
namespace simd {

// ---- 64-bit lanes of words: masks --------------------------------------------------------------

#if defined(DROPWISE_SSE2)

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

#else

using Words = std::uint64_t;
constexpr std::size_t kWords = 1;

inline Words broadcast(std::uint64_t v) {
    return v;
}
inline Words lane_numbers() {
    return 0;
}
inline Words load(const std::uint64_t* p) {
    return *p;
}
inline void store(std::uint64_t* p, Words v) {
    *p = v;
}
inline Words add(Words a, Words b) {
    return a + b;
}
inline Words multiply_low(Words a, Words b) {
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
}
inline Words high_half(Words a) {
    return a >> 32;
}
inline Words low_to_high(Words a) {
    return a << 32;
}
inline Words bit_and(Words a, Words b) {
    return a & b;
}
inline Words bit_xor(Words a, Words b) {
    return a ^ b;
}
inline Words bit_select(Words where, Words a, Words b) {
    return (where & a) | (~where & b);
}
inline std::uint64_t nonzero_lanes(Words a) {
    return a != 0;
}
inline void store_swapped_pairs(std::uint64_t* p, Words a, Words b) {
    p[0] = a << 32 | a >> 32;
    p[1] = b << 32 | b >> 32;
}

#endif

inline Words bit_xor(Words a, Words b, Words c) {
    return bit_xor(bit_xor(a, b), c);
}

// ---- element access and masking: dropout -------------------------------------------------------

union FloatBits {
    float value;
    std::uint32_t bits;
};

struct F16Format {
    static constexpr std::int16_t kMinusInf = static_cast<std::int16_t>(0xFC00);
    static float widen(std::uint16_t h) {
        const std::uint32_t magnitude = h & 0x7FFFu;
        FloatBits f;
        if (magnitude < 0x0400)  // zero and subnormal: a multiple of 2**-24
            f.value = static_cast<float>(magnitude) * 0x1p-24f;
        else  // move the exponent's bias from 15 to 127; infinity and NaN go to the top
            f.bits = (magnitude << 13) + (magnitude < 0x7C00 ? 0x38000000u : 0x70000000u);
        f.bits |= (h & 0x8000u) << 16;
        return f.value;
    }
    static std::uint16_t narrow(float v) {
        FloatBits f{v};
        const std::uint32_t sign = f.bits >> 16 & 0x8000u;
        f.bits &= 0x7FFFFFFF;
        std::uint32_t h;
        if (f.bits > 0x7F800000) {
            h = 0x7E00u | (f.bits >> 13 & 0x3FF);
        } else if (f.bits >= 0x47800000) {
            h = 0x7C00;
        } else if (f.bits >= 0x38800000) {  // normal; rounding up may carry into infinity
            h = (f.bits - 0x38000000u + 0xFFF + (f.bits >> 13 & 1)) >> 13;
        } else {  // 0.5 has the units of a subnormal, so the addition rounds
            f.value += 0.5f;
            h = f.bits - 0x3F000000u;
        }
        return static_cast<std::uint16_t>(sign | h);
    }
};

struct BF16Format {
    static constexpr std::int16_t kMinusInf = static_cast<std::int16_t>(0xFF80);
    static float widen(std::uint16_t h) {
        FloatBits f;
        f.bits = static_cast<std::uint32_t>(h) << 16;
        return f.value;
    }
    static std::uint16_t narrow(float v) {
        FloatBits f{v};
        if (v != v)
            f.bits |= 0x00400000;
        else
            f.bits += 0x7FFF + (f.bits >> 16 & 1);
        return static_cast<std::uint16_t>(f.bits >> 16);
    }
};

// One element at a time, for what the baseline has no vectors for.
template <class T>
struct Single {
    using Element = T;
    using Vec = T;
    static constexpr std::size_t kLanes = 1;
    static Vec load(const Element* p) { return *p; }
    static void store(Element* p, Vec v) { *p = v; }
    static void stream(Element* p, Vec v) { *p = v; }
    static Vec keep(Vec v, std::uint64_t bits) { return bits & 1 ? v : Vec{0}; }
};

template <class Format>
struct Half : Single<std::uint16_t> {
    using Scale = float;
    static Scale scale(double s) { return static_cast<float>(s); }
    static std::uint16_t multiply(std::uint16_t v, Scale s) {
        return Format::narrow(Format::widen(v) * s);
    }
    static std::uint64_t positive(std::uint16_t v) {
        return static_cast<std::int16_t>(v) > Format::kMinusInf && v != 0;
    }
    static std::uint64_t nonzero(std::uint16_t v) { return (v & 0x7FFF) != 0; }
};
using F16 = Half<F16Format>;
using BF16 = Half<BF16Format>;

#if defined(DROPWISE_SSE2)

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

#else

template <class T>
struct Real : Single<T> {
    using Scale = T;
    static Scale scale(double s) { return static_cast<T>(s); }
    static T multiply(T v, Scale s) { return v * s; }
    static std::uint64_t positive(T v) { return !(v <= 0); }
    static std::uint64_t nonzero(T v) { return v != 0; }
};
using F32 = Real<float>;
using F64 = Real<double>;

inline void fence_streams() {}

#endif

// ---- floating point: products ------------------------------------------------------------------

// The lanes whose bit is 1, one after the other; writes up to one element past them.
template <class T, std::size_t L>
void compress_lanes(std::uint64_t bits, const T (&lanes)[L], T* to) {
    for (std::size_t l = 0; l < L; ++l, bits >>= 1) {
        *to = lanes[l];
        to += bits & 1;
    }
}

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.

#if defined(DROPWISE_SSE2)

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
    static Reg load_n(const float* p, std::size_t n) {
        float part[kLanes] = {};
        for (std::size_t l = 0; l < n; ++l) part[l] = p[l];
        return load(part);
    }
    static void store_n(float* p, Reg v, std::size_t n) {
        float part[kLanes];
        store(part, v);
        for (std::size_t l = 0; l < n; ++l) p[l] = part[l];
    }
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
        float lanes[kLanes];
        for (std::size_t l = 0; l < kLanes; ++l, bits >>= 1) {
            lanes[l] = bits & 1 ? *from : 0;
            from += bits & 1;
        }
        return load(lanes);
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, float* to) {
        float lanes[kLanes];
        store(lanes, v);
        compress_lanes(bits, lanes, to);
    }

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
    // elements.
    static Reg expand(std::uint64_t bits, const double* from) {
        double lanes[kLanes];
        for (std::size_t l = 0; l < kLanes; ++l, bits >>= 1) {
            lanes[l] = bits & 1 ? *from : 0;
            from += bits & 1;
        }
        return load(lanes);
    }
    static void compress(std::uint64_t bits, Reg v, double* to) {
        double lanes[kLanes];
        store(lanes, v);
        compress_lanes(bits, lanes, to);
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

#else

// Plain loops of fixed length.
template <class T>
struct Vec {
    static constexpr std::size_t kLanes = 16 / sizeof(T), kRegisters = 16;
    static constexpr std::size_t kSums = kLanes;  // registers that one call of sums() adds up
    struct Reg {
        T lane[kLanes];
    };

    static Reg zero() { return Reg{}; }
    static Reg broadcast(const T* p) {
        Reg r;
        for (T& lane : r.lane) lane = *p;
        return r;
    }
    static Reg load(const T* p) { return load_n(p, kLanes); }
    static void store(T* p, Reg v) { store_n(p, v, kLanes); }
    static Reg load_n(const T* p, std::size_t n) {
        Reg r{};
        for (std::size_t l = 0; l < n; ++l) r.lane[l] = p[l];
        return r;
    }
    static void store_n(T* p, Reg v, std::size_t n) {
        for (std::size_t l = 0; l < n; ++l) p[l] = v.lane[l];
    }
    static Reg add(Reg a, Reg b) {
        for (std::size_t l = 0; l < kLanes; ++l) a.lane[l] += b.lane[l];
        return a;
    }
    static Reg mul(Reg a, Reg b) {
        for (std::size_t l = 0; l < kLanes; ++l) a.lane[l] *= b.lane[l];
        return a;
    }
    static Reg fma(Reg a, Reg b, Reg c) { return add(mul(a, b), c); }

    // Bit l of the result: lane l is not zero (NaN counts), is NaN.
    static std::uint64_t nonzero(Reg v) {
        std::uint64_t bits = 0;
        for (std::size_t l = 0; l < kLanes; ++l) bits |= std::uint64_t{!(v.lane[l] == 0)} << l;
        return bits;
    }
    static std::uint64_t nan(Reg v) {
        std::uint64_t bits = 0;
        for (std::size_t l = 0; l < kLanes; ++l) bits |= std::uint64_t{v.lane[l] != v.lane[l]} << l;
        return bits;
    }
    // +0.0 where v <= 0, else v: NaN stays.
    static Reg relu(Reg v) {
        for (T& lane : v.lane) lane = lane <= 0 ? T{0} : lane;
        return v;
    }
    // Lanes whose bit is 0 become +0.0.
    static Reg keep(std::uint64_t bits, Reg v) {
        for (std::size_t l = 0; l < kLanes; ++l) v.lane[l] = bits >> l & 1 ? v.lane[l] : T{0};
        return v;
    }

    // Lane l is the next of from[] where bit l is 1, else +0.0; from[] has at least kLanes
    // elements.
    static Reg expand(std::uint64_t bits, const T* from) {
        T lanes[kLanes];
        for (std::size_t l = 0; l < kLanes; ++l, bits >>= 1) {
            lanes[l] = bits & 1 ? *from : 0;
            from += bits & 1;
        }
        return load(lanes);
    }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, T* to) {
        T lanes[kLanes];
        store(lanes, v);
        compress_lanes(bits, lanes, to);
    }

    static void transpose(Reg (&r)[kLanes]) {
        for (std::size_t i = 0; i < kLanes; ++i)
            for (std::size_t j = 0; j < i; ++j) {
                const T t = r[i].lane[j];
                r[i].lane[j] = r[j].lane[i];
                r[j].lane[i] = t;
            }
    }

    // out[i] += the sum of the lanes of r[i].
    static void sums(const Reg (&r)[kSums], T* out) {
        for (std::size_t i = 0; i < kSums; ++i) {
            T sum = 0;
            for (const T lane : r[i].lane) sum += lane;
            out[i] += sum;
        }
    }
};

#endif

inline int popcount(std::uint64_t w) {
    w -= w >> 1 & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
    return static_cast<int>(((w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}
inline int trailing_zeros(std::uint64_t w) {
    return popcount(~w & (w - 1));
}
// The positions of a byte's ones plus `first`, side by side in to[], and anything after them up
// to 8.
inline void list_bits(std::uint64_t byte, std::size_t first, std::uint8_t* to) {
    for (std::size_t i = 0; i < 8; ++i, byte >>= 1) {
        *to = static_cast<std::uint8_t>(first + i);
        to += byte & 1;
    }
}
inline void prefetch(const void*) {}

}  // namespace simd
}  // namespace
