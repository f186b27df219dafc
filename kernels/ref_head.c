/* Log probability of the target token, plainly: z_target - max - log sum exp(z - max), in double; and the sums that the
 * divergence of two rows of logits is made of. */
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

static int64_t largest(const float *z, int64_t count)
{
    int64_t best = 0;
    for (int64_t v = 1; v < count; v++) best = z[v] > z[best] ? v : best;
    return best;
}

static void divergence_row(double *sums, const float *a, const float *b, int64_t count)
{
    const int64_t top_a = largest(a, count), top_b = largest(b, count);
    const double max_a = (double)a[top_a], max_b = (double)b[top_b];
    double sum_a = 0, sum_b = 0, weighted = 0;
    for (int64_t v = 0; v < count; v++) {
        const double p = exp((double)a[v] - max_a);
        sum_a += p;
        sum_b += exp((double)b[v] - max_b);
        weighted += p > 0 ? p * ((double)a[v] - (double)b[v]) : 0;
    }
    sums[QZ_DIVERGENCE_MAX_A] = max_a;
    sums[QZ_DIVERGENCE_TOP_A] = (double)top_a;
    sums[QZ_DIVERGENCE_MAX_B] = max_b;
    sums[QZ_DIVERGENCE_TOP_B] = (double)top_b;
    sums[QZ_DIVERGENCE_SUM_A] = sum_a;
    sums[QZ_DIVERGENCE_SUM_B] = sum_b;
    sums[QZ_DIVERGENCE_WEIGHTED] = weighted;
}

qz_status qz_ref_divergence_sums(const qz_tensor *sums, const qz_tensor *a, const qz_tensor *b)
{
    for (int64_t t = 0; t < a->shape[0]; t++)
        divergence_row(qz_f64(sums) + t * sums->stride[0], qz_f32(a) + t * a->stride[0], qz_f32(b) + t * b->stride[0],
                       a->shape[1]);
    return QZ_OK;
}
