/* Everything that was seen. */
#include "quant/quant.h"

static qz_status finish(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *options)
{
    (void)scheme, (void)options;
    *lo = d->low;
    *hi = d->high;
    return QZ_OK;
}

const qz_observer qz_observer_minmax = {
    .plugin = {"minmax", "smallest and largest value that was seen", "", NULL},
    .finish = finish,
};
