/* Which rows lose more under gptq than rounding to nearest would: they keep rounding's codes, scales and zeros.
 *
 * The damped loss of a row of errors is a sum of squares over the visited columns (gptq.h). For gptq's codes it falls
 * out of the solution. For rounding's it is added up panel after panel, and a row is decided as soon as the sum so far,
 * less what damping can add, exceeds gptq's loss; most rows are after a part of the columns. The few that are not go
 * through the exact d^T G d. */
#include <string.h>

#include "numeric/piece.h"
#include "quant/gptq.h"

#define MARGIN 1e-3 /* of gptq's loss: far more than fp32 products can be off */

/* `out` = w - Q(w) of row i of the strip under rounding, in visited order. */
static void plain_errors(float *out, const qz_gptq_strip *s, int64_t i)
{
    const qz_gptq_plan *p = s->plan;
    const qz_tensor *weight = &p->args->weight;
    const int64_t n = s->first + i, cols = p->out->cols;
    const float *w = qz_f32(weight) + n * weight->stride[0];
    for (int64_t k = 0, end; k < cols; k = end) {
        int64_t piece;
        end = qz_scheme_run(&piece, &p->plain->scheme, cols, n, k);
        qz_piece_round(s->row + k, w + k, end - k, p->plain, piece);
    }
    for (int64_t k = 0; k < cols; k++) out[k] = w[p->factor->visit[k]] - s->row[p->factor->visit[k]];
}

/* What damping adds to the loss of a row of errors. */
static double damped_part(const qz_gptq_factor *f, const float *d)
{
    double sum = 0;
    for (int64_t k = 0; k < f->stats->k; k++)
        if (f->weight[k] > 0) sum += (double)d[k] * d[k];
    return f->added * sum;
}

/* partial += the squares of the visited columns [first, end), for the `count` rows in `other`. */
static qz_status add_panel(qz_gptq_strip *s, int64_t count, int64_t first, int64_t end)
{
    const qz_gptq_plan *p = s->plan;
    const int64_t k = p->out->cols, width = end - first;
    const qz_tensor y = qz_gptq_view(s->c, count, width, p->panel), d = qz_gptq_view(s->other, count, end, k);
    const qz_tensor l = qz_gptq_view(p->factor->l + first * k, width, end, k);
    QZ_TRY(qz_op_linear(p->args->backend, &y, &d, &l, NULL, false));
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int64_t j = 0; j < width; j++) {
            const double v = s->c[i * p->panel + j];
            sum += v * v * p->factor->weight[first + j];
        }
        s->partial[i] += sum;
    }
    return QZ_OK;
}

/* Drops the rows that are decided; the others move together. */
static int64_t still_open(qz_gptq_strip *s, int64_t count)
{
    const int64_t k = s->plan->out->cols;
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        if (s->partial[i] > s->loss[s->active[i]] * (1 + MARGIN)) continue;
        if (kept != i) memcpy(s->other + kept * k, s->other + i * k, (size_t)k * sizeof *s->other);
        s->partial[kept] = s->partial[i];
        s->active[kept++] = s->active[i];
    }
    return kept;
}

/* A row from visited to original order. */
static void put_back(qz_gptq_strip *s, float *to, const float *from)
{
    const int64_t k = s->plan->out->cols;
    memcpy(s->row, from, (size_t)k * sizeof *s->row);
    for (int64_t j = 0; j < k; j++) to[s->plan->factor->visit[j]] = s->row[j];
}

static void keep_rounding(qz_gptq_strip *s, int64_t n)
{
    const qz_gptq_plan *p = s->plan;
    const qz_tensor row = qz_tensor_rows(&p->args->weight, n, 1);
    const int64_t cols = p->out->cols;
    for (int64_t k = 0, end; k < cols; k = end) {
        int64_t piece;
        end = qz_scheme_run(&piece, &p->plain->scheme, cols, n, k);
        qz_piece_encode(p->out->codes + n * cols + k, qz_f32(&row) + k, end - k, p->plain, piece);
        if (!p->refresh) continue;
        p->out->scales[piece] = p->plain->scales[piece];
        if (p->out->zeros) p->out->zeros[piece] = p->plain->zeros[piece];
    }
    s->kept++;
}

/* The first `count` of `active`, exactly. */
static qz_status decide(qz_gptq_strip *s, int64_t count)
{
    const qz_gptq_plan *p = s->plan;
    const int64_t k = p->out->cols;
    if (count == 0) return QZ_OK;
    for (int64_t i = 0; i < count; i++) {
        put_back(s, s->other + i * k, s->other + i * k);
        put_back(s, s->d + i * k, s->d + s->active[i] * k);
    }
    const qz_tensor gram = qz_tensor_2d(p->args->stats->gram, QZ_F32, k, k);
    const qz_tensor ours = qz_tensor_2d(s->d, QZ_F32, count, k), other = qz_tensor_2d(s->other, QZ_F32, count, k);
    const qz_tensor a = qz_tensor_1d(s->exact, QZ_F64, count), b = qz_tensor_1d(s->exact + count, QZ_F64, count);
    QZ_TRY(qz_op_quadratic_form(p->args->backend, &a, &ours, &gram));
    QZ_TRY(qz_op_quadratic_form(p->args->backend, &b, &other, &gram));
    for (int64_t i = 0; i < count; i++)
        if (s->exact[i] > s->exact[count + i]) keep_rounding(s, s->first + s->active[i]);
    return QZ_OK;
}

qz_status qz_gptq_strip_compare(qz_gptq_strip *s)
{
    const qz_gptq_plan *p = s->plan;
    const int64_t k = p->out->cols;
    int64_t count = s->rows;
    for (int64_t i = 0; i < count; i++) {
        s->active[i] = i;
        plain_errors(s->other + i * k, s, i);
        s->loss[i] -= damped_part(p->factor, s->d + i * k);
        s->partial[i] = -damped_part(p->factor, s->other + i * k);
    }
    for (int64_t first = 0; first < k && count > 0; first += p->panel) {
        QZ_TRY(add_panel(s, count, first, first + p->panel < k ? first + p->panel : k));
        count = still_open(s, count);
    }
    return decide(s, count);
}
