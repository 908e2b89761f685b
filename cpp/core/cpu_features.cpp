#include "core/cpu_features.hpp"

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

namespace dropwise {
namespace {

#if defined(_MSC_VER) && defined(_M_X64)
bool msvc_supports(bool avx512) noexcept {
    int r[4];
    __cpuid(r, 1);
    const bool fma = r[2] >> 12 & 1, osxsave = r[2] >> 27 & 1, f16c = r[2] >> 29 & 1;
    if (!(fma && osxsave && f16c)) return false;
    const unsigned long long xcr0 = _xgetbv(0);
    if ((xcr0 & 6) != 6) return false;
    __cpuidex(r, 7, 0);
    const bool bmi1 = r[1] >> 3 & 1, avx2 = r[1] >> 5 & 1, bmi2 = r[1] >> 8 & 1;
    if (!(bmi1 && avx2 && bmi2)) return false;
    if (!avx512) return true;
    const bool f = r[1] >> 16 & 1, dq = r[1] >> 17 & 1, cd = r[1] >> 28 & 1, bw = r[1] >> 30 & 1,
               vl = r[1] >> 31 & 1;
    return (xcr0 & 0xE6) == 0xE6 && f && dq && cd && bw && vl;
}
#endif

}  // namespace

bool cpu_supports(std::string_view isa) noexcept {
    if (isa == "scalar" || isa == "neon") return true;  // built only where they are the baseline
#if defined(__x86_64__) && defined(__GNUC__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
                      __builtin_cpu_supports("lzcnt");
    if (isa == "avx2") return avx2;
    if (isa == "avx512")
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512cd");
#elif defined(_MSC_VER) && defined(_M_X64)
    if (isa == "avx2") return msvc_supports(false);
    if (isa == "avx512") return msvc_supports(true);
#endif
    return false;
}

}  // namespace dropwise
