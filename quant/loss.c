/* The exact loss of a quantized matrix, a tile of rows at a time. */
#include "base/parallel.h"
#include "quant/quant.h"

enum { ROWS = 512 };

static qz_status add_up(double *sum, const qz_backend *backend, const qz_tensor *d, const qz_tensor *gram,
                        double *losses)
{
    qz_tensor out = qz_tensor_1d(losses, QZ_F64, d->shape[0]);
    QZ_TRY(qz_op_quadratic_form(backend, &out, d, gram));
    for (int64_t n = 0; n < d->shape[0]; n++) *sum += losses[n];
    return QZ_OK;
}

/* tile = Q - W for the rows [first, first + n). */
static void error_rows(float *tile, const qz_tensor *weight, const qz_qtensor *q, int64_t first, int64_t n)
{
    const int64_t k = q->cols;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < n; i++) {
        const float *w = qz_f32(weight) + (first + i) * weight->stride[0];
        qz_qtensor_dequantize(tile + i * k, q, first + i, 1);
        for (int64_t j = 0; j < k; j++) tile[i * k + j] -= w[j];
    }
}

qz_status qz_output_loss(double *loss, double *energy, const qz_backend *backend, const qz_tensor *weight,
                         const qz_qtensor *q, const qz_stats *stats, qz_arena *scratch)
{
    const int64_t rows = weight->shape[0], k = weight->shape[1], most = rows < ROWS ? rows : ROWS;
    qz_arena_mark mark = qz_arena_save(scratch);
    double *losses = qz_arena_array(scratch, double, (size_t)most);
    float *tile = qz_arena_array(scratch, float, (size_t)(most * k));
    if (!losses || !tile) return qz_arena_failed(scratch);
    qz_tensor gram = qz_tensor_2d(stats->gram, QZ_F32, k, k);
    *loss = *energy = 0;
    for (int64_t first = 0; first < rows; first += ROWS) {
        int64_t n = rows - first < ROWS ? rows - first : ROWS;
        qz_tensor w = qz_tensor_rows(weight, first, n), d = qz_tensor_2d(tile, QZ_F32, n, k);
        QZ_TRY(add_up(energy, backend, &w, &gram, losses));
        if (!q) continue;
        error_rows(tile, weight, q, first, n);
        QZ_TRY(add_up(loss, backend, &d, &gram, losses));
    }
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
