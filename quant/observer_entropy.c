/* The range for which the rounded distribution tells most about the original: |x| in 2048 equal parts; for each
 * threshold the parts within it (the mass beyond added to the last) against the same after rounding, where the parts
 * that share a code share their mass evenly, empty ones aside; least Kullback-Leibler divergence (Migacz 2017, "8-bit
 * inference with TensorRT"). int8 has 128 codes to a side; fp8 as many as its grid has below the threshold. */
#include <math.h>

#include "base/arena.h"
#include "base/parallel.h"
#include "numeric/actgrid.h"
#include "quant/distribution.h"

enum { BINS = 2048, LEVELS = 128 };

/* Parts [first, *end) of n have the same code. */
static int code_end(int first, int n, int level, const qz_act_scheme *s)
{
    if (s->format == QZ_FORMAT_INT8) return (level + 1) * n / LEVELS;
    const float scale = (float)n / qz_act_largest(s->format);
    const uint8_t code = qz_float_encode((float)first + 0.5f, scale, s->format);
    int end = first + 1;
    while (end < n && qz_float_encode((float)end + 0.5f, scale, s->format) == code) end++;
    return end;
}

/* Sums over the parts before each, so that a group of parts costs one logarithm. */
typedef struct prefix {
    double mass[BINS + 1], information[BINS + 1]; /* b, b log b */
    int filled[BINS + 1];
} prefix;

static void prefix_of(prefix *p, const double *bins)
{
    *p = (prefix){0};
    for (int i = 0; i < BINS; i++) {
        p->mass[i + 1] = p->mass[i] + bins[i];
        p->information[i + 1] = p->information[i] + (bins[i] > 0 ? bins[i] * log(bins[i]) : 0);
        p->filled[i + 1] = p->filled[i] + (bins[i] > 0);
    }
}

/* sum b log(b / (all q)) over parts [first, end) with the same q. */
static double group_divergence(const prefix *p, int first, int end, double q, double all)
{
    const double mass = p->mass[end] - p->mass[first];
    return p->information[end] - p->information[first] - (mass > 0 ? mass * log(all * fmax(q, 1e-12)) : 0);
}

/* That of one part, which may be empty. */
static double part_divergence(double b, double q, double all)
{
    return b > 0 ? b * log(b / (all * fmax(q, 1e-12))) : 0;
}

static double divergence_at(const prefix *p, int n, const qz_act_scheme *s)
{
    const double within = p->mass[n], all = p->mass[BINS], last = p->mass[n] - p->mass[n - 1];
    double sum = 0;
    if (within <= 0) return INFINITY;
    for (int first = 0, level = 0; first < n; level++) {
        const int end = code_end(first, n, level, s), filled = p->filled[end] - p->filled[first];
        const double q = filled ? (p->mass[end] - p->mass[first]) / filled / within : 0;
        sum += group_divergence(p, first, end < n ? end : n - 1, q, all);
        /* the last part, with the mass beyond the threshold in P but not in Q */
        if (end == n) sum += part_divergence(last + all - within, last > 0 ? q : 0, all);
        first = end;
    }
    return sum / all;
}

double qz_observer_entropy_divergence(const double *bins /* [2048] */, int n, const qz_act_scheme *s)
{
    prefix p;
    prefix_of(&p, bins);
    return divergence_at(&p, n, s);
}

static qz_status finish(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *options)
{
    (void)options;
    *lo = d->low;
    *hi = d->high;
    if (d->low == 0 && d->high == 0) return QZ_OK;
    double *bins = qz_malloc((2 * BINS + 1) * sizeof *bins + sizeof(prefix)), *divergence = bins ? bins + BINS : NULL;
    if (!bins) return QZ_FAIL(QZ_MEMORY, "out of memory for the bins of the observer entropy");
    prefix *p = (prefix *)(divergence + BINS + 1);
    qz_distribution_linear(bins, BINS, d);
    prefix_of(p, bins);
    QZ_PARALLEL_FOR_STATIC
    for (int n = LEVELS; n <= BINS; n++) divergence[n] = divergence_at(p, n, scheme);
    int best = LEVELS;
    for (int n = LEVELS; n <= BINS; n++)
        if (divergence[n] < divergence[best]) best = n;
    qz_distribution_within(lo, hi, d, (float)best * (qz_distribution_most(d) / BINS));
    qz_free(bins);
    return QZ_OK;
}

const qz_observer qz_observer_entropy = {
    .plugin = {"entropy", "the range whose rounded distribution diverges least from the original's",
               "Migacz 2017, 8-bit inference with TensorRT", NULL},
    .finish = finish,
};
