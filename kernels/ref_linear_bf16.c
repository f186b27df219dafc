/* A linear layer and its gradients with both factors rounded to BF16, plainly, each sum in double. */
#include "kernels/tables.h"
#include "numeric/minifloat.h"

static double rounded(float x)
{
    return (double)qz_bf16_decode(qz_bf16_encode(x));
}

qz_status qz_ref_linear_bf16(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, const qz_tensor *bias,
                             bool accumulate)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        for (int64_t n = 0; n < y->shape[1]; n++) {
            const float *xt = qz_f32(x) + t * x->stride[0], *wn = qz_f32(w) + n * w->stride[0];
            float *out = qz_f32(y) + t * y->stride[0] + n;
            double sum = bias ? (double)qz_f32(bias)[n] : 0;
            if (accumulate) sum += (double)*out;
            for (int64_t k = 0; k < x->shape[1]; k++) sum += rounded(xt[k]) * rounded(wn[k]);
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

qz_status qz_ref_linear_grad_x_bf16(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w, bool accumulate)
{
    for (int64_t t = 0; t < dx->shape[0]; t++) {
        const float *in = qz_f32(dy) + t * dy->stride[0];
        for (int64_t k = 0; k < dx->shape[1]; k++) {
            const float *column = qz_f32(w) + k;
            float *out = qz_f32(dx) + t * dx->stride[0] + k;
            double sum = accumulate ? (double)*out : 0;
            for (int64_t n = 0; n < dy->shape[1]; n++) sum += rounded(in[n]) * rounded(column[n * w->stride[0]]);
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

qz_status qz_ref_linear_grad_w_bf16(const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    for (int64_t n = 0; n < dw->shape[0]; n++) {
        for (int64_t k = 0; k < dw->shape[1]; k++) {
            const float *a = qz_f32(dy) + n, *b = qz_f32(x) + k;
            float *out = qz_f32(dw) + n * dw->stride[0] + k;
            double sum = (double)*out;
            for (int64_t t = 0; t < x->shape[0]; t++)
                sum += rounded(a[t * dy->stride[0]]) * rounded(b[t * x->stride[0]]);
            *out = (float)sum;
        }
    }
    return QZ_OK;
}
