/* What quantization with error feedback is made of, plainly: the Cholesky factor, rounding of columns whose errors are
 * passed on, and the solution with a unit triangle. */
#include <math.h>
#include <stddef.h>

#include "kernels/tables.h"
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"

qz_status qz_ref_cholesky(const qz_tensor *a, int64_t size, int64_t *failed)
{
    const qz_triangle t = qz_triangle_of(a->data, size);
    *failed = -1;
    for (int64_t j = 0; j < size; j++) {
        const double *above = qz_triangle_row(t, j);
        for (int64_t i = j; i < size; i++) {
            double *row = qz_triangle_row(t, i), *out = row + j;
            for (int64_t k = 0; k < j; k++) *out -= row[k] * above[k];
            if (i == j && !(*out > 0 && isfinite(*out))) {
                *failed = j;
                return QZ_OK;
            }
            *out = i == j ? sqrt(*out) : *out / above[j];
        }
    }
    return QZ_OK;
}

qz_status qz_ref_unit_solve(const qz_tensor *x, const qz_tensor *l)
{
    for (int64_t n = 0; n < x->shape[0]; n++) {
        float *row = qz_f32(x) + n * x->stride[0];
        for (int64_t k = 0; k < x->shape[1]; k++) {
            double sum = row[k];
            for (int64_t i = 0; i < k; i++) sum -= (double)qz_f32(l)[k * l->stride[0] + i] * row[i];
            row[k] = (float)sum;
        }
    }
    return QZ_OK;
}

/* The code nearest to x and its value. */
static uint8_t nearest(float *value, float x, const qz_scheme *s, float scale, const uint8_t *own_zero)
{
    const qz_format_info *f = qz_format_of(s->format);
    uint8_t code;
    if (f->kind == QZ_KIND_INTEGER) {
        const int zero = own_zero ? *own_zero : 1 << (f->bits - 1);
        const qz_grid grid = {scale, zero, (1 << f->bits) - 1, s->narrow};
        code = (uint8_t)qz_grid_encode(x, grid, s->zero_rule);
        *value = qz_grid_decode(code, grid);
    } else if (f->kind == QZ_KIND_CODEBOOK) {
        code = qz_codebook_encode(x, scale, s->format);
        *value = qz_codebook_decode(code, scale, s->format);
    } else {
        code = qz_float_encode(x, scale, s->format);
        *value = qz_float_decode(code, scale, s->format);
    }
    return code;
}

qz_status qz_ref_round_columns(const qz_tensor *codes, const qz_tensor *d, const qz_tensor *loss, const qz_tensor *w,
                               const qz_tensor *c, const qz_tensor *l, const qz_tensor *weight,
                               const qz_round_grids *grids)
{
    for (int64_t n = 0; n < w->shape[0]; n++) {
        float *cn = qz_f32(c) + n * c->stride[0], *dn = qz_f32(d) + n * d->stride[0];
        uint8_t *out = (uint8_t *)codes->data + n * codes->stride[0];
        const float *wn = qz_f32(w) + n * w->stride[0];
        for (int64_t k = 0; k < w->shape[1]; k++) {
            const float x = cn[k] == 0 ? wn[k] : wn[k] + cn[k];
            const float scale = qz_f32(&grids->scales)[grids->row[k] * grids->scales.stride[0] + n];
            const uint8_t *zeros = grids->zeros.data;
            float value;
            out[k] = nearest(&value, x, grids->scheme, scale,
                             zeros ? zeros + grids->row[k] * grids->zeros.stride[0] + n : NULL);
            dn[k] = wn[k] - value;
            qz_f64(loss)[n] += (double)(x - value) * (x - value) * qz_f64(weight)[k];
            for (int64_t j = k + 1; j < w->shape[1]; j++) cn[j] += dn[k] * qz_f32(l)[j * l->stride[0] + k];
        }
    }
    return QZ_OK;
}

qz_status qz_ref_rounding_sums(const qz_tensor *sums, const qz_tensor *w, const qz_tensor *weight, const qz_qtensor *q)
{
    for (int64_t n = 0; n < w->shape[0]; n++) {
        double *out = qz_f64(sums) + n * sums->stride[0];
        const float *wn = qz_f32(w) + n * w->stride[0];
        for (int64_t k = 0, end; k < q->cols; k = end, out += 4) {
            int64_t piece;
            end = qz_scheme_run(&piece, &q->scheme, q->cols, n, k);
            out[0] = out[1] = out[2] = out[3] = 0;
            for (int64_t j = k; j < end; j++) {
                const double d = qz_f32(weight)[j], x = wn[j];
                float v;
                nearest(&v, wn[j], &q->scheme, q->scales[piece], q->zeros ? q->zeros + piece : NULL);
                out[0] += d * (v - x) * (v - x);
                out[1] += d * v * v;
                out[2] += d * v * x;
                out[3] += d * v;
            }
        }
    }
    return QZ_OK;
}
