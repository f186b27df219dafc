/* See smoothquant.h. */
#include "calib/smoothquant.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "calib/activation_scale.h"
#include "numeric/actgrid.h"

enum { TOKENS = 256, BLOCK = 128, BLOCKS = 12, WAYS = 2 }; /* BLOCKS of outputs, at least one of each linear */

void qz_smoothquant_scales(float *s, const float *absmax_x, const float *absmax_w, int64_t k, double alpha)
{
    const double least = 1e-5;
    for (int64_t j = 0; j < k; j++) {
        const double x = fmax((double)absmax_x[j], least), w = fmax((double)absmax_w[j], least);
        s[j] = absmax_x[j] > 0 ? (float)(pow(x, alpha) / pow(w, 1 - alpha)) : 1.0f;
    }
}

/* ---- a linear's sampled outputs, scaled and rounded ---- */

/* Blocks of rows spread over the matrix, so that pieces of 128 x 128 stay whole: (n, K), times s. */
static qz_status sample(qz_tensor *out, const qz_tensor *w, const float *scale, int64_t most, qz_arena *scratch)
{
    const int64_t n = w->shape[0], k = w->shape[1], blocks = (n + BLOCK - 1) / BLOCK;
    const int64_t wanted = blocks < most ? blocks : most;
    float *data = qz_arena_array(scratch, float, (size_t)(wanted * BLOCK * k));
    int64_t rows = 0;
    if (!data) return qz_arena_failed(scratch);
    for (int64_t b = 0; b < wanted; b++) {
        const int64_t first = b * blocks / wanted * BLOCK, count = n - first < BLOCK ? n - first : BLOCK;
        memcpy(data + rows * k, qz_f32(w) + first * k, (size_t)(count * k) * sizeof *data);
        rows += count;
    }
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; scale && j < k; j++) data[i * k + j] *= scale[j];
    *out = qz_tensor_2d(data, QZ_F32, rows, k);
    return QZ_OK;
}

static qz_status read_linear(qz_activation_reader *r, qz_qtensor *q, const qz_smoothing *s, int i, const float *scale,
                             qz_arena *scratch)
{
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    const qz_options options = qz_options_default(minmax->plugin.options);
    QZ_TRY(sample(&r->weight, &s->linear[i].weight, scale, s->linears < BLOCKS ? BLOCKS / s->linears : 1, scratch));
    QZ_TRY(qz_qtensor_alloc(q, &s->linear[i].scheme, r->weight.shape[0], r->weight.shape[1], scratch));
    QZ_TRY(minmax->choose(q, s->backend, &r->weight, NULL, &options));
    qz_round_to_nearest(q, &r->weight);
    r->quantized = q;
    return QZ_OK;
}

/* ---- the input, scaled ---- */

static qz_status scale_stats(qz_stats *out, const qz_stats *s, const float *scale, qz_arena *scratch)
{
    const int64_t rows = s->reservoir_rows;
    *out = *s;
    if (!scale) return QZ_OK;
    out->rescaled = true;
    out->absmax = qz_arena_array(scratch, float, (size_t)s->k);
    out->reservoir = qz_arena_array(scratch, float, (size_t)(rows * s->k));
    if (!out->absmax || !out->reservoir) return qz_arena_failed(scratch);
    for (int64_t j = 0; j < s->k; j++) out->absmax[j] = s->absmax[j] / scale[j];
    QZ_PARALLEL_FOR_STATIC
    for (int64_t t = 0; t < rows; t++)
        for (int64_t j = 0; j < s->k; j++) out->reservoir[t * s->k + j] = s->reservoir[t * s->k + j] / scale[j];
    return QZ_OK;
}

/* How the input may be rounded: as the scheme says, for a static one with either of two scales. */
static qz_status find_ways(qz_activation_way *way, int *count, const qz_smoothing *s, const qz_stats *stats,
                           qz_arena *scratch)
{
    static const char *const observers[WAYS] = {"minmax", "mse"};
    qz_distribution d;
    *count = 1;
    way[0] = (qz_activation_way){.scheme = s->activation};
    if (s->activation.mode != QZ_ACT_TENSOR) return QZ_OK;
    QZ_TRY(qz_activation_distribution(&d, stats, s->backend, scratch));
    for (*count = 0; *count < WAYS; ++*count) {
        const qz_observer *o = qz_observer_at((size_t)qz_plugins_find(qz_observers(), observers[*count]));
        const qz_options options = qz_options_default(o->plugin.options);
        float lo, hi;
        QZ_TRY(o->finish(&lo, &hi, &d, &s->activation, &options));
        way[*count] = (qz_activation_way){s->activation, qz_act_values_of(lo, hi, s->activation)};
    }
    return QZ_OK;
}

static double error_of(const double *error, const double *energy, int64_t rows)
{
    double sum = 0, whole = 0;
    for (int64_t t = 0; t < rows; t++) sum += error[t], whole += energy[t];
    const double share = whole > 0 ? sum / whole : 0, mean = qz_activation_mean_share(error, energy, rows);
    return share > mean ? share : mean;
}

static qz_status find_error(double *error, const qz_smoothing *s, const float *scale, qz_arena *scratch)
{
    qz_stats stats;
    qz_activation_reader *reader = qz_arena_calloc(scratch, (size_t)s->linears * sizeof *reader);
    qz_qtensor *q = qz_arena_calloc(scratch, (size_t)s->linears * sizeof *q);
    qz_activation_way way[WAYS];
    int ways;
    if (!reader || !q) return qz_arena_failed(scratch);
    QZ_TRY(scale_stats(&stats, s->stats, scale, scratch));
    QZ_TRY(find_ways(way, &ways, s, &stats, scratch));
    for (int i = 0; i < s->linears; i++) QZ_TRY(read_linear(&reader[i], &q[i], s, i, scale, scratch));
    if (stats.reservoir_rows > TOKENS) stats.reservoir_rows = TOKENS;
    const int64_t rows = qz_activation_rows(&stats);
    double *each = qz_arena_array(scratch, double, (size_t)(WAYS * rows));
    double *energy = qz_arena_array(scratch, double, (size_t)rows);
    if (!each || !energy) return qz_arena_failed(scratch);
    const qz_activation_args args = {
        .backend = s->backend, .stats = &stats, .scheme = s->activation, .reader = reader, .readers = s->linears};
    QZ_TRY(qz_activation_errors(each, energy, way, ways, &args, scratch));
    *error = error_of(each, energy, rows);
    for (int i = 1; i < ways; i++) *error = fmin(*error, error_of(each + i * rows, energy, rows));
    return QZ_OK;
}

qz_status qz_smoothing_error(double *error, const qz_smoothing *s, const float *scale, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(find_error(error, s, scale, scratch));
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
