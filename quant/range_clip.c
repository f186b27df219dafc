/* AWQ's clip search (Lin et al. 2023, section 4.1 and the published code): the largest magnitude of each group is
 * shrunk in steps, and the shrink that least disturbs the group's own output wins.
 *
 *     m_i = amax (1 - i / grid), i < grid * shrink;   e_i = Q(clamp(w, -m_i, m_i)) - w;   argmin_i e_i^T G_gg e_i
 *
 * with G_gg the group's diagonal block of the Gram matrix (or the diagonal that a solver gives), so that no token is
 * seen again; the first minimum wins. Pieces lie within rows (group or channel). A candidate costs 2 N K G operations.
 * Work is cut into one group of a chunk of rows, all candidates at once, on one thread from end to end. */
#include <math.h>

#include "base/parallel.h"
#include "numeric/piece.h"
#include "quant/quant.h"

/* Rows and errors of a chunk at most: the errors of all candidates of 64 rows and a group of 128 stay in the cache. */
enum { ROWS = 64, ERRORS = 1 << 21 };

static const qz_option options[] = {
    QZ_OPTION_INT("grid", 20, 2, 100, "steps from the whole range to none"),
    QZ_OPTION_NUMBER("shrink", 0.5, 0.05, 0.95, "part of the grid that is tried"),
    QZ_OPTION_END,
};

typedef struct trial {
    const qz_tensor *weight;
    qz_qtensor *q;
    const float *divisor; /* (K) of the statistics, or NULL */
    int grid, steps;
    int64_t groups, chunk; /* pieces of a row, rows of a chunk */
    int64_t left, width;   /* columns of the group */
    int64_t first, rows;   /* rows of the chunk */
    float *error;          /* (steps, rows, width) */
    double *loss;          /* (steps, rows) */
} trial;

static float limit_of(const trial *t, float lo, float hi, int step)
{
    const float most = -lo > hi ? -lo : hi;
    return most * (1.0f - (float)step / (float)t->grid);
}

static void fit_clipped(const trial *t, int64_t piece, float lo, float hi, int step)
{
    const float limit = limit_of(t, lo, hi, step);
    qz_piece_fit(t->q, piece, lo < -limit ? -limit : lo, hi > limit ? limit : hi);
}

/* Clamping to [-m, m] before rounding gives the codes that rounding itself clamps to: the ends of the grid.
 * The Gram matrix of x / divisor is met by dividing the error: e^T (G / (s s^T)) e = (e / s)^T G (e / s). */
static void error_of(float *error, const trial *t, const float *w, int64_t piece)
{
    qz_piece_round(error, w, t->width, t->q, piece);
    for (int64_t k = 0; k < t->width; k++) error[k] -= w[k];
    if (t->divisor)
        for (int64_t k = 0; k < t->width; k++) error[k] /= t->divisor[t->left + k];
}

static const float *row_of(const trial *t, int64_t row)
{
    return qz_f32(t->weight) + (t->first + row) * t->weight->stride[0] + t->left;
}

static void try_row(const trial *t, int64_t row, int64_t piece)
{
    const float *w = row_of(t, row);
    float lo, hi;
    qz_range_of(&lo, &hi, w, t->width);
    for (int i = 0; i < t->steps; i++) {
        fit_clipped(t, piece, lo, hi, i);
        error_of(t->error + ((int64_t)i * t->rows + row) * t->width, t, w, piece);
    }
}

static void keep_best(const trial *t, int64_t row, int64_t piece)
{
    int best = 0;
    for (int i = 1; i < t->steps; i++)
        if (t->loss[(int64_t)i * t->rows + row] < t->loss[(int64_t)best * t->rows + row]) best = i;
    float lo, hi;
    qz_range_of(&lo, &hi, row_of(t, row), t->width);
    fit_clipped(t, piece, lo, hi, best);
}

/* The group's diagonal block of the Gram matrix. */
static qz_tensor block_of(const qz_stats *stats, const trial *t)
{
    qz_tensor gram = qz_tensor_2d(stats->gram + t->left * (stats->k + 1), QZ_F32, t->width, t->width);
    gram.stride[0] = stats->k;
    return gram;
}

/* Losses of all errors of the chunk. */
static qz_status judge(const trial *t, const qz_backend *backend, const qz_stats *stats)
{
    const int64_t count = t->steps * t->rows;
    if (!stats->diagonal) {
        const qz_tensor gram = block_of(stats, t), error = qz_tensor_2d(t->error, QZ_F32, count, t->width);
        const qz_tensor loss = qz_tensor_1d(t->loss, QZ_F64, count);
        return qz_op_quadratic_form(backend, &loss, &error, &gram);
    }
    for (int64_t i = 0; i < count; i++) {
        const float *e = t->error + i * t->width, *d = stats->diagonal + t->left;
        t->loss[i] = 0;
        for (int64_t k = 0; k < t->width; k++) t->loss[i] += (double)(d[k] * e[k]) * (double)e[k];
    }
    return QZ_OK;
}

/* Rows of a chunk, so that the errors of all candidates take little memory. */
static int64_t chunk_of(const trial *t, int64_t width)
{
    const int64_t fit = ERRORS / (t->steps * width), rows = fit < ROWS ? fit : ROWS;
    return rows < 1 ? 1 : rows < t->q->rows ? rows : t->q->rows;
}

/* All candidates of the rows and columns that `t` says, on the calling thread. */
static qz_status choose_chunk(const trial *t, const qz_backend *backend, const qz_stats *stats, int64_t group)
{
    for (int64_t r = 0; r < t->rows; r++) try_row(t, r, (t->first + r) * t->groups + group);
    QZ_TRY(judge(t, backend, stats));
    for (int64_t r = 0; r < t->rows; r++) keep_best(t, r, (t->first + r) * t->groups + group);
    return QZ_OK;
}

/* `t` with the place of one piece of work and the buffers of one thread. */
static trial at(const trial *t, int64_t width, int64_t group, int64_t chunk, int thread)
{
    trial mine = *t;
    const int64_t left = group * width, first = chunk * t->chunk, n = t->q->rows, k = t->q->cols;
    mine.left = left;
    mine.width = k - left < width ? k - left : width;
    mine.first = first;
    mine.rows = n - first < t->chunk ? n - first : t->chunk;
    mine.error = t->error + thread * t->steps * t->chunk * width;
    mine.loss = t->loss + thread * t->steps * t->chunk;
    return mine;
}

static qz_status first_error(const qz_error *errors, int threads)
{
    for (int i = 0; i < threads; i++)
        if (errors[i].code != QZ_OK) return qz_error_restore(&errors[i]);
    return QZ_OK;
}

static qz_status choose_all(trial *t, const qz_backend *backend, const qz_stats *stats, qz_arena *arena)
{
    const int64_t k = t->q->cols, piece = t->q->scheme.piece_cols, width = piece && piece < k ? piece : k;
    const int threads = qz_threads();
    t->groups = qz_scheme_scale_cols(&t->q->scheme, k);
    t->chunk = chunk_of(t, width);
    t->error = qz_arena_array(arena, float, (size_t)(threads * t->steps * t->chunk * width));
    t->loss = qz_arena_array(arena, double, (size_t)(threads * t->steps * t->chunk));
    qz_error *errors = qz_arena_calloc(arena, (size_t)threads * sizeof *errors);
    if (!t->error || !t->loss || !errors) return qz_arena_failed(arena);
    const int64_t chunks = (t->q->rows + t->chunk - 1) / t->chunk;
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < t->groups * chunks; i++) {
        const int thread = qz_thread_index();
        const trial mine = at(t, width, i / chunks, i % chunks, thread);
        if (errors[thread].code != QZ_OK) continue;
        const qz_status status = choose_chunk(&mine, backend, stats, i / chunks);
        if (status != QZ_OK) qz_error_save(&errors[thread], status);
    }
    return first_error(errors, threads);
}

static qz_status choose(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight, const qz_stats *stats,
                        const qz_options *o)
{
    if (q->scheme.piece_rows != 1 || q->scheme.flat)
        return QZ_FAIL(QZ_UNSUPPORTED, "range clip needs pieces within rows (a group or a channel); use minmax");
    trial t = {.weight = weight, .q = q, .divisor = stats->divisor, .grid = (int)qz_options_int(o, "grid")};
    t.steps = (int)ceil((double)t.grid * qz_options_number(o, "shrink") - 1e-9);
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "clip search"));
    qz_status status = choose_all(&t, backend, stats, arena);
    qz_arena_free(arena);
    return status;
}

extern const qz_range qz_range_minmax;

const qz_range qz_range_clip = {
    .plugin = {"clip", "shrinks the range of each group to where its output error is least",
               "Lin et al. 2023, published code", options},
    .needs = QZ_NEED_GRAM,
    .for_products = &qz_range_minmax,
    .choose = choose,
};
