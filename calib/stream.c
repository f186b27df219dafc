/* See stream.h. */
#include "calib/stream.h"

#include "calib/fold.h"

/* Tokens of a batch at least and at most, and what its stage inputs should take. */
enum { LEAST_TOKENS = 2048, MOST_TOKENS = 8192, BATCH_BYTES = 48 << 20 };

int64_t qz_stream_batch(const qz_model *m, int64_t length)
{
    int64_t width = qz_model_config_of(m)->hidden;
    for (int i = 0; i < QZ_STAGES; i++) width += qz_model_input_width(m, 0, i);
    int64_t tokens = BATCH_BYTES / (width * (int64_t)sizeof(float));
    tokens = tokens < LEAST_TOKENS ? LEAST_TOKENS : tokens > MOST_TOKENS ? MOST_TOKENS : tokens;
    return length > 0 && length < tokens ? tokens / length : 1; /* 0: there is no data */
}

uint64_t qz_stream_bytes(const qz_model_config *c, int64_t windows, int64_t length, qz_dtype type)
{
    return (uint64_t)(windows * length * c->hidden) * (uint64_t)qz_dtype_bits(type) / 8;
}

int64_t qz_stream_batches(const qz_stream *s)
{
    return (s->windows + s->batch - 1) / s->batch;
}

qz_batch qz_stream_shape(const qz_stream *s, int64_t i)
{
    int64_t left = s->windows - i * s->batch;
    return (qz_batch){left < s->batch ? left : s->batch, s->length};
}

/* The stored rows of batch i. */
static qz_tensor stored(const qz_stream *s, int64_t i)
{
    qz_batch b = qz_stream_shape(s, i);
    qz_tensor all = qz_tensor_2d(s->data, s->type, s->windows * s->length, s->width);
    return qz_tensor_rows(&all, i * s->batch * s->length, b.sequences * b.length);
}

qz_status qz_stream_load(const qz_stream *s, int64_t i, const qz_tensor *residual)
{
    qz_tensor from = stored(s, i);
    return qz_op_convert(qz_model_backend(s->model), residual, &from);
}

qz_status qz_stream_store(const qz_stream *s, int64_t i, const qz_tensor *residual)
{
    qz_tensor to = stored(s, i);
    return qz_op_convert(qz_model_backend(s->model), &to, residual);
}

static qz_status embed(const qz_model *m, const int32_t *ids, const qz_tensor *table, const qz_tensor *residual)
{
    if (!table) return qz_model_embed(m, ids, residual);
    const float scale = (float)qz_model_config_of(m)->embedding_scale;
    QZ_TRY(qz_op_embedding(qz_model_backend(m), residual, table, ids));
    return scale == 1 ? QZ_OK : qz_op_scale(qz_model_backend(m), residual, residual, scale);
}

qz_status qz_stream_new(qz_stream *out, const qz_model *model, const qz_windows *w, const qz_tensor *table,
                        qz_dtype type, qz_dtype plain_type, qz_arena *arena)
{
    const qz_model_config *c = qz_model_config_of(model);
    qz_stream s = {.model = model,
                   .windows = w->count,
                   .length = w->length,
                   .width = c->hidden,
                   .batch = qz_stream_batch(model, w->length),
                   .type = type};
    s.data = qz_arena_alloc(arena, qz_stream_bytes(c, s.windows, s.length, type));
    int64_t most = s.batch * s.length;
    qz_arena_mark mark = qz_arena_save(arena);
    float *buffer = qz_arena_array(arena, float, (size_t)(most * c->hidden));
    if (!s.data || !buffer) return qz_arena_failed(arena);
    for (int64_t i = 0; i < qz_stream_batches(&s); i++) {
        qz_batch b = qz_stream_shape(&s, i);
        qz_tensor residual = qz_tensor_2d(buffer, QZ_F32, b.sequences * b.length, c->hidden);
        QZ_TRY(embed(model, w->ids + i * most, table, &residual));
        if (!table) qz_round_stored(&residual, plain_type);
        QZ_TRY(qz_stream_store(&s, i, &residual));
    }
    qz_arena_restore(arena, mark);
    *out = s;
    return QZ_OK;
}

qz_stream qz_stream_like(const qz_stream *s, int64_t width, void *data)
{
    qz_stream out = *s;
    out.width = width;
    out.data = data;
    return out;
}
