/* See gather.h. */
#include "calib/gather.h"

#include <stdio.h>

#include "base/parallel.h"
#include "calib/kv_scale.h"
#include "numeric/intgrid.h"

uint64_t qz_gather_bytes(const qz_model *m, int64_t length)
{
    qz_batch b = {qz_stream_batch(m, length), length};
    return (uint64_t)(b.sequences * b.length * qz_model_config_of(m)->hidden) * sizeof(float) +
           qz_model_scratch_bytes(m, b);
}

qz_status qz_gather_check(const qz_stream *s, int64_t batch, const qz_layer *layer, const char *what,
                          const qz_tensor *x)
{
    int64_t at;
    QZ_TRY(qz_op_first_nonfinite(qz_model_backend(s->model), x, &at));
    if (at < 0) return QZ_OK;
    int64_t token = at / x->shape[1];
    return QZ_FAIL(QZ_NUMERIC, "layer %d: the %s is not finite at window %lld, token %lld, channel %lld", layer->index,
                   what, (long long)(batch * s->batch + token / s->length), (long long)(token % s->length),
                   (long long)(at % x->shape[1]));
}

/* Each row's maximum first, so that threads do not matter. */
qz_status qz_gather_peak(float *peak, const qz_tensor *x, qz_arena *scratch)
{
    const int64_t rows = x->shape[0], cols = x->shape[1];
    qz_arena_mark mark = qz_arena_save(scratch);
    float *most = qz_arena_array(scratch, float, (size_t)rows);
    if (!most) return qz_arena_failed(scratch);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < rows; i++) {
        float lo, hi;
        qz_range_of(&lo, &hi, qz_f32(x) + i * cols, cols);
        most[i] = -lo > hi ? -lo : hi;
    }
    for (int64_t i = 0; i < rows; i++)
        if (most[i] > *peak) *peak = most[i];
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

static const char *const stage_input_name[QZ_STAGES] = {"input of q, k and v", "input of o", "input of gate and up",
                                                        "input of down"};

typedef struct gathering {
    const qz_layer_stats *stats;
    const qz_stream *stream;
    int64_t batch;
} gathering;

static qz_status look(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    const gathering *g = context;
    const qz_layer_stats *s = g->stats;
    const qz_backend *backend = qz_model_backend(g->stream->model);
    if (point != QZ_POINT_INPUT) return s->kv ? qz_kv_add(&s->kv[point == QZ_POINT_VALUE], backend, x) : QZ_OK;
    if (s->wanted && !s->wanted[input]) return QZ_OK;
    QZ_TRY(qz_gather_check(g->stream, g->batch, layer, stage_input_name[qz_input_stage(input)], x));
    return qz_stats_add(&s->input[input], backend, x);
}

/* residual (T, C) of batch i, from `scratch`. */
static qz_status load(qz_tensor *residual, const qz_stream *s, int64_t i, qz_arena *scratch)
{
    const qz_batch shape = qz_stream_shape(s, i);
    const int64_t t = shape.sequences * shape.length, c = qz_model_config_of(s->model)->hidden;
    float *data = qz_arena_array(scratch, float, (size_t)(t * c));
    if (!data) return qz_arena_failed(scratch);
    *residual = qz_tensor_2d(data, QZ_F32, t, c);
    return qz_stream_load(s, i, residual);
}

qz_status qz_gather_finish(const qz_layer_stats *stats, float *peak, const qz_model *m, const qz_layer *layer,
                           qz_arena *scratch)
{
    for (int i = 0; i < qz_model_inputs(m, layer->index); i++) {
        qz_stats *s = &stats->input[i];
        QZ_TRY_CTX(qz_stats_finish(s), "layer %d, input of %s", layer->index, qz_stage_name(qz_input_stage(i)));
        qz_tensor absmax = qz_tensor_2d(s->absmax, QZ_F32, 1, s->k);
        QZ_TRY(qz_gather_peak(peak, &absmax, scratch));
    }
    return QZ_OK;
}

static qz_status run_batch(const gathering *g, float *peak, const qz_layer *layer, bool move_on, qz_arena *scratch)
{
    const qz_stream *s = g->stream;
    const qz_batch shape = qz_stream_shape(s, g->batch);
    qz_tensor residual;
    QZ_TRY(load(&residual, s, g->batch, scratch));
    if (!move_on) {
        QZ_TRY(qz_layer_observe(s->model, layer, shape, &residual, scratch));
        return qz_gather_peak(peak, &residual, scratch); /* with the attention's output, before the MLP's */
    }
    QZ_TRY(qz_layer_forward(s->model, layer, shape, &residual, scratch));
    QZ_TRY(qz_gather_check(s, g->batch, layer, "output", &residual));
    QZ_TRY(qz_gather_peak(peak, &residual, scratch));
    return qz_stream_store(s, g->batch, &residual);
}

static qz_status run_batches(gathering *g, float *peak, const qz_layer *layer, bool move_on, qz_progress *progress,
                             qz_arena *scratch)
{
    for (g->batch = 0; g->batch < qz_stream_batches(g->stream); g->batch++) {
        qz_arena_mark mark = qz_arena_save(scratch);
        QZ_TRY(run_batch(g, peak, layer, move_on, scratch));
        qz_arena_restore(scratch, mark);
        QZ_TRY(qz_progress_step(progress, (uint64_t)qz_stream_shape(g->stream, g->batch).sequences, ""));
    }
    return QZ_OK;
}

qz_status qz_gather(const qz_layer_stats *stats, float *peak, const qz_stream *s, const qz_layer *layer, bool move_on,
                    qz_progress *progress, qz_arena *scratch)
{
    gathering g = {.stats = stats, .stream = s};
    qz_layer watched = *layer;
    watched.tap = (qz_tap){look, &g};
    return run_batches(&g, peak, &watched, move_on, progress, scratch);
}

static qz_status add_head(qz_stats *stats, const qz_stream *s, int64_t batch, qz_arena *scratch)
{
    qz_tensor x;
    int64_t at;
    QZ_TRY(load(&x, s, batch, scratch));
    QZ_TRY(qz_model_final_norm(s->model, &x, &x));
    QZ_TRY(qz_op_first_nonfinite(qz_model_backend(s->model), &x, &at));
    if (at >= 0)
        return QZ_FAIL(QZ_NUMERIC,
                       "the input of the output head is not finite at window %lld, token %lld, channel %lld",
                       (long long)(batch * s->batch + at / x.shape[1] / s->length),
                       (long long)(at / x.shape[1] % s->length), (long long)(at % x.shape[1]));
    return qz_stats_add(stats, qz_model_backend(s->model), &x);
}

qz_status qz_gather_head(qz_stats *stats, const qz_stream *s, qz_progress *progress, qz_arena *scratch)
{
    for (int64_t i = 0; i < qz_stream_batches(s); i++) {
        qz_arena_mark mark = qz_arena_save(scratch);
        QZ_TRY(add_head(stats, s, i, scratch));
        qz_arena_restore(scratch, mark);
        QZ_TRY(qz_progress_step(progress, (uint64_t)qz_stream_shape(s, i).sequences, ""));
    }
    QZ_TRY_CTX(qz_stats_finish(stats), "input of the output head");
    return QZ_OK;
}

qz_status qz_advance(float *peak, const qz_stream *s, const qz_layer *layer, qz_progress *progress, qz_arena *scratch)
{
    gathering g = {.stream = s};
    return run_batches(&g, peak, layer, true, progress, scratch);
}
