/* Rounding of columns with error feedback. Sixteen rows are taken together, column k of them one vector: column after
 * column is rounded, and its errors, times column k of the triangle, are added to the columns right of it: at once to
 * those of its run of eight, to the others when the run is done, with all eight in registers. The operations and their
 * order for one element are those of `ref`, so the bits are too. */
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"

/* ROWS of a piece of work, RUN columns that pass their errors on together. */
enum { LANES = 16, COLS = QZ_ROUND_COLUMNS, ROWS = 256, RUN = 8 };

/* LANES floats as one operand, in whatever registers there are. */
typedef float lanes __attribute__((vector_size(64), may_alias));

/* Sixteen rows of a call, turned: a column is dense. */
typedef struct block {
    _Alignas(64) float w[COLS][LANES], c[COLS][LANES], d[COLS][LANES];
    float scale[LANES], zero[LANES]; /* of the column at hand */
    float miss[LANES];               /* what rounding it left, not fed back */
    double loss[LANES];
    uint8_t code[COLS][LANES];
} block;

/* What all rows share. */
typedef struct call {
    const qz_round_grids *grids;
    const qz_tensor *codes, *d, *loss, *w, *c;
    const double *weight; /* (cols) */
    int64_t cols;
    int bits;
    qz_tile l;
} call;

/* c_j += d_k l_jk for the columns j in (k, end). */
QZ_WIDE static void pass_on(block *b, const float *l, int64_t stride, int64_t k, int64_t end)
{
    const lanes *d = (const lanes *)b->d;
    lanes *c = (lanes *)b->c;
    for (int64_t j = k + 1; j < end; j++) c[j] += d[k] * l[j * stride + k];
}

/* c_j += sum over the run of d_k l_jk, in the order of k, for the columns j in [first + RUN, end). */
QZ_WIDE static void pass_on_run(block *b, const float *l, int64_t stride, int64_t first, int64_t end)
{
    const lanes *d = (const lanes *)b->d + first;
    const lanes d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3], d4 = d[4], d5 = d[5], d6 = d[6], d7 = d[7];
    for (int64_t j = first + RUN; j < end; j++) {
        const float *lj = l + j * stride + first;
        lanes c = ((lanes *)b->c)[j];
        c += d0 * lj[0];
        c += d1 * lj[1];
        c += d2 * lj[2];
        c += d3 * lj[3];
        c += d4 * lj[4];
        c += d5 * lj[5];
        c += d6 * lj[6];
        c += d7 * lj[7];
        ((lanes *)b->c)[j] = c;
    }
}

static inline float to_round(const block *b, int64_t k, int i)
{
    return qz_select(b->c[k][i] == 0, b->w[k][i], b->w[k][i] + b->c[k][i]);
}

static inline void rounded(block *b, int64_t k, int i, float x, int code, float value)
{
    b->code[k][i] = (uint8_t)code;
    b->d[k][i] = b->w[k][i] - value;
    b->miss[i] = x - value;
}

QZ_WIDE static void round_value(block *b, int64_t k, int top, int least)
{
    for (int i = 0; i < LANES; i++) {
        const qz_grid g = {b->scale[i], (int)b->zero[i], top, least};
        const float x = to_round(b, k, i);
        const int code = qz_grid_encode(x, g, QZ_ROUND_VALUE);
        rounded(b, k, i, x, code, qz_grid_decode(code, g));
    }
}

QZ_WIDE static void round_sum(block *b, int64_t k, int top, int least)
{
    for (int i = 0; i < LANES; i++) {
        const qz_grid g = {b->scale[i], (int)b->zero[i], top, least};
        const float x = to_round(b, k, i);
        const int code = qz_grid_encode(x, g, QZ_ROUND_SUM);
        rounded(b, k, i, x, code, qz_grid_decode(code, g));
    }
}

QZ_WIDE static void round_e4m3(block *b, int64_t k)
{
    for (int i = 0; i < LANES; i++) {
        const float x = to_round(b, k, i);
        const uint8_t code = qz_float_encode(x, b->scale[i], QZ_FORMAT_FP8_E4M3);
        rounded(b, k, i, x, code, qz_float_decode(code, b->scale[i], QZ_FORMAT_FP8_E4M3));
    }
}

QZ_WIDE static void round_e5m2(block *b, int64_t k)
{
    for (int i = 0; i < LANES; i++) {
        const float x = to_round(b, k, i);
        const uint8_t code = qz_float_encode(x, b->scale[i], QZ_FORMAT_FP8_E5M2);
        rounded(b, k, i, x, code, qz_float_decode(code, b->scale[i], QZ_FORMAT_FP8_E5M2));
    }
}

QZ_WIDE static void round_codebook(block *b, int64_t k, qz_format format)
{
    for (int i = 0; i < LANES; i++) {
        const float x = to_round(b, k, i);
        const uint8_t code = qz_codebook_encode(x, b->scale[i], format);
        rounded(b, k, i, x, code, qz_codebook_decode(code, b->scale[i], format));
    }
}

static void round_column(block *b, int64_t k, const call *a)
{
    const qz_scheme *s = a->grids->scheme;
    const int top = (1 << a->bits) - 1, least = s->narrow;
    if (s->format == QZ_FORMAT_FP8_E4M3)
        round_e4m3(b, k);
    else if (s->format == QZ_FORMAT_FP8_E5M2)
        round_e5m2(b, k);
    else if (qz_format_of(s->format)->kind == QZ_KIND_CODEBOOK)
        round_codebook(b, k, s->format);
    else if (s->zero_rule == QZ_ROUND_VALUE)
        round_value(b, k, top, least);
    else
        round_sum(b, k, top, least);
}

/* Scales and zeros of a column; lanes without a row get 1 and the middle. */
static void take_grids(block *b, const call *a, int64_t k, int64_t first, int64_t rows)
{
    const qz_round_grids *g = a->grids;
    const float *scale = qz_f32(&g->scales) + g->row[k] * g->scales.stride[0] + first;
    const float middle = (float)(1 << (a->bits - 1));
    for (int i = 0; i < LANES; i++) {
        b->scale[i] = i < rows ? scale[i] : 1;
        b->zero[i] = middle;
    }
    if (!g->zeros.data) return;
    const uint8_t *zero = (const uint8_t *)g->zeros.data + g->row[k] * g->zeros.stride[0] + first;
    for (int i = 0; i < rows; i++) b->zero[i] = (float)zero[i];
}

static void take_rows(block *b, const call *a, int64_t first, int64_t rows)
{
    for (int64_t i = 0; i < LANES; i++) {
        const bool real = i < rows;
        const float *w = qz_f32(a->w) + (first + i) * a->w->stride[0],
                    *c = qz_f32(a->c) + (first + i) * a->c->stride[0];
        for (int64_t k = 0; k < a->cols; k++) {
            b->w[k][i] = real ? w[k] : 0;
            b->c[k][i] = real ? c[k] : 0;
        }
        b->loss[i] = real ? qz_f64(a->loss)[first + i] : 0;
    }
}

static void give_rows(const block *b, const call *a, int64_t first, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        uint8_t *code = (uint8_t *)a->codes->data + (first + i) * a->codes->stride[0];
        float *d = qz_f32(a->d) + (first + i) * a->d->stride[0];
        for (int64_t k = 0; k < a->cols; k++) {
            code[k] = b->code[k][i];
            d[k] = b->d[k][i];
        }
        qz_f64(a->loss)[first + i] = b->loss[i];
    }
}

QZ_WIDE static void add_loss(block *b, double weight)
{
    for (int i = 0; i < LANES; i++) b->loss[i] += (double)b->miss[i] * (double)b->miss[i] * weight;
}

static void round_block(const call *a, int64_t first, int64_t rows)
{
    block b;
    take_rows(&b, a, first, rows);
    for (int64_t k = 0; k < a->cols; k++) {
        const int64_t run = k / RUN * RUN, end = qz_min(run + RUN, a->cols);
        if (k == 0 || a->grids->row[k] != a->grids->row[k - 1]) take_grids(&b, a, k, first, rows);
        round_column(&b, k, a);
        add_loss(&b, a->weight[k]);
        pass_on(&b, a->l.data, a->l.stride, k, end);
        if (k + 1 == end && end < a->cols) pass_on_run(&b, a->l.data, a->l.stride, run, a->cols);
    }
    give_rows(&b, a, first, rows);
}

qz_status qz_cpu_round_columns(const qz_tensor *codes, const qz_tensor *d, const qz_tensor *loss, const qz_tensor *w,
                               const qz_tensor *c, const qz_tensor *l, const qz_tensor *weight,
                               const qz_round_grids *grids)
{
    const int64_t rows = w->shape[0];
    const call a = {.grids = grids,
                    .codes = codes,
                    .d = d,
                    .loss = loss,
                    .w = w,
                    .c = c,
                    .cols = w->shape[1],
                    .weight = qz_f64(weight),
                    .bits = qz_format_of(grids->scheme->format)->bits,
                    .l = {qz_f32(l), l->stride[0]}};
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += ROWS)
    {
        for (int64_t n = first; n < qz_min(first + ROWS, rows); n += LANES) round_block(&a, n, qz_min(LANES, rows - n));
    }
    return QZ_OK;
}

qz_status qz_cpu_unit_solve(const qz_tensor *x, const qz_tensor *l)
{
    const int64_t rows = x->shape[0];
    const qz_tile xt = {qz_f32(x), x->stride[0]}, lt = {qz_f32(l), l->stride[0]};
    QZ_PARALLEL_FOR for (int64_t n = 0; n < rows; n += ROWS)
    {
        qz_blas_unit_solve(qz_min(ROWS, rows - n), x->shape[1], lt, qz_tile_at(xt, n, 0));
    }
    return QZ_OK;
}
