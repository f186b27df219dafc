/* See layer_error.h. A few hundred rows suffice for two digits, and cost little beside the forward. */
#include "calib/layer_error.h"

#include "base/parallel.h"

enum { ROWS = 256, TILE = 256 };

/* Row by row first, so that threads do not matter. */
static double sum_of_squares(const float *x, int64_t rows, int64_t cols)
{
    double row[ROWS], sum = 0;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < rows; i++) {
        row[i] = 0;
        for (int64_t j = 0; j < cols; j++) row[i] += (double)x[i * cols + j] * x[i * cols + j];
    }
    for (int64_t i = 0; i < rows; i++) sum += row[i];
    return sum;
}

/* out = q - w for the rows that begin at `first` */
static void errors_of(float *out, const qz_qtensor *q, const qz_tensor *w, int64_t first)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < w->shape[0]; i++) {
        const float *from = qz_f32(w) + i * w->stride[0];
        float *row = out + i * q->cols;
        qz_qtensor_dequantize(row, q, first + i, 1);
        for (int64_t k = 0; k < q->cols; k++) row[k] -= from[k];
    }
}

qz_status qz_layer_error(double *error, const qz_backend *backend, const qz_tensor *weight, const qz_qtensor *q,
                         const qz_stats *stats, qz_arena *scratch)
{
    int64_t rows = stats->reservoir_rows < ROWS ? stats->reservoir_rows : ROWS, k = q->cols;
    double difference = 0, energy = 0;
    *error = 0;
    if (!rows) return QZ_OK;
    qz_arena_mark mark = qz_arena_save(scratch);
    float *tile = qz_arena_array(scratch, float, (size_t)(TILE * k)),
          *out = qz_arena_array(scratch, float, (size_t)(rows * TILE));
    if (!tile || !out) return qz_arena_failed(scratch);
    qz_tensor x = qz_tensor_2d(stats->reservoir, QZ_F32, rows, k);
    for (int64_t first = 0; first < q->rows; first += TILE) {
        int64_t n = q->rows - first < TILE ? q->rows - first : TILE;
        qz_tensor y = qz_tensor_2d(out, QZ_F32, rows, n), w = qz_tensor_rows(weight, first, n);
        qz_tensor d = qz_tensor_2d(tile, QZ_F32, n, k);
        QZ_TRY(qz_op_linear(backend, &y, &x, &w, NULL, false));
        energy += sum_of_squares(out, rows, n);
        errors_of(tile, q, &w, first);
        QZ_TRY(qz_op_linear(backend, &y, &x, &d, NULL, false));
        difference += sum_of_squares(out, rows, n);
    }
    qz_arena_restore(scratch, mark);
    *error = energy > 0 ? difference / energy : 0;
    return QZ_OK;
}
