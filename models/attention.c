/* Attention of a decoder layer: the normed residual -> q, k and v, norms per head where the family has them, rotation,
 * then softmax(q k^T * scale) v under the causal mask and the layer's window. The taps for cached keys and values are
 * called here. Every token counts its position from the start of its sequence. */
#include <math.h>

#include "models/parts.h"

static bool is_far(const qz_model *m, int64_t length)
{
    return m->far_inv_freq && (double)length > m->config.rope.original_context;
}

/* Where the document of token t ends, within its sequence. */
static int64_t end_of(const int32_t *first, int64_t t, int64_t length)
{
    const int64_t row = t - t % length;
    int64_t end = t + 1;
    while (end < row + length && first[end] == first[t]) end++;
    return end - row;
}

/* Every document counts from its own start, and its own length says which of the tables it reads; the one for long
 * documents lies behind the other. */
static void place_documents(int32_t *positions, const qz_model *m, qz_batch batch, const int32_t *first)
{
    const int64_t length = batch.length;
    int64_t far = 0;
    for (int64_t t = 0; t < batch.sequences * length; t++) {
        if (t % length == first[t]) far = is_far(m, end_of(first, t, length) - first[t]) ? length : 0;
        positions[t] = (int32_t)(t % length - first[t] + far);
    }
}

static void fill_tables(qz_rotation *r, const qz_model *m, int64_t row, int64_t rows, bool far)
{
    const qz_rope *rope = &m->config.rope;
    const int64_t skip = row * (rope->dims / 2);
    qz_rope_tables(qz_f32(&r->cos) + skip, qz_f32(&r->sin) + skip, rope, far ? m->far_inv_freq : m->inv_freq, rows,
                   rope->dims);
}

qz_status qz_model_rotation(qz_rotation *r, const qz_model *m, qz_batch batch, const int32_t *first, qz_arena *arena)
{
    const int64_t tokens = batch.sequences * batch.length, half = m->config.rope.dims / 2;
    const bool both = first && is_far(m, batch.length);
    int32_t *positions = qz_arena_array(arena, int32_t, (size_t)tokens);
    QZ_TRY(qz_matrix_new(&r->cos, (both ? 2 : 1) * batch.length, half, arena));
    QZ_TRY(qz_matrix_new(&r->sin, (both ? 2 : 1) * batch.length, half, arena));
    if (!positions) return qz_arena_failed(arena);
    r->positions = positions;
    fill_tables(r, m, 0, batch.length, !both && is_far(m, batch.length));
    if (both) fill_tables(r, m, batch.length, batch.length, true);
    if (first)
        place_documents(positions, m, batch, first);
    else
        for (int64_t t = 0; t < tokens; t++) positions[t] = (int32_t)(t % batch.length);
    return QZ_OK;
}

float qz_model_attention_scale(const qz_model *m)
{
    const qz_model_config *c = &m->config;
    return (float)(c->attention_scale > 0 ? c->attention_scale : 1 / sqrt((double)c->head_dim));
}

/* x (T, heads * D) normalized per head where the family does that, then rotated: the first channels of each head. */
static qz_status norm_and_rotate(const qz_model *m, const qz_tensor *x, int64_t heads, const qz_tensor *norm,
                                 const qz_rotation *r)
{
    const int64_t rows = x->shape[0], head_dim = m->config.head_dim;
    qz_tensor by_head = qz_tensor_2d(x->data, QZ_F32, rows * heads, head_dim);
    qz_tensor rotated = qz_tensor_3d(x->data, QZ_F32, rows, heads, head_dim);
    rotated.shape[2] = m->config.rope.dims;
    if (norm->data) QZ_TRY(qz_norm_apply(m, norm, &by_head, &by_head));
    return qz_op_rope(m->backend, &rotated, &r->cos, &r->sin, r->positions, false);
}

static qz_status attend(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *carry,
                        const qz_tensor *q, const qz_tensor *k, const qz_tensor *v)
{
    const qz_model_config *c = &m->config;
    const int64_t b = batch.sequences, t = batch.length, d = c->head_dim;
    qz_tensor y4 = qz_tensor_4d(carry->data, QZ_F32, b, t, c->heads, d);
    qz_tensor q4 = qz_tensor_4d(q->data, QZ_F32, b, t, c->heads, d);
    qz_tensor k4 = qz_tensor_4d(k->data, QZ_F32, b, t, c->kv_heads, d);
    qz_tensor v4 = qz_tensor_4d(v->data, QZ_F32, b, t, c->kv_heads, d);
    qz_tensor k3 = qz_tensor_3d(k->data, QZ_F32, b * t, c->kv_heads, d);
    qz_tensor v3 = qz_tensor_3d(v->data, QZ_F32, b * t, c->kv_heads, d);
    const int64_t window = c->layer_slides[layer->index] ? c->window : 0;
    const float scale = qz_model_attention_scale(m);
    QZ_TRY(qz_tap_call(m, layer, 0, QZ_POINT_KEY, &k3));
    QZ_TRY(qz_tap_call(m, layer, 0, QZ_POINT_VALUE, &v3));
    const qz_attention how = {.scale = scale, .softcap = (float)c->attention_softcap, .window = window};
    return qz_op_attention(m->backend, &y4, NULL, &q4, &k4, &v4, &how);
}

qz_status qz_attention_apply(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *x,
                             const qz_tensor *carry, qz_arena *scratch)
{
    const qz_model_config *c = &m->config;
    const int64_t tokens = batch.sequences * batch.length;
    qz_tensor q, k, v;
    qz_rotation r;
    QZ_TRY(qz_matrix_new(&q, tokens, c->heads * c->head_dim, scratch));
    QZ_TRY(qz_matrix_new(&k, tokens, c->kv_heads * c->head_dim, scratch));
    QZ_TRY(qz_matrix_new(&v, tokens, c->kv_heads * c->head_dim, scratch));
    QZ_TRY(qz_model_rotation(&r, m, batch, NULL, scratch));
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_Q, 0, &q, x, false));
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_K, 0, &k, x, false));
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_V, 0, &v, x, false));
    QZ_TRY(norm_and_rotate(m, &q, c->heads, &layer->q_norm, &r));
    QZ_TRY(norm_and_rotate(m, &k, c->kv_heads, &layer->k_norm, &r));
    return attend(m, layer, batch, carry, &q, &k, &v);
}

uint64_t qz_attention_numbers(const qz_model *m, qz_batch batch)
{
    const qz_model_config *c = &m->config;
    const uint64_t tokens = (uint64_t)(batch.sequences * batch.length);
    return tokens * (uint64_t)((c->heads + 2 * c->kv_heads) * c->head_dim + 1) +
           (uint64_t)(batch.length * c->rope.dims);
}
