/* Log probability of the target token: z_target - max - log sum exp(z - max), rows in parallel, exponentials in fp32
 * and their sum in fp64. The sums of a divergence are in fp64 throughout, since they cancel down to 1e-5 and less. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

enum { LANES = 16 };

qz_status qz_cpu_log_prob(const qz_tensor *out, const qz_tensor *logits, const int32_t *target)
{
    const int64_t tokens = out->shape[0], size = logits->shape[1];
    QZ_PARALLEL_FOR for (int64_t t = 0; t < tokens; t++)
    {
        const float *z = qz_f32(logits) + t * logits->stride[0];
        qz_f64(out)[t] = 0;
        if (target[t] < 0) continue;
        const float max = qz_reduce_max(z, size);
        qz_f64(out)[t] = (double)z[target[t]] - max - log(qz_reduce_exp(z, size, max));
    }
    return QZ_OK;
}

/* ---- divergence ---- */

static int64_t place_of(const float *z, int64_t count, float max)
{
    for (int64_t v = 0; v < count; v++)
        if (z[v] == max) return v;
    return 0; /* a NaN */
}

typedef struct lanes {
    double a[LANES], b[LANES], weighted[LANES];
} lanes;

static inline void add_pair(lanes *s, int lane, double a, double b, double max_a, double max_b)
{
    const double p = qz_fast_exp_double(a - max_a);
    s->a[lane] += p;
    s->b[lane] += qz_fast_exp_double(b - max_b);
    s->weighted[lane] += qz_select_double(p == 0, 0, p * (a - b));
}

QZ_WIDE static void add_pairs(double *sum_a, double *sum_b, double *weighted, const float *a, const float *b,
                              int64_t count, double max_a, double max_b)
{
    lanes s = {{0}, {0}, {0}};
    const int64_t full = count - count % LANES;
    for (int64_t i = 0; i < full; i += LANES)
        for (int l = 0; l < LANES; l++) add_pair(&s, l, (double)a[i + l], (double)b[i + l], max_a, max_b);
    for (int64_t i = full; i < count; i++) add_pair(&s, (int)(i - full), (double)a[i], (double)b[i], max_a, max_b);
    for (int l = 0; l < LANES; l++) {
        *sum_a += s.a[l];
        *sum_b += s.b[l];
        *weighted += s.weighted[l];
    }
}

static void divergence_row(double *sums, const float *a, const float *b, int64_t count)
{
    const float max_a = qz_reduce_max(a, count), max_b = qz_reduce_max(b, count);
    double sum_a = 0, sum_b = 0, weighted = 0;
    add_pairs(&sum_a, &sum_b, &weighted, a, b, count, (double)max_a, (double)max_b);
    sums[QZ_DIVERGENCE_MAX_A] = (double)max_a;
    sums[QZ_DIVERGENCE_TOP_A] = (double)place_of(a, count, max_a);
    sums[QZ_DIVERGENCE_MAX_B] = (double)max_b;
    sums[QZ_DIVERGENCE_TOP_B] = (double)place_of(b, count, max_b);
    sums[QZ_DIVERGENCE_SUM_A] = sum_a;
    sums[QZ_DIVERGENCE_SUM_B] = sum_b;
    sums[QZ_DIVERGENCE_WEIGHTED] = weighted;
}

qz_status qz_cpu_divergence_sums(const qz_tensor *sums, const qz_tensor *a, const qz_tensor *b)
{
    enum { ROWS = 16 };
    const int64_t tokens = a->shape[0];
    QZ_PARALLEL_FOR for (int64_t first = 0; first < tokens; first += ROWS)
    {
        for (int64_t t = first; t < qz_min(first + ROWS, tokens); t++)
            divergence_row(qz_f64(sums) + t * sums->stride[0], qz_f32(a) + t * a->stride[0],
                           qz_f32(b) + t * b->stride[0], a->shape[1]);
    }
    return QZ_OK;
}
