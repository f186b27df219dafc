/* The elementwise parts of a feed-forward block, plainly: silu(gate) * up, gelu(gate) * up, caps and sums. */
#include <math.h>

#include "kernels/tables.h"

qz_status qz_ref_swiglu(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const float *g = qz_f32(gate) + t * gate->stride[0], *u = qz_f32(up) + t * up->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        for (int64_t f = 0; f < y->shape[1]; f++) out[f] = (float)(g[f] / (1 + exp(-(double)g[f])) * u[f]);
    }
    return QZ_OK;
}

static double gelu(double x)
{
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

qz_status qz_ref_geglu(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const float *g = qz_f32(gate) + t * gate->stride[0], *u = qz_f32(up) + t * up->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        for (int64_t f = 0; f < y->shape[1]; f++) out[f] = (float)(gelu(g[f]) * u[f]);
    }
    return QZ_OK;
}

qz_status qz_ref_softcap(const qz_tensor *y, const qz_tensor *x, float cap)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const float *in = qz_f32(x) + t * x->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        for (int64_t f = 0; f < y->shape[1]; f++) out[f] = (float)(cap * tanh((double)in[f] / cap));
    }
    return QZ_OK;
}

qz_status qz_ref_scale(const qz_tensor *y, const qz_tensor *x, float factor)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const float *in = qz_f32(x) + t * x->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        for (int64_t f = 0; f < y->shape[1]; f++) out[f] = in[f] * factor;
    }
    return QZ_OK;
}

qz_status qz_ref_add(const qz_tensor *y, const qz_tensor *x)
{
    qz_rows from = qz_rows_of(x), to = qz_rows_of(y);
    for (int64_t r = 0; r < from.rows; r++) {
        for (int64_t c = 0; c < from.cols; c++) qz_f32(y)[r * to.stride + c] += qz_f32(x)[r * from.stride + c];
    }
    return QZ_OK;
}
