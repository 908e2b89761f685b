// The portable set in plain C++, for CPUs that have no other set here.
//
// Included by scalar.hpp only, after single.hpp and lanes.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/lanes.hpp"
#include "simd/single.hpp"

namespace {
namespace simd {

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

// A register of T and the arithmetic on it.  Every set has Vec<float> and Vec<double> with the same
// members; "n lanes" touches no memory past the n-th element.
// These are plain loops of fixed length.
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
    static Reg expand(std::uint64_t bits, const T* from) { return expand_lanes<Vec>(bits, from); }
    // The lanes whose bit is 1 side by side in to[], and anything after them up to kLanes elements.
    static void compress(std::uint64_t bits, Reg v, T* to) { compress_lanes<Vec>(bits, v, to); }

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

inline void prefetch(const void*) {}

}  // namespace simd
}  // namespace
