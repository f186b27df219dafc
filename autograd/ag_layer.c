/* Norms, rotation, attention and the gates of a decoder layer. */
#include "autograd/tape.h"

/* ---- rmsnorm ---- */

typedef struct norm {
    float eps, offset;
} norm;

/* Rows of the length of w, whatever the shape of x. */
static qz_tensor by_rows(const qz_tensor *x, const qz_tensor *w)
{
    const int64_t cols = w->shape[0];
    return qz_tensor_2d(x->data, QZ_F32, qz_tensor_count(x) / cols, cols);
}

static qz_status norm_value(qz_tape *t, qz_var *y, const qz_var *x, const qz_var *w, const norm *how)
{
    const qz_tensor to = by_rows(&y->value, &w->value), from = by_rows(&x->value, &w->value);
    QZ_RUN(t, qz_op_rmsnorm(t->backend, &to, &from, &w->value, how->eps, how->offset));
    return QZ_OK;
}

static qz_status rmsnorm_redo(qz_tape *t, qz_node *n)
{
    return norm_value(t, n->out, n->in[0], n->in[1], n->with);
}

static qz_status norm_grad(qz_tape *t, qz_node *n, const qz_tensor *dx, const qz_tensor *dw, bool accumulate)
{
    const norm *how = n->with;
    const qz_tensor *w = &n->in[1]->value;
    const qz_tensor dy = by_rows(&n->out->grad, w), x = by_rows(&n->in[0]->value, w), to = by_rows(dx, w);
    QZ_RUN(t, qz_op_rmsnorm_grad(t->backend, &to, dw, &dy, &x, w, how->eps, how->offset, accumulate));
    return QZ_OK;
}

static qz_status rmsnorm_vjp(qz_tape *t, qz_node *n)
{
    qz_tensor dx, dw;
    bool accumulate = false, want_w = qz_wants(n->in[1]);
    if (want_w) QZ_TRY(qz_grad_zeroed(t, n->in[1], &dw));
    if (qz_wants(n->in[0]))
        QZ_TRY(qz_grad_place(t, n->in[0], &dx, &accumulate));
    else
        dx = n->out->grad; /* not asked for: it may spoil dy */
    return norm_grad(t, n, &dx, want_w ? &dw : NULL, accumulate);
}

const qz_rule qz_rule_rmsnorm = {"rmsnorm", rmsnorm_redo, rmsnorm_vjp};

qz_status qz_ag_rmsnorm(qz_var **y, qz_tape *t, qz_var *x, qz_var *w, float eps, float weight_offset)
{
    const norm how = {eps, weight_offset};
    QZ_TRY(qz_var_like(y, t, x));
    QZ_TRY(norm_value(t, *y, x, w, &how));
    const qz_node_spec spec = {.rule = &qz_rule_rmsnorm,
                               .out = *y,
                               .in = {x, w},
                               .reads = QZ_READS_0 | QZ_READS_1,
                               .with = &how,
                               .size = sizeof how};
    return qz_node_add(t, &spec, NULL);
}

/* ---- rope ---- */

typedef struct turn {
    int64_t heads;
    qz_rotation r;
} turn;

static qz_status rotate(qz_tape *t, const qz_tensor *x, const turn *how, bool inverse)
{
    const int64_t rows = x->shape[0];
    qz_tensor heads = qz_tensor_3d(x->data, QZ_F32, rows, how->heads, x->shape[1] / how->heads);
    heads.shape[2] = 2 * how->r.cos.shape[1];
    QZ_RUN(t, qz_op_rope(t->backend, &heads, &how->r.cos, &how->r.sin, how->r.positions, inverse));
    return QZ_OK;
}

/* A rotation is orthogonal: the gradient is turned back, in place, since nobody else looks at it. */
static qz_status rope_vjp(qz_tape *t, qz_node *n)
{
    QZ_TRY(rotate(t, &n->out->grad, n->with, true));
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_rope = {"rope", NULL, rope_vjp};

qz_status qz_ag_rope(qz_var **y, qz_tape *t, qz_var *x, int64_t heads, const qz_rotation *r)
{
    const turn how = {heads, *r};
    QZ_TRY(qz_var_take(y, t, x));
    QZ_TRY(rotate(t, &(*y)->value, &how, false));
    const qz_node_spec spec = {.rule = &qz_rule_rope, .out = *y, .in = {x}, .with = &how, .size = sizeof how};
    return qz_node_add(t, &spec, NULL);
}

/* ---- attention ---- */

typedef struct attention {
    qz_ag_attention_shape shape;
    qz_attention how;
} attention;

static qz_tensor queries(const qz_tensor *x, const qz_ag_attention_shape *s)
{
    return qz_tensor_4d(x->data, QZ_F32, s->sequences, s->length, s->heads, s->head_dim);
}

static qz_tensor keys(const qz_tensor *x, const qz_ag_attention_shape *s)
{
    return qz_tensor_4d(x->data, QZ_F32, s->sequences, s->length, s->kv_heads, s->head_dim);
}

static qz_tensor per_head(const qz_buffer *b, const qz_ag_attention_shape *s)
{
    return qz_tensor_3d(b->data, QZ_F32, s->sequences, s->length, s->heads);
}

static size_t per_head_bytes(const qz_ag_attention_shape *s)
{
    return (size_t)(s->sequences * s->length * s->heads) * sizeof(float);
}

static qz_status attention_grad(qz_tape *t, qz_node *n, const qz_grad_slot slot[3], const qz_buffer *workspace)
{
    const attention *a = n->with;
    const qz_ag_attention_shape *s = &a->shape;
    const qz_tensor q = queries(&n->in[0]->value, s), k = keys(&n->in[1]->value, s), v = keys(&n->in[2]->value, s);
    const qz_tensor y = queries(&n->out->value, s), dy = queries(&n->out->grad, s);
    const qz_tensor dq = queries(&slot[0].grad, s), dk = keys(&slot[1].grad, s), dv = keys(&slot[2].grad, s);
    const qz_tensor lse = per_head(n->extra, s), delta = per_head(workspace, s);
    QZ_RUN(t, qz_op_attention_grad(t->backend, &dq, &dk, &dv, &delta, &dy, &y, &lse, &q, &k, &v, &a->how));
    return QZ_OK;
}

static qz_status attention_vjp(qz_tape *t, qz_node *n)
{
    const attention *a = n->with;
    qz_grad_slot slot[3];
    qz_buffer *workspace;
    for (int i = 0; i < 3; i++) QZ_TRY(qz_grad_begin(t, &slot[i], n->in[i]));
    QZ_TRY(qz_pool_get(t->pool, &workspace, per_head_bytes(&a->shape)));
    qz_status status = attention_grad(t, n, slot, workspace);
    qz_pool_put(t->pool, workspace);
    QZ_TRY(status);
    for (int i = 0; i < 3; i++) QZ_TRY(qz_grad_end(t, &slot[i], n->in[i]));
    return QZ_OK;
}

const qz_rule qz_rule_attention = {"attention", NULL, attention_vjp};

/* The node keeps log sum exp of the scores, from which they can be made again (Dao et al. 2022, section 3.1). */
static qz_status run_attention(qz_tape *t, qz_var *y, const qz_node_spec *spec, qz_buffer *lse)
{
    const attention *a = spec->with;
    const qz_tensor y4 = queries(&y->value, &a->shape), q = queries(&spec->in[0]->value, &a->shape);
    const qz_tensor k = keys(&spec->in[1]->value, &a->shape), v = keys(&spec->in[2]->value, &a->shape);
    const qz_tensor sums = lse ? per_head(lse, &a->shape) : y4;
    QZ_RUN(t, qz_op_attention(t->backend, &y4, lse ? &sums : NULL, &q, &k, &v, &a->how));
    return QZ_OK;
}

qz_status qz_ag_attention(qz_var **y, qz_tape *t, qz_var *q, qz_var *k, qz_var *v, qz_ag_attention_shape shape,
                          const qz_attention *how)
{
    const attention a = {shape, *how};
    qz_buffer *lse = NULL;
    qz_node *n;
    QZ_TRY(qz_var_2d(y, t, shape.sequences * shape.length, shape.heads * shape.head_dim));
    const qz_node_spec spec = {.rule = &qz_rule_attention,
                               .out = *y,
                               .in = {q, k, v},
                               .reads = QZ_READS_0 | QZ_READS_1 | QZ_READS_2 | QZ_READS_OUT,
                               .with = &a,
                               .size = sizeof a};
    if (qz_node_wanted(t, &spec)) QZ_TRY(qz_pool_get(t->pool, &lse, per_head_bytes(&shape)));
    QZ_TRY(run_attention(t, *y, &spec, lse));
    QZ_TRY(qz_node_add(t, &spec, &n));
    if (n) n->extra = lse;
    return QZ_OK;
}

/* ---- gates ---- */

typedef qz_status gate_op(const qz_backend *, const qz_tensor *, const qz_tensor *, const qz_tensor *);
typedef qz_status gate_grad_op(const qz_backend *, const qz_tensor *, const qz_tensor *, const qz_tensor *,
                               const qz_tensor *, const qz_tensor *);

static qz_status gate_vjp(qz_tape *t, qz_node *n, gate_grad_op *op)
{
    qz_var *gate = n->in[0], *up = n->in[1];
    qz_grad_slot dgate, dup;
    QZ_TRY(qz_grad_begin(t, &dgate, gate));
    QZ_TRY(qz_grad_begin(t, &dup, up));
    QZ_RUN(t, op(t->backend, &dgate.grad, &dup.grad, &n->out->grad, &gate->value, &up->value));
    QZ_TRY(qz_grad_end(t, &dgate, gate));
    return qz_grad_end(t, &dup, up);
}

static qz_status swiglu_redo(qz_tape *t, qz_node *n)
{
    QZ_RUN(t, qz_op_swiglu(t->backend, &n->out->value, &n->in[0]->value, &n->in[1]->value));
    return QZ_OK;
}

static qz_status swiglu_vjp(qz_tape *t, qz_node *n)
{
    return gate_vjp(t, n, qz_op_swiglu_grad);
}

static qz_status geglu_redo(qz_tape *t, qz_node *n)
{
    QZ_RUN(t, qz_op_geglu(t->backend, &n->out->value, &n->in[0]->value, &n->in[1]->value));
    return QZ_OK;
}

static qz_status geglu_vjp(qz_tape *t, qz_node *n)
{
    return gate_vjp(t, n, qz_op_geglu_grad);
}

const qz_rule qz_rule_swiglu = {"swiglu", swiglu_redo, swiglu_vjp};
const qz_rule qz_rule_geglu = {"geglu", geglu_redo, geglu_vjp};

static qz_status add_gate(qz_var **y, qz_tape *t, qz_var *gate, qz_var *up, const qz_rule *rule, gate_op *op)
{
    QZ_TRY(qz_var_like(y, t, gate));
    QZ_RUN(t, op(t->backend, &(*y)->value, &gate->value, &up->value));
    const qz_node_spec spec = {.rule = rule, .out = *y, .in = {gate, up}, .reads = QZ_READS_0 | QZ_READS_1};
    return qz_node_add(t, &spec, NULL);
}

qz_status qz_ag_swiglu(qz_var **y, qz_tape *t, qz_var *gate, qz_var *up)
{
    return add_gate(y, t, gate, up, &qz_rule_swiglu, qz_op_swiglu);
}

qz_status qz_ag_geglu(qz_var **y, qz_tape *t, qz_var *gate, qz_var *up)
{
    return add_gate(y, t, gate, up, &qz_rule_geglu, qz_op_geglu);
}
