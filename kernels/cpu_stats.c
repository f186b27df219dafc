/* Largest magnitude and sum of magnitudes of each column: blocks of columns in parallel, tokens in order. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

enum { COLS = 256, LEAST = 32, WANTED = 8 };

QZ_WIDE static void add_row(float *max, double *sum, const float *x, int64_t count)
{
    for (int64_t k = 0; k < count; k++) {
        const float magnitude = fabsf(x[k]);
        max[k] = magnitude > max[k] ? magnitude : max[k];
        sum[k] += magnitude;
    }
}

qz_status qz_cpu_channel_stats(const qz_tensor *absmax, const qz_tensor *abssum, const qz_tensor *x)
{
    const int64_t tokens = x->shape[0], size = x->shape[1], side = qz_tile_side(size, COLS, LEAST, WANTED);
    QZ_PARALLEL_FOR for (int64_t k = 0; k < size; k += side)
    {
        double sum[COLS] = {0};
        const int64_t count = qz_min(side, size - k);
        for (int64_t t = 0; t < tokens; t++) add_row(qz_f32(absmax) + k, sum, qz_f32(x) + t * x->stride[0] + k, count);
        for (int64_t i = 0; i < count; i++) qz_f64(abssum)[k + i] += sum[i];
    }
    return QZ_OK;
}
