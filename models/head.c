/* The two ends of a model: ids -> embeddings, and the last residual -> logits or log probabilities.
 *
 * The tables stay mapped as they are stored, or as codes when they are quantized. Rows of the head are widened or
 * decoded a tile of the vocabulary at a time, for all tokens of a call, and log softmax is put together from the tiles:
 *     log p = logit[target] - L,   L = log sum_v exp(logit[v]) = logaddexp over tiles of the tile's own L.
 * The order of tiles is fixed, so results do not depend on threads. */
#include <math.h>

#include "base/parallel.h"
#include "models/parts.h"

enum { TILE = 1024, ROWS = 16 };

static qz_status nonfinite_in(const char *table, int64_t row, int64_t col)
{
    return QZ_FAIL(QZ_NUMERIC, "%s: NaN or infinity at [%lld, %lld]", table, (long long)row, (long long)col);
}

static void decode_ids(float *out, const qz_qtensor *table, const int32_t *ids, int64_t tokens)
{
    QZ_PARALLEL_FOR
    for (int64_t t = 0; t < tokens; t++) qz_qtensor_dequantize(out + t * table->cols, table, ids[t], 1);
}

static void decode_rows(float *out, const qz_qtensor *table, int64_t first, int64_t count)
{
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < count; i += ROWS)
        qz_qtensor_dequantize(out + i * table->cols, table, first + i, count - i < ROWS ? count - i : ROWS);
}

static qz_status look_up(const qz_model *m, const int32_t *ids, const qz_tensor *residual)
{
    const qz_qtensor *table;
    if (!m->codes[QZ_END_EMBEDDING]) return qz_op_embedding(m->backend, residual, &m->embedding, ids);
    QZ_TRY(qz_model_codes(m, QZ_END_EMBEDDING, &table));
    decode_ids(qz_f32(residual), table, ids, residual->shape[0]);
    return QZ_OK;
}

qz_status qz_model_embed(const qz_model *m, const int32_t *ids, const qz_tensor *residual)
{
    const int64_t vocabulary = m->config.vocabulary, tokens = residual->shape[0];
    int64_t bad;
    for (int64_t t = 0; t < tokens; t++) {
        if (ids[t] < 0 || ids[t] >= vocabulary)
            return QZ_FAIL(QZ_ARG, "token %lld: id %d, but vocab_size of the model is %lld; is the tokenizer its own?",
                           (long long)t, ids[t], (long long)vocabulary);
    }
    QZ_TRY(look_up(m, ids, residual));
    QZ_TRY(qz_op_first_nonfinite(m->backend, residual, &bad));
    if (bad >= 0)
        return nonfinite_in(m->family->names->embedding, ids[bad / residual->shape[1]], bad % residual->shape[1]);
    const float scale = (float)m->config.embedding_scale;
    return scale == 1 ? QZ_OK : qz_op_scale(m->backend, residual, residual, scale);
}

qz_status qz_model_final_norm(const qz_model *m, const qz_tensor *residual, const qz_tensor *y)
{
    qz_tensor w = qz_tensor_1d(m->final_norm, QZ_F32, m->config.hidden);
    return qz_norm_apply(m, &w, y, residual);
}

static qz_status widen_rows(const qz_model *m, int64_t first, int64_t count, float *room, qz_tensor *out)
{
    const qz_qtensor *table;
    *out = qz_tensor_2d(room, QZ_F32, count, m->config.hidden);
    if (m->codes[QZ_END_HEAD]) {
        QZ_TRY(qz_model_codes(m, QZ_END_HEAD, &table));
        decode_rows(room, table, first, count);
        return QZ_OK;
    }
    const qz_tensor stored = qz_tensor_rows(&m->head, first, count);
    if (stored.dtype != QZ_F32) return qz_op_convert(m->backend, out, &stored);
    *out = stored;
    return QZ_OK;
}

/* Rows [first, first + count) of the head as F32: a view of the map, or widened into `room` (TILE, C). */
static qz_status head_rows(const qz_model *m, int64_t first, int64_t count, float *room, qz_tensor *out)
{
    int64_t bad;
    QZ_TRY(widen_rows(m, first, count, room, out));
    QZ_TRY(qz_op_first_nonfinite(m->backend, out, &bad));
    if (bad < 0) return QZ_OK;
    return nonfinite_in(m->config.tied ? m->family->names->embedding : m->family->names->head,
                        first + bad / m->config.hidden, bad % m->config.hidden);
}

static int64_t tile_end(const qz_model *m, int64_t first)
{
    return first + TILE < m->config.vocabulary ? first + TILE : m->config.vocabulary;
}

/* logits (T, count) of the rows of the head */
static qz_status tile_logits(const qz_model *m, const qz_tensor *logits, const qz_tensor *hidden, const qz_tensor *rows)
{
    const float cap = (float)m->config.logit_softcap;
    QZ_TRY(qz_op_linear(m->backend, logits, hidden, rows, NULL, false));
    return cap > 0 ? qz_op_softcap(m->backend, logits, logits, cap) : QZ_OK;
}

static qz_status write_logits(const qz_model *m, const qz_tensor *hidden, int64_t first, const qz_tensor *logits,
                              qz_arena *scratch)
{
    const int64_t end = first + logits->shape[1];
    float *room = qz_arena_array(scratch, float, (size_t)(TILE * m->config.hidden));
    if (!room) return qz_arena_failed(scratch);
    for (int64_t v = first; v < end; v += TILE) {
        const int64_t count = end - v < TILE ? end - v : TILE;
        qz_tensor rows, tile = *logits;
        QZ_TRY(head_rows(m, v, count, room, &rows));
        tile.data = qz_f32(logits) + (v - first);
        tile.shape[1] = count;
        QZ_TRY(tile_logits(m, &tile, hidden, &rows));
    }
    return QZ_OK;
}

qz_status qz_model_logits_part(const qz_model *m, const qz_tensor *hidden, int64_t first, const qz_tensor *logits,
                               qz_arena *scratch)
{
    if (logits->ndim != 2 || first < 0 || logits->shape[1] > m->config.vocabulary - first)
        return QZ_FAIL(QZ_SHAPE, "logits from entry %lld on must be (tokens, at most %lld)", (long long)first,
                       (long long)(m->config.vocabulary - first));
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = write_logits(m, hidden, first, logits, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

qz_status qz_model_logits(const qz_model *m, const qz_tensor *hidden, const qz_tensor *logits, qz_arena *scratch)
{
    if (logits->ndim != 2 || logits->shape[1] != m->config.vocabulary)
        return QZ_FAIL(QZ_SHAPE, "logits must be (tokens, %lld)", (long long)m->config.vocabulary);
    return qz_model_logits_part(m, hidden, 0, logits, scratch);
}

/* ---- log probabilities ---- */

typedef struct sums {
    int64_t tokens;
    const int32_t *target;
    qz_logits_tap tap;
    double *target_logit; /* (T) */
    double *log_sum;      /* (T) of the tiles so far */
    double *tile_first;   /* (T) log probability of a tile's first entry within the tile */
    int32_t *zeros;       /* (T) */
} sums;

static double log_add(double a, double b)
{
    double high = a > b ? a : b, low = a > b ? b : a;
    return high + log1p(exp(low - high));
}

/* Takes the logits (T, count) of vocabulary entries [first, first + count). */
static qz_status add_tile(const qz_model *m, sums *s, const qz_tensor *logits, int64_t first)
{
    const int64_t count = logits->shape[1];
    qz_tensor tile_first = qz_tensor_1d(s->tile_first, QZ_F64, s->tokens);
    QZ_TRY(qz_op_log_prob(m->backend, &tile_first, logits, s->zeros));
    for (int64_t t = 0; t < s->tokens; t++) {
        const float *row = qz_f32(logits) + t * logits->stride[0];
        double tile_sum = (double)row[0] - s->tile_first[t];
        s->log_sum[t] = first == 0 ? tile_sum : log_add(s->log_sum[t], tile_sum);
        if (s->target[t] >= first && s->target[t] < first + count)
            s->target_logit[t] = (double)row[s->target[t] - first];
    }
    return QZ_OK;
}

static qz_status sum_tiles(const qz_model *m, const qz_tensor *hidden, sums *s, qz_arena *scratch)
{
    const int64_t width = tile_end(m, 0);
    float *room = qz_arena_array(scratch, float, (size_t)(width * m->config.hidden));
    float *logits = qz_arena_array(scratch, float, (size_t)(s->tokens * width));
    if (!room || !logits) return qz_arena_failed(scratch);
    for (int64_t v = 0; v < m->config.vocabulary; v = tile_end(m, v)) {
        qz_tensor rows, tile = qz_tensor_2d(logits, QZ_F32, s->tokens, tile_end(m, v) - v);
        QZ_TRY(head_rows(m, v, tile_end(m, v) - v, room, &rows));
        QZ_TRY(tile_logits(m, &tile, hidden, &rows));
        QZ_TRY(add_tile(m, s, &tile, v));
        if (s->tap.fn) QZ_TRY(s->tap.fn(s->tap.context, v, &tile));
    }
    return QZ_OK;
}

static qz_status log_prob(const qz_model *m, const qz_tensor *hidden, const int32_t *targets, double *out,
                          qz_logits_tap tap, qz_arena *scratch)
{
    const size_t tokens = (size_t)hidden->shape[0];
    sums s = {.tokens = hidden->shape[0], .target = targets, .tap = tap};
    s.target_logit = qz_arena_array(scratch, double, tokens);
    s.log_sum = qz_arena_array(scratch, double, tokens);
    s.tile_first = qz_arena_array(scratch, double, tokens);
    s.zeros = qz_arena_calloc(scratch, tokens * sizeof *s.zeros);
    if (!s.target_logit || !s.log_sum || !s.tile_first || !s.zeros) return qz_arena_failed(scratch);
    QZ_TRY(sum_tiles(m, hidden, &s, scratch));
    for (size_t t = 0; t < tokens; t++) out[t] = targets[t] < 0 ? 0 : s.target_logit[t] - s.log_sum[t];
    return QZ_OK;
}

qz_status qz_model_log_prob(const qz_model *m, const qz_tensor *hidden, const int32_t *targets,
                            const qz_tensor *log_probs, qz_arena *scratch)
{
    return qz_model_log_prob_tapped(m, hidden, targets, log_probs, (qz_logits_tap){0}, scratch);
}

qz_status qz_model_log_prob_tapped(const qz_model *m, const qz_tensor *hidden, const int32_t *targets,
                                   const qz_tensor *log_probs, qz_logits_tap tap, qz_arena *scratch)
{
    const int64_t tokens = hidden->shape[0];
    if (log_probs->dtype != QZ_F64 || log_probs->ndim != 1 || log_probs->shape[0] != tokens)
        return QZ_FAIL(QZ_SHAPE, "log probabilities must be a dense F64 view of shape (%lld)", (long long)tokens);
    for (int64_t t = 0; t < tokens; t++) {
        if (targets[t] >= m->config.vocabulary)
            return QZ_FAIL(QZ_ARG, "target %lld: id %d, but vocab_size of the model is %lld", (long long)t, targets[t],
                           (long long)m->config.vocabulary);
    }
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = log_prob(m, hidden, targets, log_probs->data, tap, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

uint64_t qz_model_head_bytes(const qz_model *m, int64_t tokens)
{
    enum { ALLOCATIONS = 6, PADDING = 64 };
    const uint64_t width = (uint64_t)tile_end(m, 0), t = (uint64_t)tokens;
    const uint64_t per_token = width * sizeof(float) + 3 * sizeof(double) + sizeof(int32_t);
    return width * (uint64_t)m->config.hidden * sizeof(float) + t * per_token + ALLOCATIONS * PADDING;
}
