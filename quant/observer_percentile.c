/* The range that holds all but a small share of the values: the percentile of |x|, or, when the codes are asymmetric,
 * half of the share cut off at either end of x. */
#include "quant/distribution.h"

static const qz_option options[] = {
    QZ_OPTION_NUMBER("percent", 99.99, 50, 100, "percent of the values that the range holds"),
    QZ_OPTION_END,
};

static qz_status finish(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *values)
{
    const double p = qz_options_number(values, "percent") / 100;
    *lo = d->low;
    *hi = d->high;
    if (p >= 1 || qz_distribution_count(d) < 1) return QZ_OK;
    if (scheme->symmetric || scheme->format != QZ_FORMAT_INT8) {
        qz_distribution_within(lo, hi, d, (float)qz_distribution_quantile(d, p, true));
        return QZ_OK;
    }
    const double low = qz_distribution_quantile(d, (1 - p) / 2, false);
    const double high = qz_distribution_quantile(d, (1 + p) / 2, false);
    *lo = low < 0 ? (float)low : 0;
    *hi = high > 0 ? (float)high : 0;
    return QZ_OK;
}

const qz_observer qz_observer_percentile = {
    .plugin = {"percentile", "the range that holds `percent` of the values", "", options},
    .finish = finish,
};
