// What each strategy of a product costs on one instruction set: picoseconds for each of the terms
// of core/cost_terms.hpp.
//
// bench/tuning/costs.py fits the values.  Those of an Ice Lake serve Intel's CPUs, those of a Zen 4
// all others.  NEON is not measured and takes the values of AVX2.
#pragma once

#include "core/kernel_table.hpp"

namespace {
namespace product {

#if defined(DROPWISE_ISA_scalar)
constexpr std::size_t kCostColumn = 0;
#elif defined(DROPWISE_ISA_avx2) || defined(DROPWISE_ISA_neon)
constexpr std::size_t kCostColumn = 2;
#else
constexpr std::size_t kCostColumn = 4;
#endif

// The value for this instruction set and T, of values for float and double on each set.
template <class T>
constexpr float pick(float scalar_f32, float scalar_f64, float avx2_f32, float avx2_f64,
                     float avx512_f32, float avx512_f64) {
    const float values[] = {scalar_f32, scalar_f64, avx2_f32, avx2_f64, avx512_f32, avx512_f64};
    return values[kCostColumn + (sizeof(T) == 8 ? 1 : 0)];
}

// Fitted before some terms were told apart: those not named here cost nothing.  Copies cost the
// same on all sets, and twice as much for elements that are twice as large.
template <class T>
constexpr dropwise::Costs zen4_costs() {
    constexpr float size = sizeof(T) / 4;
    dropwise::Costs costs{};
    auto& dense = costs.dense;
    auto& skip = costs.skip;
    auto& kept = costs.kept;
    dense.calls = 143000;
    dense.tile_multiply_adds = pick<T>(61.1f, 122, 18.7f, 37.6f, 17.5f, 33.9f);
    dense.packed_a_by_rows = size * 113;
    dense.packed_a_by_columns = size * 113;
    dense.packed_b_by_rows = size * 85;
    dense.packed_b_by_columns = size * 85;
    dense.unpacked_b = size * 15;
    dense.tile_outputs = size * 41;
    dense.dot_multiply_adds = dense.tile_multiply_adds;
    dense.dot_outputs = 524;
    dense.transposed = size * 121;
    dense.masked_outputs = size * 166;

    skip.calls = 16000;
    skip.multiply_adds = pick<T>(78.7f, 157, 22.3f, 41.6f, 19.9f, 38.1f);
    skip.words = 2870;
    skip.compressed_by_rows = size * 162;
    skip.compressed_by_columns = size * 246;
    skip.copied_b_by_rows = size * 66;
    skip.copied_b_by_columns = size * 100;
    skip.transposed_outputs = size * 97;
    skip.copied_outputs = size * 97;

    kept.calls = 236000;
    kept.multiply_adds = pick<T>(165, 330, 22, 44, 20.3f, 39);
    kept.words = 5000;
    kept.copied_b_by_columns = size * 74;
    kept.copied_b_by_rows = size * 118;
    kept.outputs = size * 178;
    return costs;
}

// Columns: float and double on the scalar set, on AVX2 and on AVX-512.
template <class T>
constexpr dropwise::Costs ice_lake_costs() {
    dropwise::Costs costs{};
    auto& dense = costs.dense;
    auto& skip = costs.skip;
    auto& kept = costs.kept;
    // clang-format off
    dense.calls = pick<T>(3250000, 1150000, 1800000, 1590000, 1850000, 2280000);
    dense.tile_multiply_adds = pick<T>(74.3f, 147, 19.5f, 42.3f, 12.6f, 28.3f);
    dense.packed_a_by_rows = pick<T>(795, 579, 314, 560, 355, 446);
    dense.packed_a_by_columns = pick<T>(791, 751, 281, 458, 305, 432);
    dense.packed_b_by_rows = pick<T>(199, 529, 182, 373, 136, 279);
    dense.packed_b_by_columns = pick<T>(411, 354, 288, 453, 174, 366);
    dense.unpacked_b = pick<T>(54.9f, 110, 47.9f, 84.8f, 59.2f, 109);
    dense.tile_outputs = pick<T>(187, 14.2f, 59.5f, 115, 82.5f, 93.1f);
    dense.dot_multiply_adds = pick<T>(70, 142, 23.5f, 51.9f, 21.4f, 44.8f);
    dense.dot_outputs = pick<T>(1850, 286, 771, 604, 859, 663);
    dense.transposed = pick<T>(370, 505, 170, 302, 114, 223);
    dense.masked_outputs = pick<T>(671, 2150, 248, 638, 218, 440);
    dense.misaligned_multiply_adds = pick<T>(17.6f, 7.82f, 2.66f, 4.4f, 5.15f, 12.4f);

    skip.calls = pick<T>(2860000, 750000, 1600000, 1380000, 1720000, 2220000);
    skip.multiply_adds = pick<T>(78.7f, 188, 26.5f, 60.5f, 23.5f, 48);
    skip.tile_rows = pick<T>(1630, 1010, 418, 335, 491, 559);
    skip.shared_multiply_adds = pick<T>(10.9f, 33.8f, 4.63f, 14.4f, 13.4f, 27.7f);
    skip.words = pick<T>(9730, 2810, 5170, 6440, 4600, 7650);
    skip.compressed_by_rows = pick<T>(1140, 1430, 353, 682, 198, 425);
    skip.compressed_by_columns = pick<T>(1230, 1870, 524, 931, 309, 548);
    skip.copied_b_by_rows = pick<T>(11.4f, 324, 86.8f, 218, 98.9f, 207);
    skip.copied_b_by_columns = pick<T>(268, 230, 213, 307, 124, 245);
    skip.transposed_outputs = pick<T>(314, 419, 214, 354, 168, 322);
    skip.copied_outputs = pick<T>(88, 94.8f, 43.2f, 93.2f, 57.2f, 120);
    skip.outputs = pick<T>(5.83f, 8.8f, 1.95f, 3.94f, 42.6f, 3.02f);

    kept.calls = pick<T>(2080000, 289000, 1590000, 1400000, 1640000, 2020000);
    kept.multiply_adds = pick<T>(93.7f, 168, 23.9f, 49.2f, 17.4f, 39.1f);
    kept.words = pick<T>(13200, 14500, 12700, 12700, 11500, 14400);
    kept.copied_b_by_columns = pick<T>(177, 82, 115, 286, 128, 246);
    kept.copied_b_by_rows = pick<T>(185, 238, 216, 296, 122, 244);
    kept.outputs = pick<T>(3160, 6110, 416, 999, 333, 611);
    kept.copied_a_by_columns = pick<T>(307, 437, 278, 501, 195, 448);
    kept.copied_a_by_rows = pick<T>(525, 737, 251, 435, 236, 462);
    kept.sums = pick<T>(1360, 1590, 430, 381, 720, 371);
    kept.padded_a = pick<T>(316, 955, 226, 431, 270, 588);
    // clang-format on
    return costs;
}

template <class T>
constexpr dropwise::Costs kCosts[] = {zen4_costs<T>(), ice_lake_costs<T>()};  // by CpuKind

}  // namespace product
}  // namespace
