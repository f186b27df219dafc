/* Rounding of activations and of cached heads, and the counts of a histogram, plainly: numeric/actgrid.h on one value
 * after another. */
#include "kernels/tables.h"
#include "numeric/actgrid.h"

/* One piece of a row that shares a scale. */
static void round_piece(float *y, const float *x, int64_t count, const qz_act_scheme *s, const qz_act_values *fixed)
{
    qz_act_values v;
    if (s->mode == QZ_ACT_TENSOR) {
        v = *fixed;
    } else {
        float lo, hi;
        qz_range_of(&lo, &hi, x, count);
        v = qz_act_values_of(lo, hi, *s);
    }
    for (int64_t i = 0; i < count; i++) y[i] = qz_act_round(x[i], v, s->format);
}

qz_status qz_ref_round_activations(const qz_tensor *y, const qz_tensor *x, const qz_act_scheme *scheme,
                                   const qz_act_values *values)
{
    const int64_t cols = x->shape[1], piece = scheme->mode == QZ_ACT_GROUP ? scheme->group : cols;
    for (int64_t t = 0; t < x->shape[0]; t++) {
        for (int64_t k = 0; k < cols; k += piece)
            round_piece(qz_f32(y) + t * y->stride[0] + k, qz_f32(x) + t * x->stride[0] + k,
                        cols - k < piece ? cols - k : piece, scheme, values);
    }
    return QZ_OK;
}

qz_status qz_ref_round_heads(const qz_tensor *y, const qz_tensor *x, const qz_tensor *scale, qz_format format)
{
    for (int64_t t = 0; t < x->shape[0]; t++) {
        for (int64_t h = 0; h < x->shape[1]; h++) {
            const qz_act_values v = {qz_f32(scale)[h], 0};
            const float *in = qz_f32(x) + t * x->stride[0] + h * x->stride[1];
            float *out = qz_f32(y) + t * y->stride[0] + h * y->stride[1];
            for (int64_t d = 0; d < x->shape[2]; d++) out[d] = qz_act_round(in[d], v, format);
        }
    }
    return QZ_OK;
}

qz_status qz_ref_histogram(uint64_t *counts, const qz_tensor *x)
{
    for (int64_t t = 0; t < x->shape[0]; t++) {
        for (int64_t k = 0; k < x->shape[1]; k++)
            counts[qz_float_bits(qz_f32(x)[t * x->stride[0] + k]) >> QZ_HISTOGRAM_SHIFT]++;
    }
    return QZ_OK;
}
