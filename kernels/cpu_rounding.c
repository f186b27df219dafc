/* What rounding to a grid loses, row by row: values of the nearest codes into a buffer on the stack, then sums over it.
 * The losses are summed in double, the sums that only serve to find a scale in fp32 lanes. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_values.h"
#include "kernels/cpu_wide.h"

enum { BUFFER = 256, LANES = 16, SUMS = 4 };

/* Adds to sums[SUMS]. */
QZ_WIDE static void add_sums(double *sums, const float *w, const float *value, const float *weight, int64_t count)
{
    double loss[LANES] = {0};
    float vv[LANES] = {0}, vw[LANES] = {0}, v[LANES] = {0};
    const int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int64_t j = 0; j < LANES; j++) {
            const float x = value[i + j], e = x - w[i + j], d = weight[i + j], dx = d * x;
            loss[j] += (double)(d * e) * (double)e;
            vv[j] += dx * x;
            vw[j] += dx * w[i + j];
            v[j] += dx;
        }
    for (int64_t i = whole; i < count; i++) {
        const float x = value[i], e = x - w[i], dx = weight[i] * x;
        loss[i - whole] += (double)(weight[i] * e) * (double)e;
        vv[i - whole] += dx * x;
        vw[i - whole] += dx * w[i];
        v[i - whole] += dx;
    }
    for (int j = 0; j < LANES; j++) {
        sums[0] += loss[j];
        sums[1] += (double)vv[j];
        sums[2] += (double)vw[j];
        sums[3] += (double)v[j];
    }
}

static void row_sums(double *sums, const float *w, const float *weight, const qz_qtensor *q, int64_t n)
{
    float value[BUFFER];
    for (int64_t k = 0, end; k < q->cols; k = end, sums += SUMS) {
        int64_t piece;
        end = qz_scheme_run(&piece, &q->scheme, q->cols, n, k);
        for (int i = 0; i < SUMS; i++) sums[i] = 0;
        for (int64_t at = k; at < end; at += BUFFER) {
            const int64_t count = qz_min(BUFFER, end - at);
            qz_values_run(value, w + at, count, q, piece, q->scales[piece]);
            add_sums(sums, w + at, value, weight + at, count);
        }
    }
}

qz_status qz_cpu_rounding_sums(const qz_tensor *sums, const qz_tensor *w, const qz_tensor *weight, const qz_qtensor *q)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t n = 0; n < w->shape[0]; n++)
        row_sums(qz_f64(sums) + n * sums->stride[0], qz_f32(w) + n * w->stride[0], qz_f32(weight), q, n);
    return QZ_OK;
}
