/* Round to nearest: every weight to the nearest code of its piece's grid. */
#include <string.h>

#include "base/parallel.h"
#include "numeric/piece.h"
#include "quant/quant.h"

void qz_round_to_nearest(qz_qtensor *q, const qz_tensor *weight)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t n = 0; n < q->rows; n++) {
        const float *w = qz_f32(weight) + n * weight->stride[0];
        for (int64_t k = 0, end; k < q->cols; k = end) {
            int64_t piece;
            end = qz_scheme_run(&piece, &q->scheme, q->cols, n, k);
            qz_piece_encode(q->codes + n * q->cols + k, w + k, end - k, q, piece);
        }
    }
}

qz_status qz_solve_scales(qz_qtensor *q, const qz_solve_args *a)
{
    if (!a->given) return a->range->choose(q, a->backend, &a->weight, a->stats, &a->range_options);
    const size_t pieces = (size_t)qz_scheme_pieces(&q->scheme, q->rows, q->cols);
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
    if (a->scheme.double_quant) qz_qtensor_quantize_scales(out);
    return QZ_OK;
}

const qz_solver qz_solver_rtn = {
    .plugin = {"rtn", "rounds every weight to the nearest code", "", NULL},
    .needs = QZ_NEED_NOTHING,
    .solve = solve,
};
