/* Recomputation: a stretch of the forward pass of which only the input is kept. */
#include <string.h>

#include "autograd/tape.h"

static qz_status rerun(qz_tape *t, qz_node *n, qz_var *x, const qz_segment *s)
{
    const size_t first = t->nodes;
    qz_var *y;
    QZ_TRY(s->fn(s->context, t, x, &y));
    QZ_TRY(qz_grad_pass(t, y, n->out));
    qz_grad_drop(t, n->out);
    qz_var_release(t, y);
    return qz_tape_unwind(t, first);
}

static qz_status segment_vjp(qz_tape *t, qz_node *n)
{
    const qz_segment *s = n->with;
    const bool record = t->record;
    qz_var *x;
    QZ_TRY(qz_var_borrow(&x, t, &n->in[0]->value, qz_wants(n->in[0])));
    t->record = true;
    qz_status status = rerun(t, n, x, s);
    t->record = record;
    QZ_TRY(status);
    if (x->has_grad) QZ_TRY(qz_grad_pass(t, n->in[0], x));
    qz_grad_drop(t, x);
    return QZ_OK;
}

const qz_rule qz_rule_segment = {"segment", NULL, segment_vjp};

static qz_status copy_segment(qz_segment *out, qz_tape *t, const qz_segment *s)
{
    void *context = qz_arena_alloc(t->arena, s->size + 1);
    if (!context) return qz_arena_failed(t->arena);
    if (s->size) memcpy(context, s->context, s->size);
    *out = (qz_segment){s->fn, context, s->size};
    return QZ_OK;
}

/* Parameters inside may want gradients when x does not, so it is recorded whenever the tape records. */
static qz_status keep(qz_tape *t, qz_var *y, qz_var *x, const qz_segment *s)
{
    qz_segment kept;
    QZ_TRY(copy_segment(&kept, t, s));
    const qz_node_spec spec = {
        .rule = &qz_rule_segment, .out = y, .in = {x}, .reads = QZ_READS_0, .with = &kept, .size = sizeof kept};
    return qz_node_force(t, &spec, NULL);
}

qz_status qz_ag_segment(qz_var **y, qz_tape *t, qz_var *x, const qz_segment *segment)
{
    const bool record = t->record;
    t->record = false;
    qz_status status = segment->fn(segment->context, t, x, y);
    t->record = record;
    QZ_TRY(status);
    return record ? keep(t, *y, x, segment) : QZ_OK;
}
