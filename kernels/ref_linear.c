/* Products of matrices, plainly, each sum in double: linear layer, Gram matrix, quadratic form. */
#include "kernels/tables.h"

qz_status qz_ref_linear(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, const qz_tensor *bias,
                        bool accumulate)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        for (int64_t n = 0; n < y->shape[1]; n++) {
            const float *xt = qz_f32(x) + t * x->stride[0], *wn = qz_f32(w) + n * w->stride[0];
            float *out = qz_f32(y) + t * y->stride[0] + n;
            double sum = bias ? qz_f32(bias)[n] : 0;
            if (accumulate) sum += *out;
            for (int64_t k = 0; k < x->shape[1]; k++) sum += (double)xt[k] * wn[k];
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

qz_status qz_ref_gram(const qz_tensor *g, const qz_tensor *x)
{
    for (int64_t i = 0; i < g->shape[0]; i++) {
        for (int64_t j = 0; j <= i; j++) {
            const float *a = qz_f32(x) + i, *b = qz_f32(x) + j;
            float *out = qz_f32(g) + i * g->stride[0] + j;
            double sum = *out;
            for (int64_t t = 0; t < x->shape[0]; t++) sum += (double)a[t * x->stride[0]] * b[t * x->stride[0]];
            *out = (float)sum;
        }
    }
    return QZ_OK;
}

/* sum_i d_i (g_ii d_i + 2 sum_{j<i} g_ij d_j) */
qz_status qz_ref_quadratic_form(const qz_tensor *out, const qz_tensor *d, const qz_tensor *g)
{
    for (int64_t n = 0; n < d->shape[0]; n++) {
        const float *dn = qz_f32(d) + n * d->stride[0];
        double sum = 0;
        for (int64_t i = 0; i < g->shape[0]; i++) {
            const float *gi = qz_f32(g) + i * g->stride[0];
            double below = 0;
            for (int64_t j = 0; j < i; j++) below += (double)gi[j] * dn[j];
            sum += dn[i] * (gi[i] * (double)dn[i] + 2 * below);
        }
        qz_f64(out)[n] = sum;
    }
    return QZ_OK;
}
