/* See distribution.h. Quantiles of a sample are exact: the k-th smallest is found by counting leading bits of the
 * ordered keys of its floats, so nothing is sorted or allocated. */
#include "quant/distribution.h"

#include <math.h>

#include "numeric/actgrid.h"

enum { SIDE = QZ_HISTOGRAM_BINS / 2, POINTS = 16 }; /* bins of one sign; most points that stand for a bin */

/* ---- bins ---- */

/* Magnitudes of a bin, within the extremes. */
static void magnitudes(double *a, double *b, const qz_distribution *d, int bin)
{
    const double most = bin < SIDE ? (double)d->high : -(double)d->low;
    *a = (double)qz_bits_float((uint32_t)(bin % SIDE) << QZ_HISTOGRAM_SHIFT);
    *b = (double)qz_bits_float((uint32_t)(bin % SIDE + 1) << QZ_HISTOGRAM_SHIFT);
    if (*b > most) *b = most;
    if (*a > *b) *a = *b;
}

double qz_distribution_count(const qz_distribution *d)
{
    uint64_t sum = 0;
    if (!d->histogram) return (double)d->count;
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) sum += d->histogram[i];
    return (double)sum;
}

/* ---- rounding error ---- */

static double squared_error(float x, const qz_act_scheme *s, qz_act_values v)
{
    const double e = (double)x - (double)qz_act_round(x, v, s->format);
    return e * e;
}

/* Points that stand for a bin: four to a step of the codes. An fp8 step is 2 to 4 bins wide. */
static int points_of(double width, const qz_act_scheme *s, qz_act_values v)
{
    if (s->format != QZ_FORMAT_INT8) return 4;
    const double wanted = 4 * width / (double)v.scale;
    return wanted < 1 ? 1 : wanted < POINTS ? (int)wanted + 1 : POINTS;
}

static double bin_error(const qz_distribution *d, int bin, const qz_act_scheme *s, qz_act_values v)
{
    double a, b, sum = 0;
    magnitudes(&a, &b, d, bin);
    const int points = points_of(b - a, s, v);
    for (int i = 0; i < points; i++) {
        const double x = a + (b - a) * (i + 0.5) / points;
        sum += squared_error((float)(bin < SIDE ? x : -x), s, v);
    }
    return sum / points;
}

double qz_distribution_error(const qz_distribution *d, const qz_act_scheme *scheme, qz_act_values v)
{
    double sum = 0;
    if (!d->histogram) {
        for (int64_t i = 0; i < d->count; i++) sum += squared_error(d->sample[i], scheme, v);
        return sum;
    }
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++)
        if (d->histogram[i]) sum += (double)d->histogram[i] * bin_error(d, i, scheme, v);
    return sum;
}

static double energy_of(const qz_distribution *d)
{
    double sum = 0;
    for (int64_t i = 0; !d->histogram && i < d->count; i++) sum += (double)d->sample[i] * (double)d->sample[i];
    for (int i = 0; d->histogram && i < QZ_HISTOGRAM_BINS; i++) {
        double a, b;
        if (!d->histogram[i]) continue;
        magnitudes(&a, &b, d, i);
        sum += (double)d->histogram[i] * (a * a + a * b + b * b) / 3;
    }
    return sum;
}

double qz_distribution_error_share(const qz_distribution *d, const qz_act_scheme *scheme, qz_act_values v)
{
    const double energy = energy_of(d);
    return energy > 0 ? qz_distribution_error(d, scheme, v) / energy : 0;
}

/* ---- quantiles ---- */

/* Keys whose order is that of the values, or of the magnitudes. */
static uint32_t key_of(float x, bool magnitude)
{
    const uint32_t bits = qz_float_bits(x);
    if (magnitude) return bits & 0x7FFFFFFFu;
    return bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}

static float value_of(uint32_t key, bool magnitude)
{
    if (magnitude) return qz_bits_float(key);
    return qz_bits_float(key ^ (key >> 31 ? 0x80000000u : 0xFFFFFFFFu));
}

/* The k-th smallest (from 0) of the sample. */
static float order_statistic(const qz_distribution *d, int64_t k, bool magnitude)
{
    enum { DIGIT = 11, DIGITS = 1 << DIGIT };
    uint32_t key = 0;
    for (int shift = 22; shift >= 0; shift -= DIGIT) { /* digits of 10, 11 and 11 bits */
        int64_t counts[DIGITS] = {0};
        uint32_t digit = 0;
        for (int64_t i = 0; i < d->count; i++) {
            const uint32_t at = key_of(d->sample[i], magnitude);
            if (shift == 22 || (at ^ key) >> (shift + DIGIT) == 0) counts[at >> shift & (DIGITS - 1)]++;
        }
        while (k >= counts[digit]) k -= counts[digit++];
        key |= digit << shift;
    }
    return value_of(key, magnitude);
}

static double sample_quantile(const qz_distribution *d, double p, bool magnitude)
{
    const double at = p * (double)(d->count - 1);
    const int64_t k = (int64_t)at;
    const double low = (double)order_statistic(d, k, magnitude);
    if (at <= (double)k) return low;
    return low + ((double)order_statistic(d, k + 1, magnitude) - low) * (at - (double)k);
}

/* Bin i of the order in which values grow. */
static int bin_in_order(int i, bool magnitude)
{
    if (magnitude) return i / 2 + i % 2 * SIDE;
    return i < SIDE ? QZ_HISTOGRAM_BINS - 1 - i : i - SIDE;
}

static double histogram_quantile(const qz_distribution *d, double p, bool magnitude)
{
    const double at = p * (qz_distribution_count(d) - 1);
    double before = 0;
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) {
        const int bin = bin_in_order(i, magnitude);
        const double count = (double)d->histogram[bin];
        if (count == 0 || before + count <= at) {
            before += count;
            continue;
        }
        double a, b, part = (at - before + 0.5) / count;
        magnitudes(&a, &b, d, bin);
        part = part > 1 ? 1 : part;
        if (bin < SIDE || magnitude) return a + (b - a) * part;
        return -(b - (b - a) * part);
    }
    return magnitude ? (double)qz_distribution_most(d) : (double)d->high;
}

double qz_distribution_quantile(const qz_distribution *d, double p, bool of_magnitudes)
{
    return d->histogram ? histogram_quantile(d, p, of_magnitudes) : sample_quantile(d, p, of_magnitudes);
}

/* ---- equal parts ---- */

static void add_sample(double *bins, int count, const qz_distribution *d)
{
    const double most = (double)qz_distribution_most(d);
    for (int64_t i = 0; i < d->count; i++) {
        int at = (int)(fabs((double)d->sample[i]) * count / most);
        bins[at < count ? at : count - 1]++;
    }
}

/* Spreads the counts evenly over the parts that the bin covers. */
static void add_bin(double *bins, int count, const qz_distribution *d, int bin)
{
    double a, b;
    const double most = (double)qz_distribution_most(d), each = count / most;
    magnitudes(&a, &b, d, bin);
    a *= each;
    b *= each;
    int first = (int)a, last = (int)b;
    first = first < count ? first : count - 1;
    last = last < count ? last : count - 1;
    if (first == last || b <= a) {
        bins[first] += (double)d->histogram[bin];
        return;
    }
    for (int i = first; i <= last; i++) {
        const double from = i > a ? i : a, to = i + 1 < b ? i + 1 : b;
        bins[i] += (double)d->histogram[bin] * (to - from) / (b - a);
    }
}

void qz_distribution_linear(double *bins, int count, const qz_distribution *d)
{
    for (int i = 0; i < count; i++) bins[i] = 0;
    if (!d->histogram) {
        add_sample(bins, count, d);
        return;
    }
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++)
        if (d->histogram[i]) add_bin(bins, count, d, i);
}

/* ---- what a range cuts off ---- */

/* Adds the part of the magnitudes a .. b that lies beyond `limit`: elements, and the sum of their squares. */
static void beyond(double *count, double *energy, double a, double b, double limit, double weight)
{
    if (b <= limit) return;
    const double from = a > limit ? a : limit, part = b > a ? (b - from) / (b - a) : 1;
    *count += weight * part;
    *energy += weight * part * (from * from + from * b + b * b) / 3;
}

void qz_distribution_clipped(double *share, double *energy_share, const qz_distribution *d, float lo, float hi)
{
    double count = 0, energy = 0, all = 0, whole = 0;
    const int64_t points = d->histogram ? QZ_HISTOGRAM_BINS : d->count;
    for (int64_t i = 0; i < points; i++) {
        const double weight = d->histogram ? (double)d->histogram[i] : 1;
        double a, b, limit;
        if (weight == 0) continue;
        if (d->histogram) {
            magnitudes(&a, &b, d, (int)i);
            limit = i < SIDE ? (double)hi : -(double)lo;
        } else {
            a = b = fabs((double)d->sample[i]);
            limit = d->sample[i] > 0 ? (double)hi : -(double)lo;
        }
        beyond(&count, &energy, a, b, limit, weight);
        beyond(&all, &whole, a, b, -1, weight);
    }
    *share = all > 0 ? count / all : 0;
    *energy_share = whole > 0 ? energy / whole : 0;
}
