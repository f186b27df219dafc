/* What the observers ask of a distribution, whether it is a sample or a histogram. Private to quant/.
 *
 * A bin of the histogram is taken as evenly filled, and is cut at the extremes, which are known exactly. */
#ifndef QZ_QUANT_DISTRIBUTION_H
#define QZ_QUANT_DISTRIBUTION_H

#include "quant/quant.h"

/* The largest magnitude. */
static inline float qz_distribution_most(const qz_distribution *d)
{
    return -d->low > d->high ? -d->low : d->high;
}

/* The interval of the distribution within -t .. t. */
static inline void qz_distribution_within(float *lo, float *hi, const qz_distribution *d, float t)
{
    *lo = d->low < -t ? -t : d->low;
    *hi = d->high > t ? t : d->high;
}

/* How many values there are. */
double qz_distribution_count(const qz_distribution *d);
/* sum (x - round(x))^2 for that scale and zero. */
double qz_distribution_error(const qz_distribution *d, const qz_act_scheme *scheme, qz_act_values v);
/* Value below which the share p lies, between order statistics by linear interpolation: of |x|, or of x. */
double qz_distribution_quantile(const qz_distribution *d, double p, bool of_magnitudes);
/* bins[count]: how many |x| fall into each of equal parts of 0 .. most, the largest into the last. */
void qz_distribution_linear(double *bins, int count, const qz_distribution *d);
/* The divergence that the observer entropy minimizes, for a threshold at the n-th of 2048 equal parts. */
double qz_observer_entropy_divergence(const double *bins /* [2048] */, int n, const qz_act_scheme *scheme);

#endif
