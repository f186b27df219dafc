/* AWQ's clip search (Lin et al. 2023, section 4.1 and the published code): the largest magnitude of each group is shrunk
 * in steps, and the shrink that least disturbs the group's own output wins.
 *
 *     m_i = amax (1 - i / grid), i < grid * shrink;   e_i = Q(clamp(w, -m_i, m_i)) - w;   argmin_i e_i^T G_gg e_i
 *
 * with G_gg the group's diagonal block of the Gram matrix, so that no token is seen again; the first minimum wins.
 * Pieces lie within rows (group or channel). A candidate costs 2 N K G operations, done for all candidates of a chunk
 * of rows at once. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "quant/quant.h"

enum { ROWS = 512 }; /* rows of a chunk */

static const qz_option options[] = {
    QZ_OPTION_INT("grid", 20, 2, 100, "steps from the whole range to none"),
    QZ_OPTION_NUMBER("shrink", 0.5, 0.05, 0.95, "part of the grid that is tried"),
    QZ_OPTION_END,
};

typedef struct trial {
    const qz_tensor *weight;
    qz_qtensor *q;
    int grid, steps;
    int64_t left, width;  /* columns of the group */
    int64_t first, rows;  /* rows of the chunk */
    float *error;         /* (steps, rows, width) */
    double *loss;         /* (steps, rows) */
} trial;

/* Scale and zero of a clipped group. */
static void choose_clipped(qz_qtensor *q, int64_t piece, float lo, float hi, float limit)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    lo = lo < -limit ? -limit : lo;
    hi = hi > limit ? limit : hi;
    if (f->kind == QZ_KIND_FLOAT) {
        q->scales[piece] = qz_float_scale(-lo > hi ? -lo : hi, s->format, s->scale_type);
        return;
    }
    const qz_grid g = qz_grid_of(lo, hi, f->bits, s->symmetric, s->scale_type, s->zero_rule);
    q->scales[piece] = g.scale;
    if (q->zeros) q->zeros[piece] = (uint8_t)g.zero;
}

/* Clamping to [-m, m] before rounding gives the codes that rounding itself clamps to: the ends of the grid. */
static void error_of(float *error, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    const float scale = q->scales[piece];
    if (f->kind == QZ_KIND_INTEGER) {
        const qz_grid g = {scale, q->zeros ? q->zeros[piece] : 1 << (f->bits - 1), (1 << f->bits) - 1};
        for (int64_t k = 0; k < count; k++) error[k] = qz_grid_decode(qz_grid_encode(w[k], g, s->zero_rule), g) - w[k];
    } else {
        for (int64_t k = 0; k < count; k++)
            error[k] = qz_float_decode(qz_float_encode(w[k], scale, s->format), scale, s->format) - w[k];
    }
}

static float limit_of(const trial *t, float lo, float hi, int step)
{
    const float most = -lo > hi ? -lo : hi;
    return most * (1.0f - (float)step / (float)t->grid);
}

static void try_row(const trial *t, int64_t row, int64_t piece)
{
    const float *w = qz_f32(t->weight) + (t->first + row) * t->weight->stride[0] + t->left;
    float lo, hi;
    qz_range_of(&lo, &hi, w, t->width);
    for (int i = 0; i < t->steps; i++) {
        choose_clipped(t->q, piece, lo, hi, limit_of(t, lo, hi, i));
        error_of(t->error + ((int64_t)i * t->rows + row) * t->width, w, t->width, t->q, piece);
    }
}

static void keep_best(const trial *t, int64_t row, int64_t piece)
{
    const float *w = qz_f32(t->weight) + (t->first + row) * t->weight->stride[0] + t->left;
    int best = 0;
    for (int i = 1; i < t->steps; i++)
        if (t->loss[(int64_t)i * t->rows + row] < t->loss[(int64_t)best * t->rows + row]) best = i;
    float lo, hi;
    qz_range_of(&lo, &hi, w, t->width);
    choose_clipped(t->q, piece, lo, hi, limit_of(t, lo, hi, best));
}

/* The group's block of the Gram matrix, contiguous, of x / divisor when a fold is being tried. */
static void copy_block(float *block, const qz_stats *s, int64_t left, int64_t width)
{
    for (int64_t i = 0; i < width; i++)
        for (int64_t j = 0; j < width; j++) {
            float g = s->gram[(left + i) * s->k + left + j];
            if (s->divisor) g = g / (s->divisor[left + i] * s->divisor[left + j]);
            block[i * width + j] = g;
        }
}

static qz_status choose_group(trial *t, const qz_backend *backend, const qz_tensor *block, int64_t group, int64_t groups)
{
    const int64_t n = t->q->rows;
    for (t->first = 0; t->first < n; t->first += ROWS) {
        t->rows = n - t->first < ROWS ? n - t->first : ROWS;
        QZ_PARALLEL_FOR_STATIC
        for (int64_t r = 0; r < t->rows; r++) try_row(t, r, (t->first + r) * groups + group);
        qz_tensor error = qz_tensor_2d(t->error, QZ_F32, t->steps * t->rows, t->width);
        qz_tensor loss = qz_tensor_1d(t->loss, QZ_F64, t->steps * t->rows);
        QZ_TRY(qz_op_quadratic_form(backend, &loss, &error, block));
        for (int64_t r = 0; r < t->rows; r++) keep_best(t, r, (t->first + r) * groups + group);
    }
    return QZ_OK;
}

static qz_status choose_all(trial *t, const qz_backend *backend, const qz_stats *stats, qz_arena *arena)
{
    const int64_t k = t->q->cols, width = t->q->scheme.piece_cols ? t->q->scheme.piece_cols : k;
    const int64_t groups = qz_scheme_scale_cols(&t->q->scheme, k);
    float *block = qz_arena_array(arena, float, (size_t)(width * width));
    t->error = qz_arena_array(arena, float, (size_t)(t->steps * ROWS * width));
    t->loss = qz_arena_array(arena, double, (size_t)(t->steps * ROWS));
    if (!block || !t->error || !t->loss) return qz_arena_failed(arena);
    for (int64_t g = 0; g < groups; g++) {
        t->left = g * width;
        t->width = k - t->left < width ? k - t->left : width;
        copy_block(block, stats, t->left, t->width);
        qz_tensor b = qz_tensor_2d(block, QZ_F32, t->width, t->width);
        QZ_TRY(choose_group(t, backend, &b, g, groups));
    }
    return QZ_OK;
}

static qz_status choose(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight, const qz_stats *stats,
                        const qz_options *o)
{
    if (q->scheme.piece_rows != 1)
        return QZ_FAIL(QZ_UNSUPPORTED, "range clip needs pieces within rows (a group or a channel); use minmax");
    trial t = {.weight = weight, .q = q, .grid = (int)qz_options_int(o, "grid")};
    t.steps = (int)((double)t.grid * qz_options_number(o, "shrink"));
    if (t.steps < 1) t.steps = 1;
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "clip search"));
    qz_status status = choose_all(&t, backend, stats, arena);
    qz_arena_free(arena);
    return status;
}

extern const qz_range qz_range_minmax;

const qz_range qz_range_clip = {
    .plugin = {"clip", "shrinks the range of each group to where its output error is least", "Lin et al. 2023, published code",
               options},
    .needs = QZ_NEED_GRAM,
    .for_products = &qz_range_minmax,
    .choose = choose,
};
