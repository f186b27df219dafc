/* Log probability of the target token, plainly: z_target - max - log sum exp(z - max), in double. */
#include <math.h>

#include "kernels/tables.h"

static double log_softmax(const float *z, int64_t count, int64_t target)
{
    float max = z[0];
    double sum = 0;
    for (int64_t v = 1; v < count; v++) max = z[v] > max ? z[v] : max;
    for (int64_t v = 0; v < count; v++) sum += exp((double)z[v] - max);
    return (double)z[target] - max - log(sum);
}

qz_status qz_ref_log_prob(const qz_tensor *out, const qz_tensor *logits, const int32_t *target)
{
    for (int64_t t = 0; t < out->shape[0]; t++) {
        const float *row = qz_f32(logits) + t * logits->stride[0];
        qz_f64(out)[t] = target[t] < 0 ? 0 : log_softmax(row, logits->shape[1], target[t]);
    }
    return QZ_OK;
}
