/* Elementwise operations. */
#include <string.h>

#include "autograd/tape.h"

/* ---- softcap: y = cap tanh(x / cap) ---- */

static qz_status softcap_vjp(qz_tape *t, qz_node *n)
{
    const float *cap = n->with;
    qz_grad_slot slot;
    QZ_TRY(qz_grad_begin(t, &slot, n->in[0]));
    QZ_RUN(t, qz_op_softcap_grad(t->backend, &slot.grad, &n->out->grad, &n->out->value, *cap));
    return qz_grad_end(t, &slot, n->in[0]);
}

const qz_rule qz_rule_softcap = {"softcap", NULL, softcap_vjp};

qz_status qz_ag_softcap(qz_var **y, qz_tape *t, qz_var *x, float cap)
{
    QZ_TRY(qz_var_like(y, t, x));
    QZ_RUN(t, qz_op_softcap(t->backend, &(*y)->value, &x->value, cap));
    const qz_node_spec spec = {
        .rule = &qz_rule_softcap, .out = *y, .in = {x}, .reads = QZ_READS_OUT, .with = &cap, .size = sizeof cap};
    return qz_node_add(t, &spec, NULL);
}

/* ---- add ---- */

static qz_status add_vjp(qz_tape *t, qz_node *n)
{
    QZ_TRY(qz_grad_pass(t, n->in[0], n->out));
    return qz_grad_pass(t, n->in[1], n->out);
}

const qz_rule qz_rule_add = {"add", NULL, add_vjp};

static qz_status copy_value(qz_tape *t, qz_var *y, const qz_var *x)
{
    if (!t->dry) memcpy(y->value.data, x->value.data, (size_t)qz_tensor_count(&y->value) * sizeof(float));
    return QZ_OK;
}

qz_status qz_ag_add(qz_var **y, qz_tape *t, qz_var *a, qz_var *b)
{
    QZ_TRY(qz_var_like(y, t, a));
    QZ_TRY(copy_value(t, *y, a));
    QZ_RUN(t, qz_op_add(t->backend, &(*y)->value, &b->value));
    const qz_node_spec spec = {.rule = &qz_rule_add, .out = *y, .in = {a, b}};
    return qz_node_add(t, &spec, NULL);
}

/* ---- multiply ---- */

static qz_status multiply_redo(qz_tape *t, qz_node *n)
{
    QZ_RUN(t, qz_op_multiply(t->backend, &n->out->value, &n->in[0]->value, &n->in[1]->value));
    return QZ_OK;
}

static qz_status multiply_grad(qz_tape *t, qz_node *n, qz_var *to, const qz_var *other)
{
    qz_grad_slot slot;
    if (!qz_wants(to)) return QZ_OK;
    QZ_TRY(qz_grad_begin(t, &slot, to));
    QZ_RUN(t, qz_op_multiply(t->backend, &slot.grad, &n->out->grad, &other->value));
    return qz_grad_end(t, &slot, to);
}

static qz_status multiply_vjp(qz_tape *t, qz_node *n)
{
    QZ_TRY(multiply_grad(t, n, n->in[0], n->in[1]));
    return multiply_grad(t, n, n->in[1], n->in[0]);
}

const qz_rule qz_rule_multiply = {"multiply", multiply_redo, multiply_vjp};

qz_status qz_ag_multiply(qz_var **y, qz_tape *t, qz_var *a, qz_var *b)
{
    QZ_TRY(qz_var_like(y, t, a));
    QZ_RUN(t, qz_op_multiply(t->backend, &(*y)->value, &a->value, &b->value));
    const qz_node_spec spec = {.rule = &qz_rule_multiply, .out = *y, .in = {a, b}, .reads = QZ_READS_0 | QZ_READS_1};
    return qz_node_add(t, &spec, NULL);
}

/* ---- scale ---- */

static qz_status scale_vjp(qz_tape *t, qz_node *n)
{
    const float *factor = n->with;
    QZ_RUN(t, qz_op_scale(t->backend, &n->out->grad, &n->out->grad, *factor));
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_scale = {"scale", NULL, scale_vjp};

qz_status qz_ag_scale(qz_var **y, qz_tape *t, qz_var *x, float factor)
{
    QZ_TRY(qz_var_like(y, t, x));
    QZ_RUN(t, qz_op_scale(t->backend, &(*y)->value, &x->value, factor));
    const qz_node_spec spec = {.rule = &qz_rule_scale, .out = *y, .in = {x}, .with = &factor, .size = sizeof factor};
    return qz_node_add(t, &spec, NULL);
}

/* ---- dropout: the mask is made again from its number ---- */

typedef struct dropout {
    float p;
    uint64_t seed, first;
} dropout;

static qz_status drop(qz_tape *t, const qz_tensor *y, const qz_tensor *x, const dropout *how)
{
    QZ_RUN(t, qz_op_dropout(t->backend, y, x, how->p, how->seed, how->first));
    return QZ_OK;
}

static qz_status dropout_redo(qz_tape *t, qz_node *n)
{
    return drop(t, &n->out->value, &n->in[0]->value, n->with);
}

static qz_status dropout_vjp(qz_tape *t, qz_node *n)
{
    QZ_TRY(drop(t, &n->out->grad, &n->out->grad, n->with));
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_dropout = {"dropout", dropout_redo, dropout_vjp};

qz_status qz_ag_dropout(qz_var **y, qz_tape *t, qz_var *x, float p, uint64_t seed, uint64_t first)
{
    const dropout how = {p, seed, first};
    if (p == 0) {
        *y = x;
        return QZ_OK;
    }
    QZ_TRY(qz_var_like(y, t, x));
    QZ_TRY(drop(t, &(*y)->value, &x->value, &how));
    const qz_node_spec spec = {
        .rule = &qz_rule_dropout, .out = *y, .in = {x}, .reads = QZ_READS_0, .with = &how, .size = sizeof how};
    return qz_node_add(t, &spec, NULL);
}
