/* What rounding to a grid loses, row by row: values of the nearest codes into a buffer on the stack, then sums over it.
 * The losses are summed in double, the sums that only serve to find a scale in fp32 lanes. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"

enum { BUFFER = 256, LANES = 16, SUMS = 4 };

QZ_WIDE static void round_value(float *out, const float *w, int64_t count, float scale, int zero, int top, int least)
{
    const qz_grid g = {scale, zero, top, least};
    for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(qz_grid_encode(w[i], g, QZ_ROUND_VALUE), g);
}

QZ_WIDE static void round_sum(float *out, const float *w, int64_t count, float scale, int zero, int top, int least)
{
    const qz_grid g = {scale, zero, top, least};
    for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(qz_grid_encode(w[i], g, QZ_ROUND_SUM), g);
}

QZ_WIDE static void round_e4m3(float *out, const float *w, int64_t count, float scale)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = qz_float_decode(qz_float_encode(w[i], scale, QZ_FORMAT_FP8_E4M3), scale, QZ_FORMAT_FP8_E4M3);
}

QZ_WIDE static void round_e5m2(float *out, const float *w, int64_t count, float scale)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = qz_float_decode(qz_float_encode(w[i], scale, QZ_FORMAT_FP8_E5M2), scale, QZ_FORMAT_FP8_E5M2);
}

QZ_WIDE static void round_codebook(float *out, const float *w, int64_t count, float scale, qz_format format)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = qz_codebook_decode(qz_codebook_encode(w[i], scale, format), scale, format);
}

static void round_run(float *out, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    const int bits = qz_format_of(s->format)->bits, zero = q->zeros ? q->zeros[piece] : 1 << (bits - 1);
    const float scale = q->scales[piece];
    if (s->format == QZ_FORMAT_FP8_E4M3)
        round_e4m3(out, w, count, scale);
    else if (s->format == QZ_FORMAT_FP8_E5M2)
        round_e5m2(out, w, count, scale);
    else if (qz_format_of(s->format)->kind == QZ_KIND_CODEBOOK)
        round_codebook(out, w, count, scale, s->format);
    else if (s->zero_rule == QZ_ROUND_VALUE)
        round_value(out, w, count, scale, zero, (1 << bits) - 1, s->narrow);
    else
        round_sum(out, w, count, scale, zero, (1 << bits) - 1, s->narrow);
}

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
            round_run(value, w + at, count, q, piece);
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
