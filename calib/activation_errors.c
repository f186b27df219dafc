/* What rounding an input does to the outputs of the linears that read it: round(x) Wq^T - x W^T, row by row. */
#include <string.h>

#include "base/parallel.h"
#include "calib/activation_scale.h"

enum { ROWS = 512, TILE = 512 };

int64_t qz_activation_rows(const qz_stats *stats)
{
    return stats->reservoir_rows < ROWS ? stats->reservoir_rows : ROWS;
}

typedef struct work {
    const qz_activation_args *args;
    const qz_activation_way *way;
    int ways;
    double *error, *energy;
    qz_tensor x, rounded;        /* (R, K) */
    float *weight, *plain, *out; /* (TILE, K), (R, TILE), (R, TILE) */
} work;

static qz_status new_work(work *w, qz_arena *scratch)
{
    const qz_stats *s = w->args->stats;
    const int64_t rows = qz_activation_rows(s);
    float *rounded = qz_arena_array(scratch, float, (size_t)(rows * s->k));
    w->weight = qz_arena_array(scratch, float, (size_t)(TILE * s->k));
    w->plain = qz_arena_array(scratch, float, (size_t)(rows * TILE));
    w->out = qz_arena_array(scratch, float, (size_t)(rows * TILE));
    if (!rounded || !w->weight || !w->plain || !w->out) return qz_arena_failed(scratch);
    w->x = qz_tensor_2d(s->reservoir, QZ_F32, rows, s->k);
    w->rounded = qz_tensor_2d(rounded, QZ_F32, rows, s->k);
    return QZ_OK;
}

void qz_add_squares(double *sums, const float *a, const float *b, int64_t rows, int64_t cols)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t t = 0; t < rows; t++) {
        double sum = 0;
        for (int64_t i = t * cols; i < (t + 1) * cols; i++) {
            const double d = (double)a[i] - (b ? (double)b[i] : 0);
            sum += d * d;
        }
        sums[t] += sum;
    }
}

static qz_status round_rows(const work *w, const qz_activation_way *way)
{
    if (way->scheme.mode == QZ_ACT_NONE) {
        memcpy(w->rounded.data, w->x.data, (size_t)qz_tensor_count(&w->x) * sizeof(float));
        return QZ_OK;
    }
    return qz_op_round_activations(w->args->backend, &w->rounded, &w->x, &way->scheme, &way->values);
}

/* Rows [first, first + n) of one reader. */
static qz_status add_tile(const work *w, const qz_activation_reader *r, int64_t first, int64_t n)
{
    const int64_t rows = w->x.shape[0], k = w->x.shape[1];
    const qz_tensor plain_weight = qz_tensor_rows(&r->weight, first, n);
    qz_tensor weight = plain_weight, y = qz_tensor_2d(w->plain, QZ_F32, rows, n);
    QZ_TRY(qz_op_linear(w->args->backend, &y, &w->x, &plain_weight, NULL, false));
    qz_add_squares(w->energy, w->plain, NULL, rows, n);
    if (r->quantized) {
        qz_qtensor_dequantize(w->weight, r->quantized, first, n);
        weight = qz_tensor_2d(w->weight, QZ_F32, n, k);
    }
    y.data = w->out;
    for (int i = 0; i < w->ways; i++) {
        QZ_TRY(round_rows(w, &w->way[i]));
        QZ_TRY(qz_op_linear(w->args->backend, &y, &w->rounded, &weight, NULL, false));
        qz_add_squares(w->error + i * rows, w->out, w->plain, rows, n);
    }
    return QZ_OK;
}

qz_status qz_activation_errors(double *error, double *energy, const qz_activation_way *way, int ways,
                               const qz_activation_args *args, qz_arena *scratch)
{
    const int64_t rows = qz_activation_rows(args->stats);
    work w = {.args = args, .way = way, .ways = ways, .error = error, .energy = energy};
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(new_work(&w, scratch));
    memset(error, 0, (size_t)(ways * rows) * sizeof *error);
    memset(energy, 0, (size_t)rows * sizeof *energy);
    for (int i = 0; i < args->readers; i++) {
        const int64_t n = args->reader[i].weight.shape[0];
        for (int64_t first = 0; first < n; first += TILE)
            QZ_TRY(add_tile(&w, &args->reader[i], first, n - first < TILE ? n - first : TILE));
    }
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

double qz_activation_mean_share(const double *error, const double *energy, int64_t rows)
{
    double sum = 0;
    for (int64_t t = 0; t < rows; t++) sum += energy[t] > 0 ? error[t] / energy[t] : 0;
    return rows ? sum / (double)rows : 0;
}
