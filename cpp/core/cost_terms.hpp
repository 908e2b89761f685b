// What the cost of a product is counted from, for each strategy.
//
// ops/products/choice.cpp counts the terms; kernels/costs.inl.hpp says what one of each costs. Both
// are the same structs: a list of names below is all there is to change for a term more or less.
#pragma once

namespace dropwise {

// clang-format off
#define DROPWISE_DENSE_TERMS(X)                                                     \
    X(calls)                     /* what comes once for a product */                \
    X(tile_multiply_adds)        /* in register tiles, padded to whole vectors */   \
    X(packed_a_by_rows)          /* elements of A packed; its rows are contiguous */ \
    X(packed_a_by_columns)       /* likewise; they are not */                       \
    X(packed_b_by_rows)                                                             \
    X(packed_b_by_columns)                                                          \
    X(unpacked_b)                /* elements of B, each time it is read in place */ \
    X(tile_outputs)                                                                 \
    X(dot_multiply_adds)         /* in dot products, padded to whole vectors */     \
    X(dot_outputs)                                                                  \
    X(transposed)                /* elements of B or C copied across */             \
    X(masked_outputs)            /* that are then kept or cleared by a mask */      \
    X(misaligned_multiply_adds)  /* of dots whose rows start amid a vector */

#define DROPWISE_SKIP_TERMS(X)                                                      \
    X(calls)                                                                        \
    X(multiply_adds)             /* with what is not zero, padded to whole vectors */ \
    X(tile_rows)                 /* rows of tiles that are added to a sum */        \
    X(shared_multiply_adds)      /* less than 0: their factor is loaded for two rows */ \
    X(words)                     /* masks of 64 elements, or lists, for each tile */ \
    X(compressed_by_rows)        /* elements searched for zeros */                  \
    X(compressed_by_columns)                                                        \
    X(copied_b_by_rows)          /* elements of the other operand, to tiles */      \
    X(copied_b_by_columns)                                                          \
    X(transposed_outputs)                                                           \
    X(copied_outputs)                                                               \
    X(outputs)

#define DROPWISE_KEPT_TERMS(X)                                                      \
    X(calls)                                                                        \
    X(multiply_adds)             /* of kept outputs, padded to whole vectors */     \
    X(words)                     /* masks of 64 outputs, for each chunk of k */     \
    X(copied_b_by_columns)       /* elements of B, to tiles */                      \
    X(copied_b_by_rows)                                                             \
    X(outputs)                                                                      \
    X(copied_a_by_columns)                                                          \
    X(copied_a_by_rows)                                                             \
    X(sums)                      /* of kept outputs, for each chunk of k */         \
    X(padded_a)                  /* elements of A copied to pad the end of k */
// clang-format on

#define DROPWISE_TERM(name) Number name;

template <class Number>
struct DenseTerms {
    DROPWISE_DENSE_TERMS(DROPWISE_TERM)
};
template <class Number>
struct SkipTerms {
    DROPWISE_SKIP_TERMS(DROPWISE_TERM)
};
template <class Number>
struct KeptTerms {
    DROPWISE_KEPT_TERMS(DROPWISE_TERM)
};

#undef DROPWISE_TERM

// Picoseconds for one of each; only the ratios matter.
struct Costs {
    DenseTerms<float> dense;
    SkipTerms<float> skip;
    KeptTerms<float> kept;
};

// Where costs were fitted: CPUs differ in how fast they load what they multiply.
enum class CpuKind { other, intel };

}  // namespace dropwise
