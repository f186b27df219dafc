/* The range mse for pieces that span rows (tensor, block, runs across rows): a whole error matrix does not fit the
 * Gram form, so errors are weighted by diag(G): loss = sum_k G_kk e_k^2. All pieces take a shrink, or a round of scale
 * and codes, together: one pass over the matrix. Sums are made for each run of a row that lies in one piece, and added
 * up by piece in the order of the matrix. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "quant/mse.h"

enum { BLOCK = 256 };

typedef struct spread {
    qz_qtensor *q;
    const qz_tensor *weight;
    const qz_mse_options *o;
    float *diagonal;      /* (K) */
    int64_t pieces, most; /* pieces; runs of a row at most */
    struct run *run;      /* (N, most) */
    struct run *total;    /* (pieces) */
    float *lo, *hi;       /* (pieces) */
    double *best;         /* (pieces) */
    qz_qtensor found;     /* scales and zeros of the best */
} spread;

typedef struct run {
    qz_mse_sums sums;
    double loss;
    float lo, hi;
} run;

static void add(run *to, const run *r)
{
    to->sums.tt += r->sums.tt;
    to->sums.tw += r->sums.tw;
    to->sums.to += r->sums.to;
    to->sums.oo += r->sums.oo;
    to->sums.ow += r->sums.ow;
    to->loss += r->loss;
    to->lo = r->lo < to->lo ? r->lo : to->lo;
    to->hi = r->hi > to->hi ? r->hi : to->hi;
}

/* `value` = the rounded weights. */
static void add_values(run *r, const float *w, const float *value, const float *d, int64_t count, double scale)
{
    for (int64_t k = 0; k < count; k++) {
        const double weight = d[k], t = (double)value[k] / scale, e = (double)value[k] - (double)w[k];
        r->loss += weight * e * e;
        r->sums.tt += weight * t * t;
        r->sums.tw += weight * t * (double)w[k];
        r->sums.to += weight * t;
        r->sums.oo += weight;
        r->sums.ow += weight * (double)w[k];
    }
}

static void run_sums(run *r, const spread *s, const float *w, const float *d, int64_t count, int64_t piece)
{
    float value[BLOCK];
    *r = (run){.loss = 0};
    for (int64_t at = 0; at < count; at += BLOCK) {
        const int64_t n = count - at < BLOCK ? count - at : BLOCK;
        qz_piece_round(value, w + at, n, s->q, piece);
        add_values(r, w + at, value, d + at, n, s->q->scales[piece]);
    }
}

/* `totals` of all pieces: of their extremes, or of the losses with the present scales. */
static void pass(spread *s, bool extremes)
{
    const int64_t rows = s->q->rows, cols = s->q->cols;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t n = 0; n < rows; n++) {
        const float *w = qz_f32(s->weight) + n * s->weight->stride[0];
        run *r = s->run + n * s->most;
        for (int64_t k = 0, end; k < cols; k = end, r++) {
            int64_t piece;
            end = qz_scheme_run(&piece, &s->q->scheme, cols, n, k);
            if (extremes) {
                *r = (run){.loss = 0};
                qz_range_of(&r->lo, &r->hi, w + k, end - k);
            } else
                run_sums(r, s, w + k, s->diagonal + k, end - k, piece);
        }
    }
    memset(s->total, 0, (size_t)s->pieces * sizeof *s->total);
    for (int64_t n = 0; n < rows; n++) {
        const run *r = s->run + n * s->most;
        for (int64_t k = 0, end; k < cols; k = end, r++) {
            int64_t piece;
            end = qz_scheme_run(&piece, &s->q->scheme, cols, n, k);
            add(&s->total[piece], r);
        }
    }
}

/* Losses of the present scales and zeros; the best so far is kept. */
static void judge(spread *s)
{
    pass(s, false);
    for (int64_t i = 0; i < s->pieces; i++) {
        if (!(s->total[i].loss < s->best[i])) continue;
        s->best[i] = s->total[i].loss;
        s->found.scales[i] = s->q->scales[i];
        if (s->q->zeros) s->found.zeros[i] = s->q->zeros[i];
    }
}

static void use_found(spread *s)
{
    memcpy(s->q->scales, s->found.scales, (size_t)s->pieces * sizeof *s->q->scales);
    if (s->q->zeros) memcpy(s->q->zeros, s->found.zeros, (size_t)s->pieces);
}

static void search(spread *s)
{
    pass(s, true);
    for (int64_t i = 0; i < s->pieces; i++) {
        s->lo[i] = s->total[i].lo;
        s->hi[i] = s->total[i].hi;
        s->best[i] = INFINITY;
    }
    for (int step = 0; step < s->o->steps; step++) {
        for (int64_t i = 0; i < s->pieces; i++) qz_mse_shrunk(s->q, i, s->o, s->lo[i], s->hi[i], step);
        judge(s);
    }
    use_found(s);
    for (int round = 0; round <= s->o->rounds; round++) {
        judge(s);
        for (int64_t i = 0; i < s->pieces; i++) qz_mse_refit(s->q, i, &s->total[i].sums);
    }
    use_found(s);
}

static int64_t most_runs(const qz_scheme *s, int64_t cols)
{
    const int64_t width = s->flat ? s->flat : s->piece_cols ? s->piece_cols : cols;
    return cols / width + 2;
}

static qz_status spread_new(spread *s, qz_arena *arena)
{
    const qz_qtensor *q = s->q;
    s->pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    s->most = most_runs(&q->scheme, q->cols);
    const size_t pieces = (size_t)s->pieces;
    s->diagonal = qz_arena_array(arena, float, (size_t)q->cols);
    s->run = qz_arena_array(arena, run, (size_t)(q->rows * s->most));
    s->total = qz_arena_array(arena, run, pieces);
    s->lo = qz_arena_array(arena, float, pieces);
    s->hi = qz_arena_array(arena, float, pieces);
    s->best = qz_arena_array(arena, double, pieces);
    s->found.scales = qz_arena_array(arena, float, pieces);
    s->found.zeros = qz_arena_array(arena, uint8_t, pieces);
    const bool whole = s->diagonal && s->run && s->total && s->lo && s->hi && s->best && s->found.scales;
    return whole && s->found.zeros ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_mse_choose_spread(qz_qtensor *q, const qz_tensor *weight, const qz_stats *stats, const qz_mse_options *o,
                               qz_arena *arena)
{
    spread s = {.q = q, .weight = weight, .o = o};
    QZ_TRY(spread_new(&s, arena));
    for (int64_t k = 0; k < q->cols; k++) {
        const float divisor = stats->divisor ? stats->divisor[k] : 1;
        s.diagonal[k] = stats->gram[k * (stats->k + 1)] / (divisor * divisor);
    }
    search(&s);
    return QZ_OK;
}
