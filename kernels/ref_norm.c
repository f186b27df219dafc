/* RMS norm and rotary embedding, plainly; the sums and products of one element in double, rounded once. */
#include <math.h>

#include "kernels/tables.h"

qz_status qz_ref_rmsnorm(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, float eps, float weight_offset)
{
    int64_t cols = x->shape[1];
    for (int64_t t = 0; t < x->shape[0]; t++) {
        const float *in = qz_f32(x) + t * x->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) sum += (double)in[c] * in[c];
        double scale = 1 / sqrt(sum / (double)cols + eps);
        for (int64_t c = 0; c < cols; c++) out[c] = (float)(in[c] * scale * ((double)qz_f32(w)[c] + weight_offset));
    }
    return QZ_OK;
}

static void rotate(float *x, const float *cos, const float *sin, double sign, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        double a = x[i], b = x[i + half];
        x[i] = (float)(a * cos[i] - b * sin[i] * sign);
        x[i + half] = (float)(b * cos[i] + a * sin[i] * sign);
    }
}

qz_status qz_ref_rope(const qz_tensor *x, const qz_tensor *cos, const qz_tensor *sin, const int32_t *positions,
                      bool inverse)
{
    for (int64_t t = 0; t < x->shape[0]; t++) {
        const float *c = qz_f32(cos) + positions[t] * cos->stride[0];
        const float *s = qz_f32(sin) + positions[t] * sin->stride[0];
        for (int64_t h = 0; h < x->shape[1]; h++)
            rotate(qz_f32(x) + t * x->stride[0] + h * x->stride[1], c, s, inverse ? -1 : 1, x->shape[2] / 2);
    }
    return QZ_OK;
}
