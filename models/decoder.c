/* The decoder, stage by stage, on a model's backend: what the header's table says, and what they make when run in turn.
 *
 *     attention half   x = norm(residual), carry = attention(q x, k x, v x), residual += o carry
 *     MLP half         x = norm(residual), carry = act(gate x) up x,         residual += down carry
 *
 * In place of the MLP half, a layer with a router runs its experts (experts.c). Families with norms behind attention
 * and MLP add the norm of what is added above (Gemma Team 2024, section 2). Scratch is given back before a stage
 * returns, whether it succeeded or not. */
#include <string.h>

#include "models/parts.h"

static int64_t tokens_of(qz_batch b)
{
    return b.sequences * b.length;
}

qz_status qz_matrix_new(qz_tensor *out, int64_t rows, int64_t cols, qz_arena *arena)
{
    float *data = qz_arena_array(arena, float, (size_t)(rows * cols));
    *out = qz_tensor_2d(data, QZ_F32, rows, cols);
    return data ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_tap_call(const qz_model *m, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    const qz_tap *t = layer->tap.fn ? &layer->tap : &m->tap;
    return t->fn ? t->fn(t->context, layer, input, point, x) : QZ_OK;
}

qz_status qz_role_apply(const qz_model *m, const qz_layer *layer, qz_role role, int expert, const qz_tensor *y,
                        const qz_tensor *x, bool accumulate)
{
    const qz_linear *l = qz_layer_part(layer, role, expert);
    return qz_op_linear(m->backend, y, x, &l->weight, l->bias.data ? &l->bias : NULL, accumulate);
}

qz_status qz_norm_apply(const qz_model *m, const qz_tensor *norm, const qz_tensor *y, const qz_tensor *x)
{
    return qz_op_rmsnorm(m->backend, y, x, norm, (float)m->config.norm_eps, (float)m->config.norm_offset);
}

qz_status qz_gate_up_apply(const qz_model *m, const qz_layer *layer, int expert, const qz_tensor *gate,
                           const qz_tensor *up, const qz_tensor *x)
{
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_GATE, expert, gate, x, false));
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_UP, expert, up, x, false));
    if (m->config.gelu_tanh) return qz_op_geglu(m->backend, gate, gate, up);
    return qz_op_swiglu(m->backend, gate, gate, up);
}

/* residual += y, or the norm of it; y is overwritten then. */
static qz_status add_normed(const qz_model *m, const qz_tensor *norm, const qz_tensor *residual, const qz_tensor *y)
{
    QZ_TRY(qz_norm_apply(m, norm, y, y));
    return qz_op_add(m->backend, residual, y);
}

/* residual += o(x) or down(x), or the norm of it. */
static qz_status add_output(const qz_model *m, const qz_layer *layer, qz_role role, const qz_tensor *x,
                            const qz_tensor *residual, qz_arena *scratch)
{
    const qz_tensor *norm = &layer->norm[role == QZ_ROLE_O ? QZ_NORM_AFTER_ATTENTION : QZ_NORM_AFTER_MLP];
    qz_tensor y;
    if (!norm->data) return qz_role_apply(m, layer, role, 0, residual, x, true);
    QZ_TRY(qz_matrix_new(&y, x->shape[0], m->config.hidden, scratch));
    QZ_TRY(qz_role_apply(m, layer, role, 0, &y, x, false));
    return add_normed(m, norm, residual, &y);
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
    return qz_norm_apply(m, &layer->norm[stage == QZ_STAGE_GATE_UP ? QZ_NORM_MLP : QZ_NORM_ATTENTION], x, residual);
}

static qz_status run_stage(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch, const qz_tensor *x,
                           const qz_tensor *residual, const qz_tensor *carry, qz_arena *scratch)
{
    qz_tensor up;
    QZ_TRY(qz_tap_call(m, layer, qz_input_of(stage, 0), QZ_POINT_INPUT, x));
    switch (stage) {
    case QZ_STAGE_QKV:
        return qz_attention_apply(m, layer, batch, x, carry, scratch);
    case QZ_STAGE_O:
        return add_output(m, layer, QZ_ROLE_O, x, residual, scratch);
    case QZ_STAGE_GATE_UP:
        QZ_TRY(qz_matrix_new(&up, x->shape[0], m->config.ffn, scratch));
        return qz_gate_up_apply(m, layer, 0, carry, &up, x);
    default:
        return add_output(m, layer, QZ_ROLE_DOWN, x, residual, scratch);
    }
}

qz_status qz_stage_apply(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch, const qz_tensor *x,
                         const qz_tensor *residual, const qz_tensor *carry, qz_arena *scratch)
{
    const int64_t tokens = tokens_of(batch);
    QZ_TRY(check_batch(m, batch));
    if (stage >= QZ_STAGE_GATE_UP && layer->router_name)
        return QZ_FAIL(QZ_ARG, "layer %d has a router: its experts do not run stage by stage", layer->index);
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

/* ---- layers ---- */

/* Two stages: the norm of the residual through one, what that leaves in `carry` through the next; or only shown. */
static qz_status run_half(const qz_model *m, const qz_layer *layer, qz_stage first, qz_batch batch,
                          const qz_tensor *residual, bool show_last, qz_arena *scratch)
{
    const qz_stage second = (qz_stage)(first + 1);
    qz_tensor x, carry;
    QZ_TRY(qz_matrix_new(&carry, tokens_of(batch), qz_model_input_width(m, layer->index, (int)second), scratch));
    QZ_TRY(qz_matrix_new(&x, tokens_of(batch), m->config.hidden, scratch));
    QZ_TRY(qz_stage_input(m, layer, first, batch, residual, NULL, &x));
    QZ_TRY(qz_stage_apply(m, layer, first, batch, &x, residual, &carry, scratch));
    if (show_last) return qz_tap_call(m, layer, qz_input_of(second, 0), QZ_POINT_INPUT, &carry);
    return qz_stage_apply(m, layer, second, batch, &carry, residual, NULL, scratch);
}

static qz_status run_experts(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                             bool observe, qz_arena *scratch)
{
    const qz_tensor *norm = &layer->norm[QZ_NORM_AFTER_MLP];
    qz_tensor x, y = *residual;
    QZ_TRY(qz_matrix_new(&x, tokens_of(batch), m->config.hidden, scratch));
    QZ_TRY(qz_stage_input(m, layer, QZ_STAGE_GATE_UP, batch, residual, NULL, &x));
    if (norm->data) {
        QZ_TRY(qz_matrix_new(&y, x.shape[0], x.shape[1], scratch));
        memset(y.data, 0, (size_t)qz_tensor_count(&y) * sizeof(float));
    }
    QZ_TRY(qz_experts_apply(m, layer, &x, &y, observe, scratch));
    return norm->data && !observe ? add_normed(m, norm, residual, &y) : QZ_OK;
}

static qz_status run_mlp(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                         bool observe, qz_arena *scratch)
{
    if (layer->router_name) return run_experts(m, layer, batch, residual, observe, scratch);
    return run_half(m, layer, QZ_STAGE_GATE_UP, batch, residual, observe, scratch);
}

static qz_status run_layer(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *residual,
                           bool observe, qz_arena *scratch)
{
    QZ_TRY(check_batch(m, batch));
    QZ_TRY(check_view("residual", residual, tokens_of(batch), m->config.hidden));
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = run_half(m, layer, QZ_STAGE_QKV, batch, residual, false, scratch);
    qz_arena_restore(scratch, mark);
    if (status == QZ_OK) status = run_mlp(m, layer, batch, residual, observe, scratch);
    qz_arena_restore(scratch, mark);
    return status;
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

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Numbers beside x: of the attention half, and of either kind of MLP half. */
uint64_t qz_model_scratch_bytes(const qz_model *m, qz_batch batch)
{
    const qz_model_config *c = &m->config;
    const uint64_t tokens = (uint64_t)tokens_of(batch), q = (uint64_t)(c->heads * c->head_dim);
    const uint64_t added = c->norms_after ? tokens * (uint64_t)c->hidden : 0;
    uint64_t numbers = tokens * q + most(qz_attention_numbers(m, batch), added);
    if (m->form[0].place) numbers = most(numbers, tokens * (uint64_t)c->ffn + most(tokens * (uint64_t)c->ffn, added));
    if (m->form[1].place) numbers = most(numbers, qz_experts_numbers(m, (int64_t)tokens) + added);
    enum { ALLOCATIONS = 10, PADDING = 64 };
    return (tokens * (uint64_t)c->hidden + numbers) * sizeof(float) + ALLOCATIONS * PADDING;
}
