/* The shrunken range whose rounding error, sum (x - round(x))^2, is least: fractions i / steps of the extremes. */
#include <math.h>

#include "base/arena.h"
#include "base/parallel.h"
#include "numeric/actgrid.h"
#include "quant/distribution.h"

static const qz_option options[] = {
    QZ_OPTION_INT("steps", 200, 2, 2000, "ranges that are tried: fractions i / steps of the largest value"),
    QZ_OPTION_END,
};

static qz_status finish(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *values)
{
    const int64_t steps = qz_options_int(values, "steps");
    *lo = d->low;
    *hi = d->high;
    if (d->low == 0 && d->high == 0) return QZ_OK;
    double *error = qz_malloc((size_t)(steps + 1) * sizeof *error);
    if (!error) return QZ_FAIL(QZ_MEMORY, "out of memory for %lld errors of the observer mse", (long long)steps);
    QZ_PARALLEL_FOR for (int64_t i = 1; i <= steps; i++)
    {
        const float part = (float)i / (float)steps;
        error[i] = qz_distribution_error(d, scheme, qz_act_values_of(d->low * part, d->high * part, *scheme));
    }
    int64_t best = steps;
    for (int64_t i = steps - 1; i >= 1; i--)
        if (error[i] <= error[best]) best = i;
    qz_free(error);
    *lo = d->low * ((float)best / (float)steps);
    *hi = d->high * ((float)best / (float)steps);
    return QZ_OK;
}

const qz_observer qz_observer_mse = {
    .plugin = {"mse", "the shrunken range with the least squared rounding error", "", options},
    .finish = finish,
};
