/* See smoothquant.h. */
#include "calib/smoothquant.h"

#include <math.h>

#include "base/parallel.h"
#include "calib/activation_scale.h"
#include "numeric/actgrid.h"

/* BLOCKS of outputs, at least one of each linear. STEPS: ranges that mse tries, fewer than for the scale itself, since
 * only the errors of factors are compared here. */
enum { TOKENS = 256, BLOCK = 128, BLOCKS = 12, WAYS = 2, STEPS = 50 };

void qz_smoothquant_scales(float *s, const float *absmax_x, const float *absmax_w, int64_t k, double alpha)
{
    const double least = 1e-5;
    for (int64_t j = 0; j < k; j++) {
        const double x = fmax((double)absmax_x[j], least), w = fmax((double)absmax_w[j], least);
        s[j] = absmax_x[j] > 0 ? (float)(pow(x, alpha) / pow(w, 1 - alpha)) : 1.0f;
    }
}

/* ---- sampled outputs of a linear ---- */

/* Blocks of rows spread over the matrix, so that pieces of 128 x 128 stay whole. */
typedef struct sampling {
    int64_t blocks, wanted, rows;
} sampling;

static int64_t block_of(const sampling *p, int64_t i)
{
    return i * p->blocks / p->wanted;
}

static sampling sampling_of(const qz_smoothing *s, int linear)
{
    const int64_t n = s->linear[linear].weight.shape[0], most = s->linears < BLOCKS ? BLOCKS / s->linears : 1;
    sampling p = {.blocks = (n + BLOCK - 1) / BLOCK};
    p.wanted = p.blocks < most ? p.blocks : most;
    for (int64_t i = 0; i < p.wanted; i++) {
        const int64_t first = block_of(&p, i) * BLOCK;
        p.rows += n - first < BLOCK ? n - first : BLOCK;
    }
    return p;
}

/* Those rows, times the factors. */
static qz_status sample(qz_tensor *out, const qz_smoothing *s, int linear, const float *scale, qz_arena *scratch)
{
    const sampling p = sampling_of(s, linear);
    const float *w = qz_f32(&s->linear[linear].weight);
    const int64_t k = s->stats->k;
    float *data = qz_arena_array(scratch, float, (size_t)(p.rows * k));
    if (!data) return qz_arena_failed(scratch);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < p.rows; i++) {
        const float *from = w + (block_of(&p, i / BLOCK) * BLOCK + i % BLOCK) * k;
        for (int64_t j = 0; j < k; j++) data[i * k + j] = scale ? from[j] * scale[j] : from[j];
    }
    *out = qz_tensor_2d(data, QZ_F32, p.rows, k);
    return QZ_OK;
}

/* The same as a checkpoint would have them. */
static qz_status round_sample(qz_tensor *w, const qz_smoothing *s, int linear, qz_arena *scratch)
{
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    const qz_options options = qz_options_default(minmax->plugin.options);
    const int64_t rows = w->shape[0], k = w->shape[1];
    float *data = qz_f32(w);
    qz_qtensor q;
    QZ_TRY(qz_qtensor_alloc(&q, &s->linear[linear].scheme, rows, k, scratch));
    QZ_TRY(minmax->choose(&q, s->backend, w, NULL, &options));
    qz_round_to_nearest(&q, w);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < rows; i++) qz_qtensor_dequantize(data + i * k, &q, i, 1);
    return QZ_OK;
}

static qz_status find_plain(qz_smoothing *s, float **plain, double *energy, qz_arena *arena)
{
    const qz_tensor x = qz_tensor_2d(s->stats->reservoir, QZ_F32, s->tokens, s->stats->k);
    for (int i = 0; i < s->linears; i++) {
        const int64_t rows = sampling_of(s, i).rows;
        plain[i] = qz_arena_array(arena, float, (size_t)(s->tokens * rows));
        if (!plain[i]) return qz_arena_failed(arena);
        qz_arena_mark mark = qz_arena_save(arena);
        const qz_tensor y = qz_tensor_2d(plain[i], QZ_F32, s->tokens, rows);
        qz_tensor w;
        QZ_TRY(sample(&w, s, i, NULL, arena));
        QZ_TRY(qz_op_linear(s->backend, &y, &x, &w, NULL, false));
        qz_add_squares(energy, plain[i], NULL, s->tokens, rows);
        qz_arena_restore(arena, mark);
    }
    return QZ_OK;
}

qz_status qz_smoothing_begin(qz_smoothing *s, qz_arena *arena)
{
    s->tokens = s->stats->reservoir_rows < TOKENS ? s->stats->reservoir_rows : TOKENS;
    float **plain = qz_arena_calloc(arena, (size_t)s->linears * sizeof *plain);
    double *energy = qz_arena_calloc(arena, (size_t)s->tokens * sizeof *energy);
    if (!plain || !energy) return qz_arena_failed(arena);
    s->plain = plain;
    s->energy = energy;
    return find_plain(s, plain, energy, arena);
}

/* ---- the input, scaled ---- */

/* All rows where a distribution is wanted, else those that are multiplied. */
static qz_status scale_stats(qz_stats *out, const qz_smoothing *smoothing, const float *scale, qz_arena *scratch)
{
    const qz_stats *s = smoothing->stats;
    const int64_t rows = smoothing->activation.mode == QZ_ACT_TENSOR ? s->reservoir_rows : smoothing->tokens;
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
        qz_options options = qz_options_default(o->plugin.options);
        const int steps = qz_options_index(options.table, "steps");
        float lo, hi;
        if (steps >= 0) options.value[steps] = STEPS;
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

/* x (T, K) as each way rounds it. */
static qz_status round_ways(qz_tensor *rounded, const qz_activation_way *way, int ways, const qz_tensor *x,
                            const qz_backend *backend, qz_arena *scratch)
{
    for (int i = 0; i < ways; i++) {
        rounded[i] = *x;
        if (way[i].scheme.mode == QZ_ACT_NONE) continue;
        rounded[i].data = qz_arena_array(scratch, float, (size_t)qz_tensor_count(x));
        if (!rounded[i].data) return qz_arena_failed(scratch);
        QZ_TRY(qz_op_round_activations(backend, &rounded[i], x, &way[i].scheme, &way[i].values));
    }
    return QZ_OK;
}

/* Adds one linear's errors to each[ways * tokens]. */
static qz_status add_linear(double *each, const qz_smoothing *s, int linear, const float *scale,
                            const qz_tensor *rounded, int ways, qz_arena *scratch)
{
    qz_tensor w;
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(sample(&w, s, linear, scale, scratch));
    QZ_TRY(round_sample(&w, s, linear, scratch));
    float *out = qz_arena_array(scratch, float, (size_t)(s->tokens * w.shape[0]));
    if (!out) return qz_arena_failed(scratch);
    const qz_tensor y = qz_tensor_2d(out, QZ_F32, s->tokens, w.shape[0]);
    for (int i = 0; i < ways; i++) {
        QZ_TRY(qz_op_linear(s->backend, &y, &rounded[i], &w, NULL, false));
        qz_add_squares(each + i * s->tokens, out, s->plain[linear], s->tokens, w.shape[0]);
    }
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

static qz_status find_error(double *error, const qz_smoothing *s, const float *scale, qz_arena *scratch)
{
    qz_stats stats;
    qz_activation_way way[WAYS];
    qz_tensor rounded[WAYS];
    int ways;
    double *each = qz_arena_calloc(scratch, (size_t)(WAYS * s->tokens) * sizeof *each);
    if (!each) return qz_arena_failed(scratch);
    QZ_TRY(scale_stats(&stats, s, scale, scratch));
    QZ_TRY(find_ways(way, &ways, s, &stats, scratch));
    const qz_tensor x = qz_tensor_2d(stats.reservoir, QZ_F32, s->tokens, stats.k);
    QZ_TRY(round_ways(rounded, way, ways, &x, s->backend, scratch));
    for (int i = 0; i < s->linears; i++) QZ_TRY(add_linear(each, s, i, scale, rounded, ways, scratch));
    *error = error_of(each, s->energy, s->tokens);
    for (int i = 1; i < ways; i++) *error = fmin(*error, error_of(each + i * s->tokens, s->energy, s->tokens));
    return QZ_OK;
}

qz_status qz_smoothing_error(double *error, const qz_smoothing *s, const float *scale, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(find_error(error, s, scale, scratch));
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
