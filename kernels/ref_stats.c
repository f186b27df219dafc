/* What a column of activations looks like, plainly: largest magnitude, and the sum of magnitudes in double. */
#include <math.h>

#include "kernels/tables.h"

qz_status qz_ref_channel_stats(const qz_tensor *absmax, const qz_tensor *abssum, const qz_tensor *x)
{
    for (int64_t k = 0; k < x->shape[1]; k++) {
        float *max = qz_f32(absmax) + k;
        double sum = 0;
        for (int64_t t = 0; t < x->shape[0]; t++) {
            float magnitude = fabsf(qz_f32(x)[t * x->stride[0] + k]);
            if (magnitude > *max) *max = magnitude;
            sum += magnitude;
        }
        qz_f64(abssum)[k] += sum;
    }
    return QZ_OK;
}
