// CPUID on x86-64; other CPUs run what is built for them.
//
// Microsoft's compiler has NEVER compiled the lines for it.
#include "core/cpu_features.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#define DROPWISE_X86_64 1
#if defined(_MSC_VER) && !defined(__clang__)
#define DROPWISE_MSVC 1
#endif
#include <cstdint>
#if defined(DROPWISE_MSVC)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace dropwise {
namespace {

#if defined(DROPWISE_X86_64)

struct Cpuid {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;  // all zero for a leaf the CPU does not have
};

Cpuid cpuid(std::uint32_t leaf) noexcept {
    Cpuid r;
#if defined(DROPWISE_MSVC)
    int v[4];
    __cpuid(v, static_cast<int>(leaf & 0x80000000u));
    if (static_cast<std::uint32_t>(v[0]) < leaf) return r;
    __cpuidex(v, static_cast<int>(leaf), 0);
    r.eax = v[0], r.ebx = v[1], r.ecx = v[2], r.edx = v[3];
#else
    __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
    return r;
}

// Which register files the operating system saves: bit 1 xmm, 2 ymm, 5 to 7 masks and zmm.
std::uint32_t saved_registers() noexcept {
#if defined(DROPWISE_MSVC)
    return static_cast<std::uint32_t>(_xgetbv(0));
#else
    std::uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

constexpr bool has(std::uint32_t word, std::uint32_t bits) {
    return (word & bits) == bits;
}

constexpr std::uint32_t bit(int n) {
    return std::uint32_t{1} << n;
}

// Not __builtin_cpu_supports: some releases of compilers know fewer names.
bool x86_supports(std::string_view isa) noexcept {
    const std::uint32_t leaf1 = cpuid(1).ecx;
    constexpr std::uint32_t kFma = bit(12), kPopcnt = bit(23), kOsxsave = bit(27), kF16c = bit(29);
    if (!has(leaf1, kFma | kPopcnt | kOsxsave | kF16c)) return false;
    const std::uint32_t saved = saved_registers();
    const std::uint32_t leaf7 = cpuid(7).ebx;
    constexpr std::uint32_t kBmi1 = bit(3), kAvx2 = bit(5), kBmi2 = bit(8);
    constexpr std::uint32_t kLzcnt = bit(5);
    const bool avx2 = has(saved, 0x06) && has(leaf7, kBmi1 | kAvx2 | kBmi2) &&
                      has(cpuid(0x80000001u).ecx, kLzcnt);
    if (isa == "avx2") return avx2;
    constexpr std::uint32_t kAvx512 =
        bit(16) | bit(17) | bit(28) | bit(30) | bit(31);  // F DQ CD BW VL
    return isa == "avx512" && avx2 && has(saved, 0xE6) && has(leaf7, kAvx512);
}

#endif

CpuKind detect_kind() noexcept {
#if defined(DROPWISE_X86_64)
    const Cpuid vendor = cpuid(0);  // "Genu" "ineI" "ntel"
    if (vendor.ebx == 0x756e6547 && vendor.edx == 0x49656e69 && vendor.ecx == 0x6c65746e)
        return CpuKind::intel;
#endif
    return CpuKind::other;
}

}  // namespace

CpuKind cpu_kind() noexcept {
    static const CpuKind kind = detect_kind();
    return kind;
}

bool cpu_supports(std::string_view isa) noexcept {
    if (isa == "scalar" || isa == "neon") return true;  // built only where they are the baseline
#if defined(DROPWISE_X86_64)
    return x86_supports(isa);
#else
    return false;
#endif
}

}  // namespace dropwise
