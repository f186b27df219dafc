/* Sums in sixteen lanes, added up at the end in their order; see cpu_wide.h for why lanes are written out. */
#include "kernels/cpu_reduce.h"

#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

enum { LANES = 16, BLOCK = 1024 };

QZ_WIDE float qz_reduce_max(const float *x, int64_t count)
{
    float lane[LANES], max = x[0];
    int64_t i = 0;
    for (int l = 0; l < LANES; l++) lane[l] = x[0];
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    }
    for (; i < count; i++) max = x[i] > max ? x[i] : max;
    for (int l = 0; l < LANES; l++) max = lane[l] > max ? lane[l] : max;
    return max;
}

QZ_WIDE double qz_reduce_sum(const float *x, int64_t count)
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

QZ_WIDE double qz_reduce_squares(const float *x, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] += (double)x[i + l] * x[i + l];
    }
    for (; i < count; i++) sum += (double)x[i] * x[i];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

QZ_WIDE double qz_reduce_weighted(const float *a, const float *w, float offset, const float *b, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] += (double)(a[i + l] * (w[i + l] + offset)) * b[i + l];
    }
    for (; i < count; i++) sum += (double)(a[i] * (w[i] + offset)) * b[i];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

QZ_WIDE static void exp_block(float *restrict out, const float *restrict x, int64_t count, float max)
{
    for (int64_t i = 0; i < count; i++) out[i] = qz_fast_exp(x[i] - max);
}

double qz_reduce_exp(const float *x, int64_t count, float max)
{
    float block[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < count; i += BLOCK) {
        const int64_t n = qz_min(BLOCK, count - i);
        exp_block(block, x + i, n, max);
        sum += qz_reduce_sum(block, n);
    }
    return sum;
}
