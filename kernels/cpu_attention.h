/* Which keys the queries of a sequence see and how a score becomes a weight, for attention and its gradient. */
#ifndef QZ_KERNELS_CPU_ATTENTION_H
#define QZ_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

/* exp(x), x <= 0 a score beside the largest or beside the log of their sum; 0 below 2^-64, which no fp32 sum of
 * weights can tell from it. Without that bound keys that nobody looks at get gradients among the denormal numbers, with
 * which products take several times as long. NaN stays. */
static inline float qz_attention_weight(float x)
{
    const float least = -44.3614196f; /* ln 2^-64 */
    const float weight = qz_fast_exp(qz_select(x < least, least, x));
    return qz_select(x < least, 0, weight);
}

typedef struct qz_seen {
    int64_t past;         /* keys before that of query 0; query t sees none behind past + t */
    int64_t window;       /* 0: none */
    const int32_t *first; /* of each query: the first key of its document; or NULL */
} qz_seen;

/* The first key that query t sees. */
static inline int64_t qz_seen_first(const qz_seen *s, int64_t t)
{
    const int64_t at = s->past + t, begin = s->first ? s->first[t] : 0;
    const int64_t low = s->window > 0 && at >= s->window ? at - s->window + 1 : 0;
    return low > begin ? low : begin;
}

/* The first key that any of `count` queries from t on sees. */
static inline int64_t qz_seen_least(const qz_seen *s, int64_t t, int64_t count)
{
    int64_t least = qz_seen_first(s, t);
    for (int64_t i = 1; s->first && i < count; i++) least = qz_min(least, qz_seen_first(s, t + i));
    return least;
}

#endif
