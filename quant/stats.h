/* What calibration knows about one linear input: one record serves every transform, range and solver.
 *
 * gram = sum over tokens of x x^T, lower triangle; the squared output error of a weight error D (N, K) is
 * tr(D gram D^T). The record can be re-expressed after a fold (x -> x / s) without seeing the data again. */
#ifndef QZ_QUANT_STATS_H
#define QZ_QUANT_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/rng.h"
#include "base/status.h"
#include "kernels/kernels.h"

typedef struct qz_stats {
    int64_t k; /* channels */
    int64_t tokens;
    float *gram;      /* (K, K) lower triangle; the upper is zero until qz_stats_finish mirrors it; NULL: not kept */
    float *absmax;    /* (K) */
    double *abssum;   /* (K) mean |x| = abssum / tokens */
    float *reservoir; /* (R, K) a seeded uniform sample of token rows (Vitter 1985, algorithm R); NULL: not kept */
    int64_t reservoir_rows, reservoir_capacity;
    uint64_t *histogram; /* [QZ_HISTOGRAM_BINS] of all elements of x as gathered, before any fold: bin bits >> 18 of
                          * the F32, so that merging is addition; NULL: not kept */
    bool rescaled;       /* a fold changed x since: the histogram no longer describes it, the reservoir does */
    qz_rng rng;
    const float *diagonal; /* (K) a range weighs squared errors by this in place of gram, which may be NULL then (a
                            * solver that knows better what an error costs); NULL: gram counts */
    const float *divisor;  /* (K) the record is to be read as that of x / divisor (a fold being tried); NULL: of x */
} qz_stats;

typedef struct qz_stats_wants {
    int64_t reservoir; /* rows; 0: none */
    bool histogram;
    bool no_gram; /* for what no linear reads: keys and values */
} qz_stats_wants;

/* Zeroed, from `arena`. */
QZ_NODISCARD qz_status qz_stats_new(qz_stats *out, int64_t k, qz_stats_wants wants, uint64_t seed, uint64_t stream,
                                    qz_arena *arena);
/* Adds the rows of x (T, K). */
QZ_NODISCARD qz_status qz_stats_add(qz_stats *s, const qz_backend *backend, const qz_tensor *x);
/* Adds a record of the same input on other tokens; both finished or neither. Counts are exact and independent of order
 * and grouping, sums up to rounding, the rows are again a uniform sample (of what both kept). */
QZ_NODISCARD qz_status qz_stats_merge(qz_stats *to, const qz_stats *from, qz_arena *scratch);
/* Mirrors the lower triangle into the upper. Non-finite statistics are QZ_NUMERIC naming the channel. */
QZ_NODISCARD qz_status qz_stats_finish(qz_stats *s);
/* A record of its own with the same content. */
QZ_NODISCARD qz_status qz_stats_copy(qz_stats *out, const qz_stats *s, qz_arena *arena);
/* The statistics of x / s: divides gram by s s^T, the rest by s. */
void qz_stats_rescale(qz_stats *s, const float *scale /* (K) */);
/* Bytes that qz_stats_new takes. */
uint64_t qz_stats_bytes(int64_t k, qz_stats_wants wants);

#endif
