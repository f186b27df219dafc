/* The range mse with errors weighted channel by channel, loss = sum_k weight_k e_k^2: for pieces that span rows (a
 * whole error matrix does not fit the Gram form; weight = diag(G)), and where the statistics give a diagonal. All
 * pieces take a shrink, or a round of scale and codes, together: one pass over the matrix. Sums are made for each run
 * of a row that lies in one piece, and added up by piece in the order of the matrix; where every piece is one run, they
 * are the pieces' own. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "quant/mse.h"

enum { SUMS = 4 }; /* of rounding_sums */

/* What does not depend on the scale. */
typedef struct fixed {
    float lo, hi;
    double oo, ow;
} fixed;

/* Scales and zeros, (pieces) each, and what they lose. */
typedef struct kept {
    double *loss;
    float *scale;
    uint8_t *zero;
} kept;

typedef struct search {
    const qz_backend *backend;
    const qz_tensor *weight;
    const qz_mse_options *o;
    qz_qtensor *q;
    float *importance; /* (K) */
    int64_t pieces;
    int64_t most;  /* runs of a row at most */
    fixed *run;    /* (N, most) */
    fixed *piece;  /* (pieces), perhaps those of runs */
    double *sums;  /* (N, most, SUMS) of runs */
    double *total; /* (pieces, SUMS), perhaps those of runs */
    kept best;     /* what lost least */
    kept start;    /* what would lose least with the best scale for its codes */
} search;

static void look_at(fixed *r, const float *w, const float *importance, int64_t count)
{
    qz_range_of(&r->lo, &r->hi, w, count);
    r->oo = r->ow = 0;
    for (int64_t k = 0; k < count; k++) {
        r->oo += (double)importance[k];
        r->ow += (double)importance[k] * (double)w[k];
    }
}

static void look_at_row(const search *s, int64_t n)
{
    const float *w = qz_f32(s->weight) + n * s->weight->stride[0];
    fixed *r = s->run + n * s->most;
    for (int64_t k = 0, end; k < s->q->cols; k = end) {
        int64_t piece;
        end = qz_scheme_run(&piece, &s->q->scheme, s->q->cols, n, k);
        look_at(r++, w + k, s->importance + k, end - k);
    }
}

static void join(fixed *to, const fixed *r)
{
    to->lo = r->lo < to->lo ? r->lo : to->lo;
    to->hi = r->hi > to->hi ? r->hi : to->hi;
    to->oo += r->oo;
    to->ow += r->ow;
}

static void look(search *s)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t n = 0; n < s->q->rows; n++) look_at_row(s, n);
    if (s->piece == s->run) return;
    memset(s->piece, 0, (size_t)s->pieces * sizeof *s->piece);
    for (int64_t n = 0; n < s->q->rows; n++) {
        const fixed *r = s->run + n * s->most;
        for (int64_t k = 0, piece; k < s->q->cols;) {
            k = qz_scheme_run(&piece, &s->q->scheme, s->q->cols, n, k);
            join(&s->piece[piece], r++);
        }
    }
}

static void keep(kept *k, const search *s, int64_t piece, double loss)
{
    if (!(loss < k->loss[piece])) return;
    k->loss[piece] = loss;
    k->scale[piece] = s->q->scales[piece];
    if (s->q->zeros) k->zero[piece] = s->q->zeros[piece];
}

static void use(const kept *k, const search *s)
{
    memcpy(s->q->scales, k->scale, (size_t)s->pieces * sizeof *k->scale);
    if (s->q->zeros) memcpy(s->q->zeros, k->zero, (size_t)s->pieces);
}

/* A refit of the scale takes (sum d v e)^2 / sum d v^2 off the loss, with e = v - w. */
static void keep_better(search *s)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < s->pieces; i++) {
        const double *t = s->total + i * SUMS, ve = t[1] - t[2];
        keep(&s->best, s, i, t[0]);
        keep(&s->start, s, i, t[1] > 0 ? t[0] - ve * ve / t[1] : t[0]);
    }
}

static void add_up(search *s)
{
    const qz_qtensor *q = s->q;
    if (s->total == s->sums) return;
    memset(s->total, 0, (size_t)(s->pieces * SUMS) * sizeof *s->total);
    for (int64_t n = 0; n < q->rows; n++) {
        const double *from = s->sums + n * s->most * SUMS;
        for (int64_t k = 0, piece; k < q->cols; from += SUMS) {
            k = qz_scheme_run(&piece, &q->scheme, q->cols, n, k);
            for (int i = 0; i < SUMS; i++) s->total[piece * SUMS + i] += from[i];
        }
    }
}

/* Sums of the present scales and zeros; the best so far are kept. */
static qz_status judge(search *s)
{
    const qz_qtensor *q = s->q;
    const qz_tensor sums = qz_tensor_2d(s->sums, QZ_F64, q->rows, s->most * SUMS);
    const qz_tensor importance = qz_tensor_1d(s->importance, QZ_F32, q->cols);
    QZ_TRY(qz_op_rounding_sums(s->backend, &sums, s->weight, &importance, q));
    add_up(s);
    keep_better(s);
    return QZ_OK;
}

static void refit(search *s)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < s->pieces; i++) {
        const double *t = s->total + i * SUMS, scale = (double)s->q->scales[i];
        const qz_mse_sums sums = {.tt = t[1] / (scale * scale),
                                  .tw = t[2] / scale,
                                  .to = t[3] / scale,
                                  .oo = s->piece[i].oo,
                                  .ow = s->piece[i].ow};
        qz_mse_refit(s->q, i, &sums);
    }
}

static void shrink(search *s, int step)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < s->pieces; i++) qz_mse_shrunk(s->q, i, s->o, s->piece[i].lo, s->piece[i].hi, step);
}

static qz_status run_search(search *s)
{
    look(s);
    for (int64_t i = 0; i < s->pieces; i++) s->best.loss[i] = s->start.loss[i] = INFINITY;
    for (int step = 0; step < s->o->steps; step++) {
        shrink(s, step);
        QZ_TRY(judge(s));
    }
    use(&s->start, s);
    for (int round = 0; s->o->rounds > 0 && round <= s->o->rounds; round++) {
        QZ_TRY(judge(s));
        refit(s);
    }
    use(&s->best, s);
    return QZ_OK;
}

static int64_t most_runs(const qz_scheme *s, int64_t cols)
{
    const int64_t width = s->flat ? s->flat : s->piece_cols ? s->piece_cols : cols;
    return s->flat ? cols / width + 2 : (cols + width - 1) / width;
}

static qz_status kept_new(kept *k, size_t pieces, qz_arena *arena)
{
    k->loss = qz_arena_array(arena, double, pieces);
    k->scale = qz_arena_array(arena, float, pieces);
    k->zero = qz_arena_array(arena, uint8_t, pieces);
    return k->loss && k->scale && k->zero ? QZ_OK : qz_arena_failed(arena);
}

static qz_status search_new(search *s, qz_arena *arena)
{
    const qz_qtensor *q = s->q;
    s->pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    s->most = most_runs(&q->scheme, q->cols);
    const size_t pieces = (size_t)s->pieces, runs = (size_t)(q->rows * s->most);
    const bool alone = q->scheme.piece_rows == 1 && !q->scheme.flat; /* pieces and runs are numbered alike */
    s->importance = qz_arena_array(arena, float, (size_t)q->cols);
    s->run = qz_arena_array(arena, fixed, runs);
    s->sums = qz_arena_array(arena, double, SUMS *runs);
    s->piece = alone ? s->run : qz_arena_array(arena, fixed, pieces);
    s->total = alone ? s->sums : qz_arena_array(arena, double, SUMS *pieces);
    QZ_TRY(kept_new(&s->best, pieces, arena));
    QZ_TRY(kept_new(&s->start, pieces, arena));
    const bool whole = s->importance && s->run && s->piece && s->sums && s->total;
    return whole ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_mse_choose_diagonal(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight,
                                 const qz_stats *stats, const qz_mse_options *o, qz_arena *arena)
{
    search s = {.backend = backend, .weight = weight, .o = o, .q = q};
    QZ_TRY(search_new(&s, arena));
    for (int64_t k = 0; k < q->cols; k++) {
        const float divisor = stats->divisor ? stats->divisor[k] : 1;
        const float own = stats->diagonal ? stats->diagonal[k] : stats->gram[k * (stats->k + 1)];
        s.importance[k] = own / (divisor * divisor);
    }
    return run_search(&s);
}
