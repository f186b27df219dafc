/* See gather.h. */
#include "calib/gather.h"

#include <stdio.h>

#include "base/parallel.h"
#include "numeric/intgrid.h"

typedef struct buffers {
    qz_tensor residual, x[QZ_STAGES]; /* x[s] (T, width of s) */
} buffers;

static qz_status buffers_new(buffers *out, const qz_stream *s, qz_batch b, qz_arena *scratch)
{
    int64_t t = b.sequences * b.length, c = qz_model_config_of(s->model)->hidden;
    float *residual = qz_arena_array(scratch, float, (size_t)(t * c));
    if (!residual) return qz_arena_failed(scratch);
    out->residual = qz_tensor_2d(residual, QZ_F32, t, c);
    for (int i = 0; i < QZ_STAGES; i++) {
        int64_t width = qz_model_stage_width(s->model, (qz_stage)i);
        float *x = qz_arena_array(scratch, float, (size_t)(t * width));
        if (!x) return qz_arena_failed(scratch);
        out->x[i] = qz_tensor_2d(x, QZ_F32, t, width);
    }
    return QZ_OK;
}

uint64_t qz_gather_bytes(const qz_model *m, int64_t length)
{
    qz_batch b = {qz_stream_batch(m, length), length};
    int64_t width = qz_model_config_of(m)->hidden;
    for (int i = 0; i < QZ_STAGES; i++) width += qz_model_stage_width(m, (qz_stage)i);
    return (uint64_t)(b.sequences * b.length * width) * sizeof(float) + qz_model_scratch_bytes(m, b);
}

static qz_status check_finite(const qz_stream *s, int64_t batch, const qz_layer *layer, const char *what,
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

/* Raises *peak to the largest of |x|; each row's maximum first, so that threads do not matter. */
static qz_status raise_peak(float *peak, const qz_tensor *x, qz_arena *scratch)
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

/* One batch through all stages but the last linear. The carry of a stage is the input of the next, so it is written
 * straight into that stage's x. */
static qz_status gather_batch(qz_stats *stats, const qz_stream *s, int64_t i, const qz_layer *layer, const buffers *b,
                              qz_arena *scratch)
{
    const qz_backend *backend = qz_model_backend(s->model);
    qz_batch shape = qz_stream_shape(s, i);
    for (int stage = 0; stage < QZ_STAGES; stage++) {
        const qz_tensor *x = &b->x[stage];
        if (stage == QZ_STAGE_QKV || stage == QZ_STAGE_GATE_UP)
            QZ_TRY(qz_stage_input(s->model, layer, (qz_stage)stage, shape, &b->residual, NULL, x));
        QZ_TRY(check_finite(s, i, layer, stage_input_name[stage], x));
        QZ_TRY(qz_stats_add(&stats[stage], backend, x));
        if (stage == QZ_STAGE_DOWN) break;
        QZ_TRY(qz_stage_apply(s->model, layer, (qz_stage)stage, shape, x, &b->residual, &b->x[stage + 1], scratch));
    }
    return QZ_OK;
}

qz_status qz_gather(qz_stats stats[QZ_STAGES], float *peak, const qz_stream *s, const qz_layer *layer,
                    qz_progress *progress, qz_arena *scratch)
{
    for (int64_t i = 0; i < qz_stream_batches(s); i++) {
        qz_arena_mark mark = qz_arena_save(scratch);
        buffers b;
        QZ_TRY(buffers_new(&b, s, qz_stream_shape(s, i), scratch));
        QZ_TRY(qz_stream_load(s, i, &b.residual));
        QZ_TRY(gather_batch(stats, s, i, layer, &b, scratch));
        QZ_TRY(raise_peak(peak, &b.residual, scratch)); /* with the attention's output, before the MLP's */
        qz_arena_restore(scratch, mark);
        QZ_TRY(qz_progress_step(progress, (uint64_t)qz_stream_shape(s, i).sequences, ""));
    }
    for (int stage = 0; stage < QZ_STAGES; stage++) {
        QZ_TRY_CTX(qz_stats_finish(&stats[stage]), "layer %d, input of %s", layer->index,
                   qz_stage_name((qz_stage)stage));
        qz_tensor absmax = qz_tensor_2d(stats[stage].absmax, QZ_F32, 1, stats[stage].k);
        QZ_TRY(raise_peak(peak, &absmax, scratch));
    }
    return QZ_OK;
}

qz_status qz_advance(float *peak, const qz_stream *s, const qz_layer *layer, qz_progress *progress, qz_arena *scratch)
{
    int64_t c = qz_model_config_of(s->model)->hidden;
    for (int64_t i = 0; i < qz_stream_batches(s); i++) {
        qz_arena_mark mark = qz_arena_save(scratch);
        qz_batch shape = qz_stream_shape(s, i);
        int64_t t = shape.sequences * shape.length;
        float *data = qz_arena_array(scratch, float, (size_t)(t * c));
        if (!data) return qz_arena_failed(scratch);
        qz_tensor residual = qz_tensor_2d(data, QZ_F32, t, c);
        QZ_TRY(qz_stream_load(s, i, &residual));
        QZ_TRY(qz_layer_forward(s->model, layer, shape, &residual, scratch));
        QZ_TRY(check_finite(s, i, layer, "output", &residual));
        QZ_TRY(raise_peak(peak, &residual, scratch));
        QZ_TRY(qz_stream_store(s, i, &residual));
        qz_arena_restore(scratch, mark);
        QZ_TRY(qz_progress_step(progress, (uint64_t)shape.sequences, ""));
    }
    return QZ_OK;
}
