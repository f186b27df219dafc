/* The decoder layer in four stages (Vaswani et al. 2017 in the pre-norm form of Touvron et al. 2023):
 *     residual += o(attention(rope(norm(q(x))), rope(norm(k(x))), v(x)))      x = rmsnorm(residual)
 *     residual += down(silu(gate(x)) * up(x))                                x = rmsnorm(residual)
 * Every token of a batch counts its position from the start of its sequence. Scratch is given back before a stage
 * returns, whether it succeeded or not. */
#include <math.h>
#include <string.h>

#include "models/parts.h"

static int64_t tokens_of(qz_batch b)
{
    return b.sequences * b.length;
}

static qz_status new_2d(qz_tensor *out, int64_t rows, int64_t cols, qz_arena *arena)
{
    float *data = qz_arena_array(arena, float, (size_t)(rows * cols));
    *out = qz_tensor_2d(data, QZ_F32, rows, cols);
    return data ? QZ_OK : qz_arena_failed(arena);
}

static qz_status tap(const qz_model *m, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    const qz_tap *t = layer->tap.fn ? &layer->tap : &m->tap;
    return t->fn ? t->fn(t->context, layer, input, point, x) : QZ_OK;
}

/* y (T, N) = x (T, K) through the role's linear, or y += that. */
static qz_status apply(const qz_model *m, const qz_layer *layer, qz_role role, const qz_tensor *y, const qz_tensor *x,
                       bool accumulate)
{
    const qz_linear *l = qz_layer_part(layer, role, 0);
    return qz_op_linear(m->backend, y, x, &l->weight, l->bias.data ? &l->bias : NULL, accumulate);
}

/* ---- attention ---- */

typedef struct rotation {
    qz_tensor cos, sin; /* (length, D/2) */
    int32_t *positions; /* (T) */
} rotation;

static qz_status make_rotation(rotation *r, const qz_model *m, qz_batch batch, qz_arena *scratch)
{
    const int64_t head_dim = m->config.head_dim;
    QZ_TRY(new_2d(&r->cos, batch.length, head_dim / 2, scratch));
    QZ_TRY(new_2d(&r->sin, batch.length, head_dim / 2, scratch));
    r->positions = qz_arena_array(scratch, int32_t, (size_t)tokens_of(batch));
    if (!r->positions) return qz_arena_failed(scratch);
    qz_rope_tables(qz_f32(&r->cos), qz_f32(&r->sin), &m->config.rope, m->inv_freq, batch.length, head_dim);
    for (int64_t t = 0; t < tokens_of(batch); t++) r->positions[t] = (int32_t)(t % batch.length);
    return QZ_OK;
}

/* x (T, heads * D) normalized per head where the family does that, then rotated. */
static qz_status norm_and_rotate(const qz_model *m, const qz_tensor *x, int64_t heads, const qz_tensor *norm,
                                 const rotation *r)
{
    const int64_t rows = x->shape[0], head_dim = m->config.head_dim;
    qz_tensor by_head = qz_tensor_2d(x->data, QZ_F32, rows * heads, head_dim);
    qz_tensor rotated = qz_tensor_3d(x->data, QZ_F32, rows, heads, head_dim);
    if (norm->data) QZ_TRY(qz_op_rmsnorm(m->backend, &by_head, &by_head, norm, (float)m->config.norm_eps, 0));
    return qz_op_rope(m->backend, &rotated, &r->cos, &r->sin, r->positions);
}

/* carry (T, H * D) */
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
    QZ_TRY(tap(m, layer, 0, QZ_POINT_KEY, &k3));
    QZ_TRY(tap(m, layer, 0, QZ_POINT_VALUE, &v3));
    return qz_op_attention(m->backend, &y4, &q4, &k4, &v4, (float)(1 / sqrt((double)d)), window, 0);
}

static qz_status apply_qkv(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *x,
                           const qz_tensor *carry, qz_arena *scratch)
{
    const qz_model_config *c = &m->config;
    const int64_t tokens = tokens_of(batch);
    qz_tensor q, k, v;
    rotation r;
    QZ_TRY(new_2d(&q, tokens, c->heads * c->head_dim, scratch));
    QZ_TRY(new_2d(&k, tokens, c->kv_heads * c->head_dim, scratch));
    QZ_TRY(new_2d(&v, tokens, c->kv_heads * c->head_dim, scratch));
    QZ_TRY(make_rotation(&r, m, batch, scratch));
    QZ_TRY(apply(m, layer, QZ_ROLE_Q, &q, x, false));
    QZ_TRY(apply(m, layer, QZ_ROLE_K, &k, x, false));
    QZ_TRY(apply(m, layer, QZ_ROLE_V, &v, x, false));
    QZ_TRY(norm_and_rotate(m, &q, c->heads, &layer->q_norm, &r));
    QZ_TRY(norm_and_rotate(m, &k, c->kv_heads, &layer->k_norm, &r));
    return attend(m, layer, batch, carry, &q, &k, &v);
}

/* ---- MLP ---- */

static qz_status apply_gate_up(const qz_model *m, const qz_layer *layer, const qz_tensor *x, const qz_tensor *carry,
                               qz_arena *scratch)
{
    qz_tensor up;
    QZ_TRY(new_2d(&up, x->shape[0], m->config.ffn, scratch));
    QZ_TRY(apply(m, layer, QZ_ROLE_GATE, carry, x, false));
    QZ_TRY(apply(m, layer, QZ_ROLE_UP, &up, x, false));
    return qz_op_swiglu(m->backend, carry, carry, &up);
}

/* ---- stages ---- */

static qz_status check_view(const char *name, const qz_tensor *x, int64_t rows, int64_t cols)
{
    if (x && x->data && x->dtype == QZ_F32 && x->ndim == 2 && x->shape[0] == rows && x->shape[1] == cols &&
        x->stride[0] == cols)
        return QZ_OK;
    return QZ_FAIL(QZ_SHAPE, "%s must be a dense F32 view of shape (%lld, %lld)", name, (long long)rows,
                   (long long)cols);
}

static qz_status check_batch(const qz_model *m, qz_batch batch)
{
    if (batch.sequences >= 1 && batch.length >= 1 && batch.length <= m->config.context) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "a batch of %lld sequences of %lld tokens: max_position_embeddings of the model is %lld",
                   (long long)batch.sequences, (long long)batch.length, (long long)m->config.context);
}

qz_status qz_stage_input(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch,
                         const qz_tensor *residual, const qz_tensor *carry, const qz_tensor *x)
{
    const int64_t tokens = tokens_of(batch), width = qz_model_input_width(m, layer->index, qz_input_of(stage, 0));
    QZ_TRY(check_view("x", x, tokens, width));
    if (stage == QZ_STAGE_O || stage == QZ_STAGE_DOWN) {
        QZ_TRY(check_view("carry", carry, tokens, width));
        if (x->data != carry->data) memcpy(x->data, carry->data, (size_t)(tokens * width) * sizeof(float));
        return QZ_OK;
    }
    QZ_TRY(check_view("residual", residual, tokens, m->config.hidden));
    return qz_op_rmsnorm(m->backend, x, residual, &layer->norm[stage == QZ_STAGE_GATE_UP], (float)m->config.norm_eps,
                         0);
}

static qz_status run_stage(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch, const qz_tensor *x,
                           const qz_tensor *residual, const qz_tensor *carry, qz_arena *scratch)
{
    QZ_TRY(tap(m, layer, qz_input_of(stage, 0), QZ_POINT_INPUT, x));
    switch (stage) {
    case QZ_STAGE_QKV:
        return apply_qkv(m, layer, batch, x, carry, scratch);
    case QZ_STAGE_O:
        return apply(m, layer, QZ_ROLE_O, residual, x, true);
    case QZ_STAGE_GATE_UP:
        return apply_gate_up(m, layer, x, carry, scratch);
    default:
        return apply(m, layer, QZ_ROLE_DOWN, residual, x, true);
    }
}

qz_status qz_stage_apply(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch, const qz_tensor *x,
                         const qz_tensor *residual, const qz_tensor *carry, qz_arena *scratch)
{
    const int64_t tokens = tokens_of(batch);
    QZ_TRY(check_batch(m, batch));
    QZ_TRY(check_view("x", x, tokens, qz_model_input_width(m, layer->index, qz_input_of(stage, 0))));
    if (stage == QZ_STAGE_QKV || stage == QZ_STAGE_GATE_UP)
        QZ_TRY(check_view("carry", carry, tokens, qz_model_input_width(m, layer->index, (int)stage + 1)));
    else
        QZ_TRY(check_view("residual", residual, tokens, m->config.hidden));
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = run_stage(m, layer, stage, batch, x, residual, carry, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

/* Two stages: the norm of the residual through one, what that leaves in `carry` through the next; or only shown. */
static qz_status run_half(const qz_model *m, const qz_layer *layer, qz_stage first, qz_batch batch,
                          const qz_tensor *residual, bool show_last, qz_arena *scratch)
{
    const qz_stage second = (qz_stage)(first + 1);
    qz_tensor x, carry;
    QZ_TRY(new_2d(&carry, tokens_of(batch), qz_model_input_width(m, layer->index, (int)second), scratch));
    QZ_TRY(new_2d(&x, tokens_of(batch), m->config.hidden, scratch));
    QZ_TRY(qz_stage_input(m, layer, first, batch, residual, NULL, &x));
    QZ_TRY(qz_stage_apply(m, layer, first, batch, &x, residual, &carry, scratch));
    if (show_last) return tap(m, layer, qz_input_of(second, 0), QZ_POINT_INPUT, &carry);
    return qz_stage_apply(m, layer, second, batch, &carry, residual, NULL, scratch);
}

static qz_status run_layer(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                           bool observe, qz_arena *scratch)
{
    QZ_TRY(check_batch(m, batch));
    QZ_TRY(check_view("residual", residual, tokens_of(batch), m->config.hidden));
    for (int first = QZ_STAGE_QKV; first < QZ_STAGES; first += 2) {
        qz_arena_mark mark = qz_arena_save(scratch);
        qz_status status =
            run_half(m, layer, (qz_stage)first, batch, residual, observe && first == QZ_STAGE_GATE_UP, scratch);
        qz_arena_restore(scratch, mark);
        if (status != QZ_OK) return status;
    }
    return QZ_OK;
}

qz_status qz_layer_forward(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                           qz_arena *scratch)
{
    return run_layer(m, layer, batch, residual, false, scratch);
}

qz_status qz_layer_observe(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                           qz_arena *scratch)
{
    return run_layer(m, layer, batch, residual, true, scratch);
}

uint64_t qz_model_scratch_bytes(const qz_model *m, qz_batch batch)
{
    const qz_model_config *c = &m->config;
    const uint64_t tokens = (uint64_t)tokens_of(batch), q = (uint64_t)(c->heads * c->head_dim);
    const uint64_t kv = (uint64_t)(c->kv_heads * c->head_dim), ffn = (uint64_t)c->ffn;
    /* x and carry, then: q, k, v, positions and the tables of the rotation; or up. */
    uint64_t attention = tokens * (q + q + 2 * kv + 1) + (uint64_t)(batch.length * c->head_dim), mlp = tokens * 2 * ffn;
    uint64_t numbers = tokens * (uint64_t)c->hidden + (attention > mlp ? attention : mlp);
    enum { ALLOCATIONS = 8, PADDING = 64 };
    return numbers * sizeof(float) + ALLOCATIONS * PADDING;
}
