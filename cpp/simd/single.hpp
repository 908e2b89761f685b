// Elements one at a time, for what the portable set has no vectors for: float16 and bfloat16, and
// without SSE2 all of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace {
namespace simd {

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

}  // namespace simd
}  // namespace
