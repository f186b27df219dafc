/* Log probability of the target token: z_target - max - log sum exp(z - max), rows in parallel, exponentials in fp32
 * and their sum in fp64. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

enum { LANES = 16, BLOCK = 1024 };

QZ_WIDE static float row_max(const float *z, int64_t count)
{
    float lane[LANES], max = z[0];
    int64_t i = 0;
    for (int l = 0; l < LANES; l++) lane[l] = z[0];
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] = z[i + l] > lane[l] ? z[i + l] : lane[l];
    }
    for (; i < count; i++) max = z[i] > max ? z[i] : max;
    for (int l = 0; l < LANES; l++) max = lane[l] > max ? lane[l] : max;
    return max;
}

QZ_WIDE static void exp_block(float *restrict out, const float *restrict z, int64_t count, float max)
{
    for (int64_t i = 0; i < count; i++) out[i] = qz_fast_exp(z[i] - max);
}

QZ_WIDE static double block_sum(const float *x, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] += (double)x[i + l];
    }
    for (; i < count; i++) sum += (double)x[i];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

static double row_exp_sum(const float *z, int64_t count, float max)
{
    float block[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < count; i += BLOCK) {
        const int64_t n = qz_min(BLOCK, count - i);
        exp_block(block, z + i, n, max);
        sum += block_sum(block, n);
    }
    return sum;
}

qz_status qz_cpu_log_prob(const qz_tensor *out, const qz_tensor *logits, const int32_t *target)
{
    const int64_t tokens = out->shape[0], size = logits->shape[1];
    QZ_PARALLEL_FOR for (int64_t t = 0; t < tokens; t++)
    {
        const float *z = qz_f32(logits) + t * logits->stride[0];
        qz_f64(out)[t] = 0;
        if (target[t] < 0) continue;
        const float max = row_max(z, size);
        qz_f64(out)[t] = (double)z[target[t]] - max - log(row_exp_sum(z, size, max));
    }
    return QZ_OK;
}
