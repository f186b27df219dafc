/* Round to nearest: every weight to the nearest code of its piece's grid. */
#include "base/parallel.h"
#include "quant/piece.h"
#include "quant/quant.h"

/* One run of a row that shares a scale. */
static void encode_run(uint8_t *codes, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    if (qz_format_of(s->format)->kind == QZ_KIND_INTEGER) {
        const qz_grid g = qz_piece_grid(q, piece);
        for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)qz_grid_encode(w[i], g, s->zero_rule);
    } else {
        for (int64_t i = 0; i < count; i++) codes[i] = qz_float_encode(w[i], q->scales[piece], s->format);
    }
}

void qz_round_to_nearest(qz_qtensor *q, const qz_tensor *weight)
{
    const int64_t cols = qz_scheme_scale_cols(&q->scheme, q->cols);
    const int64_t width = q->scheme.piece_cols ? q->scheme.piece_cols : q->cols;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t n = 0; n < q->rows; n++) {
        const float *w = qz_f32(weight) + n * weight->stride[0];
        const int64_t first = (q->scheme.piece_rows ? n / q->scheme.piece_rows : 0) * cols;
        for (int64_t g = 0; g < cols; g++) {
            const int64_t from = g * width, count = q->cols - from < width ? q->cols - from : width;
            encode_run(q->codes + n * q->cols + from, w + from, count, q, first + g);
        }
    }
}

static qz_status solve(qz_qtensor *out, const qz_solve_args *a, qz_arena *arena)
{
    QZ_TRY(qz_qtensor_alloc(out, &a->scheme, a->weight.shape[0], a->weight.shape[1], arena));
    QZ_TRY(a->range->choose(out, a->backend, &a->weight, a->stats, &a->range_options));
    qz_round_to_nearest(out, &a->weight);
    return QZ_OK;
}

const qz_solver qz_solver_rtn = {
    .plugin = {"rtn", "rounds every weight to the nearest code", "", NULL},
    .needs = QZ_NEED_NOTHING,
    .solve = solve,
};
