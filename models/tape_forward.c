/* The decoder on a tape: the same stages as decoder.c, recorded so that they can be gone back through.
 *
 *     residual -> norm -> q k v -> norms per head, rotation -> attention -> o (+ residual)
 *              -> norm -> gate up -> act(gate) * up -> down (+ residual)
 *
 * Weights come from the caller, so plain training, rounding in training and adapters are not told apart here. */
#include <string.h>

#include "models/parts.h"

typedef struct pass {
    const qz_model *m;
    qz_tape_weights weights;
    qz_tape_batch batch;
    qz_rotation rotation;
} pass;

static qz_status plain(const pass *p, qz_tape *t, const char *name, qz_var **w)
{
    return p->weights.plain(p->weights.context, t, name, w);
}

/* y = norm of x by the tensor `name`. */
static qz_status norm(const pass *p, qz_tape *t, const char *name, qz_var *x, qz_var **y)
{
    qz_var *w;
    QZ_TRY(plain(p, t, name, &w));
    QZ_TRY(qz_ag_rmsnorm(y, t, x, w, (float)p->m->config.norm_eps, (float)p->m->config.norm_offset));
    qz_var_release(t, w);
    return QZ_OK;
}

static qz_status point(const pass *p, qz_tape *t, int layer, int input, qz_point at, qz_var **x)
{
    qz_var *before = *x;
    if (!p->weights.point) return QZ_OK;
    QZ_TRY(p->weights.point(p->weights.context, t, layer, input, at, x));
    if (*x != before) qz_var_release(t, before);
    return QZ_OK;
}

static qz_status linear(const pass *p, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var *residual, qz_var **y)
{
    return p->weights.linear(p->weights.context, t, layer, role, x, residual, y);
}

/* ---- attention ---- */

/* q or k of the normed input: per head normed where the family does that, then rotated. */
static qz_status rotated(const pass *p, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var **y)
{
    const qz_model_config *c = &p->m->config;
    const qz_layer_names *names = &p->m->names[layer];
    const char *norm_name = role == QZ_ROLE_Q ? names->q_norm : names->k_norm;
    qz_var *z, *normed;
    QZ_TRY(linear(p, t, layer, role, x, NULL, &z));
    if (norm_name) {
        QZ_TRY(norm(p, t, norm_name, z, &normed));
        qz_var_release(t, z);
        z = normed;
    }
    return qz_ag_rope(y, t, z, role == QZ_ROLE_Q ? c->heads : c->kv_heads, &p->rotation);
}

static qz_status attend(const pass *p, qz_tape *t, int layer, qz_var *q, qz_var *k, qz_var *v, qz_var **y)
{
    const qz_model_config *c = &p->m->config;
    const qz_ag_attention_shape shape = {p->batch.sequences, p->batch.length, c->heads, c->kv_heads, c->head_dim};
    const qz_attention how = {.scale = qz_model_attention_scale(p->m),
                              .softcap = (float)c->attention_softcap,
                              .window = c->layer_slides[layer] ? c->window : 0,
                              .first = p->batch.first};
    return qz_ag_attention(y, t, q, k, v, shape, &how);
}

static qz_status attention(const pass *p, qz_tape *t, int layer, qz_var *x, qz_var **y)
{
    qz_var *q, *k, *v;
    QZ_TRY(rotated(p, t, layer, QZ_ROLE_Q, x, &q));
    QZ_TRY(rotated(p, t, layer, QZ_ROLE_K, x, &k));
    QZ_TRY(linear(p, t, layer, QZ_ROLE_V, x, NULL, &v));
    QZ_TRY(point(p, t, layer, 0, QZ_POINT_KEY, &k));
    QZ_TRY(point(p, t, layer, 0, QZ_POINT_VALUE, &v));
    QZ_TRY(attend(p, t, layer, q, k, v, y));
    qz_var_release(t, q);
    qz_var_release(t, k);
    qz_var_release(t, v);
    return QZ_OK;
}

/* ---- MLP ---- */

static qz_status gate_up(const pass *p, qz_tape *t, int layer, qz_var *x, qz_var **y)
{
    qz_var *gate, *up;
    QZ_TRY(linear(p, t, layer, QZ_ROLE_GATE, x, NULL, &gate));
    QZ_TRY(linear(p, t, layer, QZ_ROLE_UP, x, NULL, &up));
    QZ_TRY(p->m->config.gelu_tanh ? qz_ag_geglu(y, t, gate, up) : qz_ag_swiglu(y, t, gate, up));
    qz_var_release(t, gate);
    qz_var_release(t, up);
    return QZ_OK;
}

/* ---- layers ---- */

/* y = x + role(z), or x + norm(role(z)) where the family has norms behind attention and MLP; z is released. */
static qz_status add_output(const pass *p, qz_tape *t, int layer, qz_role role, qz_var *z, qz_var *x, qz_var **y)
{
    const char *after = p->m->names[layer].norm[role == QZ_ROLE_O ? QZ_NORM_AFTER_ATTENTION : QZ_NORM_AFTER_MLP];
    const int input = qz_input_of(role == QZ_ROLE_O ? QZ_STAGE_O : QZ_STAGE_DOWN, 0);
    qz_var *out, *normed;
    QZ_TRY(point(p, t, layer, input, QZ_POINT_INPUT, &z));
    QZ_TRY(linear(p, t, layer, role, z, after ? NULL : x, after ? &out : y));
    qz_var_release(t, z);
    if (!after) return QZ_OK;
    QZ_TRY(norm(p, t, after, out, &normed));
    qz_var_release(t, out);
    QZ_TRY(qz_ag_add(y, t, x, normed));
    qz_var_release(t, normed);
    return QZ_OK;
}

typedef qz_status middle(const pass *p, qz_tape *t, int layer, qz_var *x, qz_var **y);

/* Half a layer: norm, what is in the middle, the output. x stays. */
static qz_status half(const pass *p, qz_tape *t, int layer, qz_norm before, qz_stage stage, middle *inner, qz_role out,
                      qz_var *x, qz_var **y)
{
    qz_var *normed, *z;
    QZ_TRY(norm(p, t, p->m->names[layer].norm[before], x, &normed));
    QZ_TRY(point(p, t, layer, qz_input_of(stage, 0), QZ_POINT_INPUT, &normed));
    QZ_TRY(inner(p, t, layer, normed, &z));
    qz_var_release(t, normed);
    return add_output(p, t, layer, out, z, x, y);
}

typedef struct place {
    const pass *p;
    int layer;
} place;

static qz_status run_layer(const void *context, qz_tape *t, qz_var *x, qz_var **y)
{
    const place *at = context;
    qz_var *between;
    QZ_TRY(half(at->p, t, at->layer, QZ_NORM_ATTENTION, QZ_STAGE_QKV, attention, QZ_ROLE_O, x, &between));
    QZ_TRY(half(at->p, t, at->layer, QZ_NORM_MLP, QZ_STAGE_GATE_UP, gate_up, QZ_ROLE_DOWN, between, y));
    qz_var_release(t, between);
    return QZ_OK;
}

/* ---- all ---- */

static qz_status check_pass(const qz_model *m, qz_tape_batch batch)
{
    if (m->config.experts)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: models with experts are not trained", m->family->architecture);
    for (int64_t t = 0; batch.ids && t < batch.sequences * batch.length; t++) {
        if (batch.ids[t] < 0 || batch.ids[t] >= m->config.vocabulary)
            return QZ_FAIL(QZ_ARG, "token %lld: id %d, but vocab_size of the model is %lld; is the tokenizer its own?",
                           (long long)t, batch.ids[t], (long long)m->config.vocabulary);
    }
    if (batch.sequences >= 1 && batch.length >= 1 && batch.length <= m->config.context) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "a batch of %lld sequences of %lld tokens: max_position_embeddings of the model is %lld",
                   (long long)batch.sequences, (long long)batch.length, (long long)m->config.context);
}

static qz_status run_layers(const pass *p, qz_tape *t, qz_var **x)
{
    for (int i = 0; i < p->m->config.layers; i++) {
        const place at = {p, i};
        const qz_segment segment = {run_layer, &at, sizeof at};
        qz_var *y;
        QZ_TRY(p->weights.recompute ? qz_ag_segment(&y, t, *x, &segment) : run_layer(&at, t, *x, &y));
        qz_var_release(t, *x);
        *x = y;
    }
    return QZ_OK;
}

qz_status qz_model_tape_forward(const qz_model *m, qz_tape *t, const qz_tape_weights *weights, qz_tape_batch batch,
                                qz_var **hidden, qz_var **head, qz_arena *arena)
{
    const qz_tensor_names *names = m->family->names;
    pass *p = qz_arena_calloc(arena, sizeof *p); /* recomputation reads it later */
    qz_var *table, *x;
    if (!p) return qz_arena_failed(arena);
    *p = (pass){.m = m, .weights = *weights, .batch = batch};
    QZ_TRY(check_pass(m, batch));
    QZ_TRY(qz_model_rotation(&p->rotation, m, (qz_batch){batch.sequences, batch.length}, batch.first, arena));
    QZ_TRY(plain(p, t, names->embedding, &table));
    QZ_TRY(qz_ag_embedding(&x, t, table, batch.ids, batch.sequences * batch.length, (float)m->config.embedding_scale));
    if (!m->config.tied) qz_var_release(t, table);
    QZ_TRY(run_layers(p, t, &x));
    QZ_TRY(norm(p, t, names->final_norm, x, hidden));
    qz_var_release(t, x);
    *head = table;
    return m->config.tied ? QZ_OK : plain(p, t, names->head, head);
}
