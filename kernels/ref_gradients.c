/* Gradients of linear layers, of the embedding and of the RMS norm, plainly, each sum in double and rounded once. */
#include <math.h>

#include "kernels/tables.h"

qz_status qz_ref_linear_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w, bool accumulate)
{
    for (int64_t t = 0; t < dx->shape[0]; t++) {
        const float *in = qz_f32(dy) + t * dy->stride[0];
        for (int64_t k = 0; k < dx->shape[1]; k++) {
            const float *column = qz_f32(w) + k;
            float *out = qz_f32(dx) + t * dx->stride[0] + k;
            double sum = accumulate ? *out : 0;
            for (int64_t n = 0; n < dy->shape[1]; n++) sum += (double)in[n] * column[n * w->stride[0]];
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

qz_status qz_ref_linear_grad_w(const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    for (int64_t n = 0; n < dw->shape[0]; n++) {
        for (int64_t k = 0; k < dw->shape[1]; k++) {
            const float *a = qz_f32(dy) + n, *b = qz_f32(x) + k;
            float *out = qz_f32(dw) + n * dw->stride[0] + k;
            double sum = *out;
            for (int64_t t = 0; t < x->shape[0]; t++) sum += (double)a[t * dy->stride[0]] * b[t * x->stride[0]];
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

qz_status qz_ref_column_sums(const qz_tensor *sums, const qz_tensor *x)
{
    for (int64_t n = 0; n < x->shape[1]; n++) {
        double sum = 0;
        for (int64_t t = 0; t < x->shape[0]; t++) sum += qz_f32(x)[t * x->stride[0] + n];
        qz_f32(sums)[n] = (float)(qz_f32(sums)[n] + sum);
    }
    return QZ_OK;
}

/* Sums of the rows of one token are fp32, one after another: they have nowhere else to be. */
qz_status qz_ref_embedding_grad(const qz_tensor *dtable, const qz_tensor *dy, const int32_t *ids, float factor)
{
    for (int64_t t = 0; t < dy->shape[0]; t++) {
        const float *in = qz_f32(dy) + t * dy->stride[0];
        float *out = qz_f32(dtable) + ids[t] * dtable->stride[0];
        for (int64_t c = 0; c < dy->shape[1]; c++) out[c] += in[c] * factor;
    }
    return QZ_OK;
}

/* 1 / sqrt(mean x^2 + eps) */
static double norm_scale(const float *x, int64_t cols, double eps)
{
    double sum = 0;
    for (int64_t c = 0; c < cols; c++) sum += (double)x[c] * x[c];
    return 1 / sqrt(sum / (double)cols + eps);
}

enum { COLS = 256 }; /* sums in double at a time */

static void norm_weight_grad(float *dw, const qz_tensor *dy, const qz_tensor *x, double eps)
{
    const int64_t cols = x->shape[1];
    for (int64_t first = 0; first < cols; first += COLS) {
        const int64_t count = cols - first < COLS ? cols - first : COLS;
        double sum[COLS] = {0};
        for (int64_t t = 0; t < x->shape[0]; t++) {
            const float *in = qz_f32(x) + t * x->stride[0], *from = qz_f32(dy) + t * dy->stride[0];
            const double r = norm_scale(in, cols, eps);
            for (int64_t c = 0; c < count; c++) sum[c] += (double)from[first + c] * in[first + c] * r;
        }
        for (int64_t c = 0; c < count; c++) dw[first + c] = (float)(dw[first + c] + sum[c]);
    }
}

/* With g = dy (w + offset) and r the scale: dx = r (g - x r^2 mean(g x)). */
qz_status qz_ref_rmsnorm_grad(const qz_tensor *dx, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x,
                              const qz_tensor *w, float eps, float weight_offset, bool accumulate)
{
    const int64_t cols = x->shape[1];
    if (dw) norm_weight_grad(qz_f32(dw), dy, x, eps);
    for (int64_t t = 0; t < x->shape[0]; t++) {
        const float *in = qz_f32(x) + t * x->stride[0], *from = qz_f32(dy) + t * dy->stride[0];
        float *out = qz_f32(dx) + t * dx->stride[0];
        const double r = norm_scale(in, cols, eps);
        double mean = 0;
        for (int64_t c = 0; c < cols; c++) mean += from[c] * ((double)qz_f32(w)[c] + weight_offset) * in[c];
        mean /= (double)cols;
        for (int64_t c = 0; c < cols; c++) {
            const double g = from[c] * ((double)qz_f32(w)[c] + weight_offset);
            out[c] = (float)((accumulate ? out[c] : 0) + r * (g - in[c] * r * r * mean));
        }
    }
    return QZ_OK;
}
