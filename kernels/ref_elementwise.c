/* Elementwise operations of a training step, plainly: gradients of the gated activations and of the cap, products,
 * dropout. Gradients of one element in double, rounded once; the others are fp32 operations. */
#include <math.h>

#include "kernels/dropout.h"
#include "kernels/tables.h"

/* act(x) and its derivative. */
static void silu(double *value, double *slope, double x)
{
    const double s = 1 / (1 + exp(-x));
    *value = x * s;
    *slope = s * (1 + x / (1 + exp(x)));
}

static void gelu(double *value, double *slope, double x)
{
    const double c = sqrt(2 / acos(-1)), t = tanh(c * (x + 0.044715 * x * x * x)), rest = 1 - t * t;
    *value = x / 2 * (1 + t);
    *slope = (1 + t) / 2;
    if (rest > 0) *slope += x / 2 * rest * c * (1 + 3 * 0.044715 * x * x);
}

static void gated_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                       const qz_tensor *up, void (*act)(double *value, double *slope, double x))
{
    for (int64_t t = 0; t < dy->shape[0]; t++) {
        for (int64_t f = 0; f < dy->shape[1]; f++) {
            const double d = qz_f32(dy)[t * dy->stride[0] + f], u = qz_f32(up)[t * up->stride[0] + f];
            double value, slope;
            act(&value, &slope, qz_f32(gate)[t * gate->stride[0] + f]);
            qz_f32(dgate)[t * dgate->stride[0] + f] = (float)(d * u * slope);
            qz_f32(dup)[t * dup->stride[0] + f] = (float)(d * value);
        }
    }
}

qz_status qz_ref_swiglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                             const qz_tensor *up)
{
    gated_grad(dgate, dup, dy, gate, up, silu);
    return QZ_OK;
}

qz_status qz_ref_geglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                            const qz_tensor *up)
{
    gated_grad(dgate, dup, dy, gate, up, gelu);
    return QZ_OK;
}

qz_status qz_ref_softcap_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *y, float cap)
{
    for (int64_t t = 0; t < dy->shape[0]; t++) {
        for (int64_t f = 0; f < dy->shape[1]; f++) {
            const double d = qz_f32(dy)[t * dy->stride[0] + f], ratio = (double)qz_f32(y)[t * y->stride[0] + f] / cap;
            qz_f32(dx)[t * dx->stride[0] + f] = (float)(d * (1 - ratio) * (1 + ratio));
        }
    }
    return QZ_OK;
}

qz_status qz_ref_multiply(const qz_tensor *y, const qz_tensor *a, const qz_tensor *b)
{
    const qz_rows to = qz_rows_of(y), left = qz_rows_of(a), right = qz_rows_of(b);
    for (int64_t r = 0; r < to.rows; r++) {
        for (int64_t c = 0; c < to.cols; c++)
            qz_f32(y)[r * to.stride + c] = qz_f32(a)[r * left.stride + c] * qz_f32(b)[r * right.stride + c];
    }
    return QZ_OK;
}

qz_status qz_ref_add_scaled(const qz_tensor *y, const qz_tensor *x, float factor)
{
    const qz_rows to = qz_rows_of(y), from = qz_rows_of(x);
    for (int64_t r = 0; r < to.rows; r++) {
        for (int64_t c = 0; c < to.cols; c++) qz_f32(y)[r * to.stride + c] += factor * qz_f32(x)[r * from.stride + c];
    }
    return QZ_OK;
}

qz_status qz_ref_dropout(const qz_tensor *y, const qz_tensor *x, float p, uint64_t seed, uint64_t first)
{
    const uint64_t start = qz_dropout_start(seed);
    const int32_t limit = qz_dropout_limit(p);
    for (int64_t t = 0; t < x->shape[0]; t++) {
        const float *in = qz_f32(x) + t * x->stride[0];
        float *out = qz_f32(y) + t * y->stride[0];
        for (int64_t c = 0; c < x->shape[1]; c++)
            out[c] = qz_dropout_keeps(start, first + (uint64_t)(t * x->shape[1] + c), limit) ? in[c] / (1 - p) : 0;
    }
    return QZ_OK;
}
