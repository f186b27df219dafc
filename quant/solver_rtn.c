/* Round to nearest: every weight to the nearest code of its piece's grid. */
#include <string.h>

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

qz_status qz_solve_scales(qz_qtensor *q, const qz_solve_args *a)
{
    if (!a->given) return a->range->choose(q, a->backend, &a->weight, a->stats, &a->range_options);
    const size_t pieces =
        (size_t)(qz_scheme_scale_rows(&q->scheme, q->rows) * qz_scheme_scale_cols(&q->scheme, q->cols));
    memcpy(q->scales, a->given->scales, pieces * sizeof *q->scales);
    if (q->zeros) memcpy(q->zeros, a->given->zeros, pieces);
    return QZ_OK;
}

static qz_status solve(qz_qtensor *out, qz_solve_info *info, const qz_solve_args *a, qz_arena *arena)
{
    *info = (qz_solve_info){0};
    QZ_TRY(qz_qtensor_alloc(out, &a->scheme, a->weight.shape[0], a->weight.shape[1], arena));
    QZ_TRY(qz_solve_scales(out, a));
    qz_round_to_nearest(out, &a->weight);
    return QZ_OK;
}

const qz_solver qz_solver_rtn = {
    .plugin = {"rtn", "rounds every weight to the nearest code", "", NULL},
    .needs = QZ_NEED_NOTHING,
    .solve = solve,
};
