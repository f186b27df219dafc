/* Attention of a decoder layer: the normed residual -> q, k and v, norms per head where the family has them, rotation,
 * then softmax(q k^T * scale) v under the causal mask and the layer's window. The taps for cached keys and values are
 * called here. Every token counts its position from the start of its sequence. */
#include <math.h>

#include "models/parts.h"

qz_status qz_model_rotation(qz_rotation *r, const qz_model *m, qz_batch batch, const int32_t *first, qz_arena *arena)
{
    const qz_rope *rope = &m->config.rope;
    const int64_t tokens = batch.sequences * batch.length;
    const bool far = m->far_inv_freq && (double)batch.length > rope->original_context;
    int32_t *positions = qz_arena_array(arena, int32_t, (size_t)tokens);
    QZ_TRY(qz_matrix_new(&r->cos, batch.length, rope->dims / 2, arena));
    QZ_TRY(qz_matrix_new(&r->sin, batch.length, rope->dims / 2, arena));
    if (!positions) return qz_arena_failed(arena);
    qz_rope_tables(qz_f32(&r->cos), qz_f32(&r->sin), rope, far ? m->far_inv_freq : m->inv_freq, batch.length,
                   rope->dims);
    for (int64_t t = 0; t < tokens; t++) positions[t] = (int32_t)(t % batch.length) - (first ? first[t] : 0);
    r->positions = positions;
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
