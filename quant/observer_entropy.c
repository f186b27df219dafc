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

/* sum p log(p / q) over parts [first, end) that share `each`. */
static double share_divergence(const double *bins, int first, int end, int n, double beyond, double each, double whole)
{
    double sum = 0;
    for (int i = first; i < end; i++) {
        const double p = (bins[i] + (i == n - 1 ? beyond : 0)) / (whole + beyond);
        double q = bins[i] > 0 ? each / whole : 0;
        q = q < 1e-12 ? 1e-12 : q;
        if (p > 0) sum += p * log(p / q);
    }
    return sum;
}

double qz_observer_entropy_divergence(const double *bins /* [2048] */, int n, const qz_act_scheme *s)
{
    double whole = 0, beyond = 0, sum = 0;
    for (int i = 0; i < n; i++) whole += bins[i];
    for (int i = n; i < BINS; i++) beyond += bins[i];
    if (whole <= 0) return INFINITY;
    for (int first = 0, level = 0; first < n; level++) {
        const int end = code_end(first, n, level, s);
        double mass = 0;
        int filled = 0;
        for (int i = first; i < end; i++) mass += bins[i], filled += bins[i] > 0;
        sum += share_divergence(bins, first, end, n, beyond, filled ? mass / filled : 0, whole);
        first = end;
    }
    return sum;
}

static qz_status finish(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *options)
{
    (void)options;
    *lo = d->low;
    *hi = d->high;
    if (d->low == 0 && d->high == 0) return QZ_OK;
    double *bins = qz_malloc(2 * (BINS + 1) * sizeof *bins), *divergence = bins ? bins + BINS : NULL;
    if (!bins) return QZ_FAIL(QZ_MEMORY, "out of memory for the bins of the observer entropy");
    qz_distribution_linear(bins, BINS, d);
    QZ_PARALLEL_FOR for (int n = LEVELS; n <= BINS; n++) divergence[n] =
        qz_observer_entropy_divergence(bins, n, scheme);
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
