/* The range that loses least: for each piece a few shrinks of its extremes, then scale (and zero) in closed form for
 * the codes, codes for the scale, and so on for some rounds. What is minimized is the piece's own output error, as in
 * the range clip:
 *
 *     e = Q(w) - w,   loss = e^T G_gg e,   s = <t, w> / <t, t> with <a, b> = a^T G_gg b, t = Q(w) / s   (mse_refit.c)
 *
 * with G_gg the group's diagonal block of the Gram matrix. The best that was seen wins, the unshrunk range among them,
 * so the loss never exceeds minmax's. Closed-form scales for fixed codes: Lloyd 1982 (LSQ's and HQQ's alternation is of
 * this kind), here weighted by activations. Where a piece is wide, shrinks are compared by diag(G) and only the best
 * is judged exactly; where it spans rows, diag(G) is all, and a solver may
 * say what weights count (mse_diagonal.c).
 *
 * Work is cut into one group of a chunk of rows, on one thread from end to end. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "quant/mse.h"

/* Rows of a chunk, its errors at most, and the width from which shrinks are compared by the diagonal. */
enum { ROWS = 64, ERRORS = 1 << 20, WIDE = 512, LANES = 8 };

static const qz_option options[] = {
    QZ_OPTION_INT("grid", 12, 1, 100, "shrinks of the range that are tried"),
    QZ_OPTION_NUMBER("shrink", 0.6, 0.0, 0.95, "part of the range that the grid covers"),
    QZ_OPTION_INT("rounds", 3, 0, 20, "rounds of scale for the codes, then codes for the scale"),
    QZ_OPTION_END,
};

typedef struct search {
    const qz_tensor *weight;
    const qz_stats *stats;
    const qz_backend *backend;
    qz_qtensor *q;
    qz_mse_options o;
    int64_t groups, chunk, exact; /* pieces of a row, rows of a chunk, shrinks that are judged exactly */
    int64_t left, width;          /* columns of the group */
    int64_t first, rows;          /* rows of the chunk */
    float *one;                   /* (width) 1, or 1 / divisor: the inputs' Gram matrix is met by dividing */
    float *w;                     /* (rows, width) weights so divided */
    float *error;                 /* (exact, rows, width) so divided */
    float *product;               /* (exact, rows, width) error G */
    float *wg, *og;               /* (rows, width), (width): w G, one G */
    double *best;                 /* (rows) loss of the best so far */
    float *scale;                 /* (rows) and its scale, zero */
    uint8_t *zero;                /* (rows) */
} search;

static const float *row_of(const search *s, int64_t row)
{
    return qz_f32(s->weight) + (s->first + row) * s->weight->stride[0] + s->left;
}

static float diagonal(const search *s, int64_t k)
{
    return s->stats->gram[(s->left + k) * (s->stats->k + 1)];
}

/* out (count, width) = x G_gg */
static qz_status times_gram(const search *s, float *out, float *x, int64_t count)
{
    qz_tensor gram = qz_tensor_2d(s->stats->gram + s->left * (s->stats->k + 1), QZ_F32, s->width, s->width);
    gram.stride[0] = s->stats->k;
    const qz_tensor y = qz_tensor_2d(out, QZ_F32, count, s->width), in = qz_tensor_2d(x, QZ_F32, count, s->width);
    return qz_op_linear(s->backend, &y, &in, &gram, NULL, false);
}

/* The error of the piece with its present scale and zero. */
static void error_of(float *error, const search *s, int64_t row, int64_t piece)
{
    const float *w = row_of(s, row);
    qz_piece_round(error, w, s->width, s->q, piece);
    for (int64_t k = 0; k < s->width; k++) error[k] -= w[k];
    if (s->stats->divisor)
        for (int64_t k = 0; k < s->width; k++) error[k] /= s->stats->divisor[s->left + k];
}

/* e.y, w.y and e.wg in one pass. */
static void three_sums(double out[3], const float *e, const float *y, const float *w, const float *wg, int64_t count)
{
    double lane[3][LANES] = {{0}};
    const int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) {
            lane[0][j] += (double)e[i + j] * (double)y[i + j];
            lane[1][j] += (double)w[i + j] * (double)y[i + j];
            lane[2][j] += (double)e[i + j] * (double)wg[i + j];
        }
    for (int64_t i = whole; i < count; i++) {
        lane[0][0] += (double)e[i] * (double)y[i];
        lane[1][0] += (double)w[i] * (double)y[i];
        lane[2][0] += (double)e[i] * (double)wg[i];
    }
    for (int k = 0; k < 3; k++) {
        out[k] = 0;
        for (int j = 0; j < LANES; j++) out[k] += lane[k][j];
    }
}

static double dot(const float *a, const float *b, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    const int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * (double)b[i + j];
    for (int64_t i = whole; i < count; i++) sum += (double)a[i] * (double)b[i];
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

/* Loss of the errors and the sums for a refit; s t = e + w. */
static double judge(qz_mse_sums *sums, const search *s, int64_t row, int64_t piece, const float *e, const float *y)
{
    const float *w = s->w + row * s->width, *wg = s->wg + row * s->width;
    const double scale = s->q->scales[piece], ww = dot(w, wg, s->width);
    double part[3];
    three_sums(part, e, y, w, wg, s->width);
    sums->tw = (part[2] + ww) / scale;
    sums->tt = (part[0] + part[1] + part[2] + ww) / (scale * scale);
    return part[0];
}

/* The sums that a zero needs as well. */
static void judge_zero(qz_mse_sums *sums, const search *s, int64_t row, int64_t piece, const float *e)
{
    const float *w = s->w + row * s->width;
    sums->to = (dot(e, s->og, s->width) + dot(w, s->og, s->width)) / s->q->scales[piece];
    sums->oo = dot(s->one, s->og, s->width);
    sums->ow = dot(s->one, s->wg + row * s->width, s->width);
}

static void keep_if_better(search *s, int64_t row, int64_t piece, double loss)
{
    if (!(loss < s->best[row])) return;
    s->best[row] = loss;
    s->scale[row] = s->q->scales[piece];
    if (s->q->zeros) s->zero[row] = s->q->zeros[piece];
}

static void set(search *s, int64_t row, int64_t piece)
{
    s->q->scales[piece] = s->scale[row];
    if (s->q->zeros) s->q->zeros[piece] = s->zero[row];
}

/* Which shrink loses least by diag(G). */
static int best_by_diagonal(const search *s, int64_t row, int64_t piece, float lo, float hi, float *error)
{
    int best = 0;
    double least = INFINITY;
    for (int i = 0; i < s->o.steps; i++) {
        double loss = 0;
        qz_mse_shrunk(s->q, piece, &s->o, lo, hi, i);
        error_of(error, s, row, piece);
        for (int64_t k = 0; k < s->width; k++) loss += (double)diagonal(s, k) * (double)error[k] * (double)error[k];
        if (!(loss < least)) continue;
        least = loss;
        best = i;
    }
    return best;
}

/* The i-th of the shrinks that are judged exactly: all, or none and the best by the diagonal. */
static int shrink_at(const search *s, int64_t i, int coarse)
{
    return s->exact == s->o.steps || i == 0 ? (int)i : coarse;
}

static void try_row(search *s, int64_t row, int64_t piece, int *coarse)
{
    const float *w = row_of(s, row);
    float lo, hi;
    qz_range_of(&lo, &hi, w, s->width);
    *coarse = s->exact == s->o.steps ? 0 : best_by_diagonal(s, row, piece, lo, hi, s->error + row * s->width);
    for (int64_t i = 0; i < s->exact; i++) {
        qz_mse_shrunk(s->q, piece, &s->o, lo, hi, shrink_at(s, i, *coarse));
        error_of(s->error + (i * s->rows + row) * s->width, s, row, piece);
    }
    for (int64_t k = 0; k < s->width; k++)
        s->w[row * s->width + k] = s->stats->divisor ? w[k] / s->stats->divisor[s->left + k] : w[k];
}

/* The best shrink is kept; the one with the least loss after a refit of the scale is where the rounds begin. */
static void first_refit(search *s, int64_t row, int64_t piece, int coarse)
{
    float lo, hi;
    double least = INFINITY;
    int64_t start = 0;
    qz_mse_sums sums = {0};
    qz_range_of(&lo, &hi, row_of(s, row), s->width);
    for (int64_t i = 0; i < s->exact; i++) {
        const int64_t at = (i * s->rows + row) * s->width;
        qz_mse_shrunk(s->q, piece, &s->o, lo, hi, shrink_at(s, i, coarse));
        const double scale = s->q->scales[piece], loss = judge(&sums, s, row, piece, s->error + at, s->product + at);
        const double gain = sums.tt > 0 ? (sums.tw - scale * sums.tt) * (sums.tw - scale * sums.tt) / sums.tt : 0;
        keep_if_better(s, row, piece, loss);
        if (!(loss - gain < least)) continue;
        least = loss - gain;
        start = i;
    }
    const int64_t at = (start * s->rows + row) * s->width;
    qz_mse_shrunk(s->q, piece, &s->o, lo, hi, shrink_at(s, start, coarse));
    judge(&sums, s, row, piece, s->error + at, s->product + at);
    if (s->q->zeros) judge_zero(&sums, s, row, piece, s->error + at);
    qz_mse_refit(s->q, piece, &sums);
}

/* Codes for the present scales, their losses, and scales for these codes. */
static qz_status round_again(search *s, int64_t group)
{
    for (int64_t r = 0; r < s->rows; r++) error_of(s->error + r * s->width, s, r, (s->first + r) * s->groups + group);
    QZ_TRY(times_gram(s, s->product, s->error, s->rows));
    for (int64_t r = 0; r < s->rows; r++) {
        const int64_t piece = (s->first + r) * s->groups + group;
        const float *e = s->error + r * s->width;
        qz_mse_sums sums = {0};
        keep_if_better(s, r, piece, judge(&sums, s, r, piece, e, s->product + r * s->width));
        if (s->q->zeros) judge_zero(&sums, s, r, piece, e);
        qz_mse_refit(s->q, piece, &sums);
    }
    return QZ_OK;
}

static qz_status choose_chunk(search *s, int64_t group)
{
    int coarse[ROWS];
    for (int64_t k = 0; k < s->width; k++) s->one[k] = s->stats->divisor ? 1 / s->stats->divisor[s->left + k] : 1;
    for (int64_t r = 0; r < s->rows; r++) {
        s->best[r] = INFINITY;
        try_row(s, r, (s->first + r) * s->groups + group, &coarse[r]);
    }
    QZ_TRY(times_gram(s, s->product, s->error, s->exact * s->rows));
    QZ_TRY(times_gram(s, s->wg, s->w, s->rows));
    if (s->q->zeros) QZ_TRY(times_gram(s, s->og, s->one, 1));
    for (int64_t r = 0; r < s->rows; r++) first_refit(s, r, (s->first + r) * s->groups + group, coarse[r]);
    for (int i = 0; i < s->o.rounds; i++) QZ_TRY(round_again(s, group));
    for (int64_t r = 0; r < s->rows; r++) set(s, r, (s->first + r) * s->groups + group);
    return QZ_OK;
}

/* Buffers of one thread. */
static qz_status buffers(search *s, int64_t width, qz_arena *arena)
{
    const size_t row = (size_t)width, chunk = (size_t)s->chunk, all = (size_t)s->exact * chunk * row;
    s->one = qz_arena_array(arena, float, row);
    s->og = qz_arena_array(arena, float, row);
    s->w = qz_arena_array(arena, float, chunk *row);
    s->wg = qz_arena_array(arena, float, chunk *row);
    s->error = qz_arena_array(arena, float, all);
    s->product = qz_arena_array(arena, float, all);
    s->best = qz_arena_array(arena, double, chunk);
    s->scale = qz_arena_array(arena, float, chunk);
    s->zero = qz_arena_array(arena, uint8_t, chunk);
    const bool whole = s->one && s->og && s->w && s->wg && s->error && s->product && s->best && s->scale && s->zero;
    return whole ? QZ_OK : qz_arena_failed(arena);
}

/* The place of one piece of work. */
static void place(search *s, int64_t width, int64_t group, int64_t chunk)
{
    const int64_t n = s->q->rows, k = s->q->cols;
    s->left = group * width;
    s->width = k - s->left < width ? k - s->left : width;
    s->first = chunk * s->chunk;
    s->rows = n - s->first < s->chunk ? n - s->first : s->chunk;
}

static qz_status choose_rows(const search *shared, int64_t width, qz_arena *arena)
{
    const int threads = qz_threads();
    const int64_t chunks = (shared->q->rows + shared->chunk - 1) / shared->chunk;
    search *mine = qz_arena_array(arena, search, (size_t)threads);
    qz_error *errors = qz_arena_calloc(arena, (size_t)threads * sizeof *errors);
    if (!mine || !errors) return qz_arena_failed(arena);
    for (int i = 0; i < threads; i++) {
        mine[i] = *shared;
        QZ_TRY(buffers(&mine[i], width, arena));
    }
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < shared->groups * chunks; i++) {
        const int thread = qz_thread_index();
        if (errors[thread].code != QZ_OK) continue;
        place(&mine[thread], width, i / chunks, i % chunks);
        const qz_status status = choose_chunk(&mine[thread], i / chunks);
        if (status != QZ_OK) qz_error_save(&errors[thread], status);
    }
    for (int i = 0; i < threads; i++)
        if (errors[i].code != QZ_OK) return qz_error_restore(&errors[i]);
    return QZ_OK;
}

static qz_status choose_within_rows(search *s, qz_arena *arena)
{
    const int64_t k = s->q->cols, piece = s->q->scheme.piece_cols, width = piece && piece < k ? piece : k;
    s->groups = qz_scheme_scale_cols(&s->q->scheme, k);
    s->exact = width > WIDE && s->o.steps > 2 ? 2 : s->o.steps;
    const int64_t fit = ERRORS / (s->exact * width);
    s->chunk = fit < 1 ? 1 : fit < ROWS ? fit : ROWS;
    if (s->chunk > s->q->rows) s->chunk = s->q->rows;
    return choose_rows(s, width, arena);
}

static qz_status choose(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight, const qz_stats *stats,
                        const qz_options *o)
{
    search s = {.weight = weight, .stats = stats, .backend = backend, .q = q};
    s.o = (qz_mse_options){(int)qz_options_int(o, "grid"), qz_options_number(o, "shrink"),
                           (int)qz_options_int(o, "rounds")};
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "mse search"));
    const bool blocks_of_gram = q->scheme.piece_rows == 1 && !q->scheme.flat && !stats->diagonal;
    const qz_status status =
        blocks_of_gram ? choose_within_rows(&s, arena) : qz_mse_choose_diagonal(q, backend, weight, stats, &s.o, arena);
    qz_arena_free(arena);
    return status;
}

const qz_range qz_range_mse = {
    .plugin = {"mse",
               "scale and zero where the output error of the piece is least: a grid of shrinks, then closed form",
               "Lloyd 1982; Frantar et al. 2022 (weights)", options},
    .needs = QZ_NEED_GRAM,
    .choose = choose,
};
