/* Observers on small distributions whose answer is known, at their corners, and histogram against sample. */
#include <math.h>
#include <stdlib.h>

#include "numeric/actgrid.h"
#include "quant/distribution.h"
#include "testing/quant_case.h"

enum { COUNT = 20000 };

static float values[COUNT];
static uint64_t bins[QZ_HISTOGRAM_BINS];

static const qz_act_scheme symmetric = {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, true, 127};
static const qz_act_scheme asymmetric = {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, false, 127};
static const qz_act_scheme fp8 = {QZ_ACT_TENSOR, QZ_FORMAT_FP8_E4M3, 0, true, 0};

static qz_distribution sample_of(int64_t count)
{
    qz_distribution d = {.sample = values, .count = count};
    qz_range_of(&d.low, &d.high, values, count);
    return d;
}

static qz_distribution histogram_of(int64_t count)
{
    qz_distribution d = sample_of(count);
    memset(bins, 0, sizeof bins);
    for (int64_t i = 0; i < count; i++) bins[qz_float_bits(values[i]) >> QZ_HISTOGRAM_SHIFT]++;
    d.sample = NULL;
    d.histogram = bins;
    return d;
}

/* Normal values with a few at 50. */
static void fill_with_outliers(void)
{
    qz_rng r;
    qz_rng_seed(&r, 4, 4);
    for (int i = 0; i < COUNT; i++) values[i] = (float)qz_rng_normal(&r) * (i % 3 ? 1 : 0.25f);
    for (int i = 0; i < 4; i++) values[i * 5000] = i % 2 ? 50 : -40;
}

static void finish(const char *name, float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *s)
{
    const int at = qz_plugins_find(qz_observers(), name);
    const qz_options options = qz_options_default(qz_observer_at((size_t)at)->plugin.options);
    check_ok(qz_observer_at((size_t)at)->finish(lo, hi, d, s, &options));
}

Test(observers, all_stay_within_the_extremes_and_hold_zero)
{
    static const qz_act_scheme *const schemes[] = {&symmetric, &asymmetric, &fp8};
    fill_with_outliers();
    for (size_t i = 0; i < qz_observers()->count; i++) {
        for (int s = 0; s < 6; s++) {
            const qz_distribution d = s < 3 ? sample_of(COUNT) : histogram_of(COUNT);
            float lo, hi;
            finish(qz_observers()->rows[i]->name, &lo, &hi, &d, schemes[s % 3]);
            cr_assert(lo <= 0 && hi >= 0 && lo >= d.low && hi <= d.high && hi > lo, "%s: %g .. %g",
                      qz_observers()->rows[i]->name, lo, hi);
        }
    }
}

Test(observers, zeros_give_an_empty_range)
{
    memset(values, 0, sizeof values);
    for (size_t i = 0; i < qz_observers()->count; i++) {
        for (int kind = 0; kind < 2; kind++) {
            const qz_distribution d = kind ? histogram_of(100) : sample_of(100);
            float lo, hi;
            finish(qz_observers()->rows[i]->name, &lo, &hi, &d, &symmetric);
            cr_assert(lo == 0 && hi == 0);
        }
    }
}

/* Where the tail is four values of 20000, percentile and entropy give it up; fp8, whose codes grow with the value, has
 * no reason to under mse. */
Test(observers, differ_as_their_measures_do)
{
    float lo, hi;
    fill_with_outliers();
    const qz_distribution d = sample_of(COUNT);
    finish("minmax", &lo, &hi, &d, &symmetric);
    cr_assert(lo == -40 && hi == 50);
    finish("percentile", &lo, &hi, &d, &symmetric);
    cr_assert(hi > 3 && hi < 50);
    finish("entropy", &lo, &hi, &d, &symmetric);
    cr_assert(hi < 10, "%g", hi);
    finish("mse", &lo, &hi, &d, &fp8);
    cr_assert(hi > 40, "%g", hi);
}

Test(observers, mse_is_the_least_error)
{
    float lo, hi;
    fill_with_outliers();
    const qz_distribution d = sample_of(COUNT);
    finish("mse", &lo, &hi, &d, &asymmetric);
    const double ours = qz_distribution_error(&d, &asymmetric, qz_act_values_of(lo, hi, asymmetric));
    for (int i = 1; i <= 200; i++) {
        const float part = (float)i / 200;
        const qz_act_values v = qz_act_values_of(d.low * part, d.high * part, asymmetric);
        cr_assert(qz_distribution_error(&d, &asymmetric, v) >= ours, "%d", i);
    }
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

Test(observers, quantiles_are_those_of_sorted_values)
{
    static float sorted[999];
    fill_with_outliers();
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, 999, sizeof *sorted, by_value);
    const qz_distribution d = sample_of(999);
    for (int i = 0; i < 999; i += 7)
        cr_assert(fabs(qz_distribution_quantile(&d, i / 998.0, false) - sorted[i]) <= 1e-5 * fabsf(sorted[i]), "%d", i);
    cr_assert(qz_distribution_quantile(&d, 0, false) == d.low && qz_distribution_quantile(&d, 1, false) == d.high);
}

Test(observers, clipped_mass_is_counted)
{
    for (int i = 0; i < 100; i++) values[i] = i < 90 ? 1 : i < 95 ? 4 : -3;
    for (int kind = 0; kind < 2; kind++) {
        const qz_distribution d = kind ? histogram_of(100) : sample_of(100);
        double share, energy;
        qz_distribution_clipped(&share, &energy, &d, -3, 2);
        cr_assert(fabs(share - 0.05) < 1e-12, "%g", share);
        cr_assert(fabs(energy - 80.0 / 215) < (kind ? 0.02 : 1e-12), "%g", energy);
        qz_distribution_clipped(&share, &energy, &d, d.low, d.high);
        cr_assert(share == 0 && energy == 0);
    }
}

/* A histogram keeps what a sample knows, to the width of a bin: errors of rounding and equal parts. */
Test(observers, histogram_stands_for_the_sample)
{
    fill_with_outliers();
    const qz_distribution s = sample_of(COUNT), h = histogram_of(COUNT);
    double of_sample[64], of_bins[64], total = 0;
    for (int i = 2; i <= 20; i++) {
        const qz_act_values v = qz_act_values_of(-0.5f * (float)i, 0.5f * (float)i, symmetric);
        const double exact = qz_distribution_error(&s, &symmetric, v),
                     coarse = qz_distribution_error(&h, &symmetric, v);
        cr_assert(fabs(coarse - exact) <= 0.05 * exact, "%d: %g, %g", i, coarse, exact);
    }
    qz_distribution_linear(of_sample, 64, &s);
    qz_distribution_linear(of_bins, 64, &h);
    for (int i = 0; i < 64; i++) {
        total += of_bins[i];
        cr_assert(fabs(of_bins[i] - of_sample[i]) <= 0.02 * COUNT, "%d", i);
    }
    cr_assert(fabs(total - COUNT) < 1e-6);
    cr_assert(qz_distribution_count(&h) == COUNT && qz_distribution_count(&s) == COUNT);
}
