/* Variables, nodes, and the way back. */
#include "autograd/tape.h"

#include <assert.h>
#include <string.h>

/* ---- tapes ---- */

qz_status qz_tape_new(qz_tape **out, const qz_backend *backend, bool dry)
{
    qz_tape *t = qz_calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return QZ_FAIL(QZ_MEMORY, "no memory for a tape");
    t->backend = backend;
    t->dry = dry;
    t->record = true;
    qz_status status = qz_pool_new(&t->pool, dry);
    if (status == QZ_OK) status = qz_arena_new(&t->arena, "tape");
    if (status != QZ_OK) {
        qz_tape_free(t);
        return status;
    }
    *out = t;
    return QZ_OK;
}

static void drop_value(qz_tape *t, qz_var *v)
{
    if (v->leaf || !v->buffer) return;
    qz_pool_put(t->pool, v->buffer);
    v->buffer = NULL;
    v->value.data = NULL;
    v->present = false;
}

void qz_grad_drop(qz_tape *t, qz_var *v)
{
    if (v->leaf) return;
    qz_pool_put(t->pool, v->grad_buffer);
    v->grad_buffer = NULL;
    v->grad.data = NULL;
    v->has_grad = false;
}

/* After an error buffers may be out that no variable or node knows: all come back. */
void qz_tape_reset(qz_tape *t)
{
    t->nodes = 0;
    t->node = NULL;
    t->room = 0;
    qz_pool_reclaim(t->pool);
    qz_arena_reset(t->arena);
}

void qz_tape_free(qz_tape *t)
{
    if (!t) return;
    qz_pool_free(t->pool);
    qz_arena_free(t->arena);
    qz_free(t);
}

void qz_tape_record(qz_tape *t, bool on)
{
    t->record = on;
}

void qz_tape_keep_cheap(qz_tape *t, bool on)
{
    t->keep_cheap = on;
}

void qz_tape_bf16(qz_tape *t, bool on)
{
    t->bf16 = on;
}

bool qz_tape_is_dry(const qz_tape *t)
{
    return t->dry;
}

const qz_backend *qz_tape_backend(const qz_tape *t)
{
    return t->backend;
}

size_t qz_tape_used(const qz_tape *t)
{
    return qz_pool_used(t->pool);
}

size_t qz_tape_peak(const qz_tape *t)
{
    return qz_pool_peak(t->pool);
}

/* ---- variables ---- */

/* NULL: no memory. */
static qz_var *new_var(qz_tape *t)
{
    return qz_arena_calloc(t->arena, sizeof(qz_var));
}

static size_t bytes_of(const qz_tensor *x)
{
    return (size_t)qz_tensor_count(x) * sizeof(float);
}

static qz_status make_value(qz_tape *t, qz_var *v)
{
    QZ_TRY(qz_pool_get(t->pool, &v->buffer, bytes_of(&v->value)));
    v->value.data = v->buffer->data;
    v->present = true;
    return QZ_OK;
}

qz_status qz_var_like(qz_var **out, qz_tape *t, const qz_var *like)
{
    qz_var *v = new_var(t);
    if (!v) return qz_arena_failed(t->arena);
    v->value = like->value;
    v->held = true;
    QZ_TRY(make_value(t, v));
    *out = v;
    return QZ_OK;
}

qz_status qz_var_2d(qz_var **out, qz_tape *t, int64_t rows, int64_t cols)
{
    const qz_var like = {.value = qz_tensor_2d(NULL, QZ_F32, rows, cols)};
    return qz_var_like(out, t, &like);
}

qz_status qz_tape_leaf(qz_var **out, qz_tape *t, const qz_tensor *value, const qz_tensor *grad)
{
    qz_var *v = new_var(t);
    if (!v) return qz_arena_failed(t->arena);
    v->value = *value;
    v->leaf = v->present = true;
    if (grad) {
        v->grad = *grad;
        v->wants = v->has_grad = true;
    }
    *out = v;
    return QZ_OK;
}

qz_status qz_var_borrow(qz_var **out, qz_tape *t, const qz_tensor *value, bool wants)
{
    qz_var *v = new_var(t);
    if (!v) return qz_arena_failed(t->arena);
    v->value = *value;
    v->present = true;
    v->wants = wants;
    *out = v;
    return QZ_OK;
}

const qz_tensor *qz_var_value(const qz_var *v)
{
    return &v->value;
}

static bool can_redo(const qz_tape *t, const qz_var *v)
{
    return v->maker && v->maker->rule->redo && !t->keep_cheap;
}

void qz_var_release(qz_tape *t, qz_var *v)
{
    if (!v || v->leaf || !v->held) return;
    v->held = false;
    if (v->readers == 0 || can_redo(t, v)) drop_value(t, v);
}

qz_status qz_var_take(qz_var **y, qz_tape *t, qz_var *x)
{
    const bool alone = !x->leaf && x->buffer && x->buffer->uses == 1 && x->readers == 0 && x->held;
    qz_var *v;
    if (!alone) {
        QZ_TRY(qz_var_like(&v, t, x));
        if (!t->dry) memcpy(v->value.data, x->value.data, bytes_of(&v->value));
        qz_var_release(t, x);
        *y = v;
        return QZ_OK;
    }
    v = new_var(t);
    if (!v) return qz_arena_failed(t->arena);
    v->value = x->value;
    v->buffer = x->buffer;
    v->held = v->present = true;
    x->buffer = NULL;
    x->value.data = NULL;
    x->held = x->present = false;
    *y = v;
    return QZ_OK;
}

qz_status qz_var_need(qz_tape *t, qz_var *v)
{
    if (v->present) return QZ_OK;
    qz_node *n = v->maker;
    assert(n && n->rule->redo);
    for (int i = 0; i < QZ_NODE_INPUTS; i++) {
        if (n->in[i] && n->reads >> i & 1u) QZ_TRY(qz_var_need(t, n->in[i]));
    }
    QZ_TRY(make_value(t, v));
    return n->rule->redo(t, n);
}

/* ---- nodes ---- */

bool qz_node_wanted(const qz_tape *t, const qz_node_spec *spec)
{
    for (int i = 0; i < QZ_NODE_INPUTS; i++) {
        if (t->record && qz_wants(spec->in[i])) return true;
    }
    return false;
}

static qz_status make_room(qz_tape *t)
{
    if (t->nodes < t->room) return QZ_OK;
    const size_t room = t->room ? 2 * t->room : 256;
    qz_node **list = qz_arena_array(t->arena, qz_node *, room);
    if (!list) return qz_arena_failed(t->arena);
    if (t->nodes) memcpy(list, t->node, t->nodes * sizeof(qz_node *));
    t->node = list;
    t->room = room;
    return QZ_OK;
}

static void count_readers(qz_node *n, int change)
{
    for (int i = 0; i < QZ_NODE_INPUTS; i++) {
        if (n->in[i] && n->reads >> i & 1u) n->in[i]->readers += change;
    }
    if (n->reads & QZ_READS_OUT) n->out->readers += change;
}

static qz_status add_node(qz_tape *t, const qz_node_spec *spec, qz_node **node)
{
    QZ_TRY(make_room(t));
    qz_node *n = qz_arena_calloc(t->arena, sizeof *n);
    void *with = qz_arena_alloc(t->arena, spec->size + 1);
    if (!n || !with) return qz_arena_failed(t->arena);
    if (spec->size) memcpy(with, spec->with, spec->size);
    *n = (qz_node){.rule = spec->rule, .out = spec->out, .reads = spec->reads, .with = with};
    memcpy(n->in, spec->in, sizeof n->in);
    n->out->maker = n;
    n->out->wants = true;
    count_readers(n, 1);
    t->node[t->nodes++] = n;
    *node = n;
    return QZ_OK;
}

qz_status qz_node_add(qz_tape *t, const qz_node_spec *spec, qz_node **node)
{
    qz_node *n = NULL;
    qz_status status = qz_node_wanted(t, spec) ? add_node(t, spec, &n) : QZ_OK;
    if (node) *node = n;
    return status;
}

qz_status qz_node_force(qz_tape *t, const qz_node_spec *spec, qz_node **node)
{
    qz_node *n = NULL;
    qz_status status = t->record ? add_node(t, spec, &n) : QZ_OK;
    if (node) *node = n;
    return status;
}

/* ---- gradients ---- */

static qz_status make_grad(qz_tape *t, qz_var *v)
{
    v->grad = v->value;
    QZ_TRY(qz_pool_get(t->pool, &v->grad_buffer, bytes_of(&v->grad)));
    v->grad.data = v->grad_buffer->data;
    v->has_grad = true;
    return QZ_OK;
}

qz_status qz_grad_place(qz_tape *t, qz_var *v, qz_tensor *grad, bool *accumulate)
{
    *accumulate = v->has_grad;
    if (!v->has_grad) QZ_TRY(make_grad(t, v));
    *grad = v->grad;
    return QZ_OK;
}

qz_status qz_grad_zeroed(qz_tape *t, qz_var *v, qz_tensor *grad)
{
    bool accumulate;
    QZ_TRY(qz_grad_place(t, v, grad, &accumulate));
    if (!accumulate && !t->dry) memset(grad->data, 0, bytes_of(grad));
    return QZ_OK;
}

qz_status qz_grad_begin(qz_tape *t, qz_grad_slot *slot, qz_var *v)
{
    slot->temporary = NULL;
    if (v->wants && !v->has_grad) {
        QZ_TRY(make_grad(t, v));
        slot->grad = v->grad;
        return QZ_OK;
    }
    slot->grad = v->value;
    QZ_TRY(qz_pool_get(t->pool, &slot->temporary, bytes_of(&v->value)));
    slot->grad.data = slot->temporary->data;
    return QZ_OK;
}

qz_status qz_grad_end(qz_tape *t, qz_grad_slot *slot, qz_var *v)
{
    if (!slot->temporary) return QZ_OK;
    if (v->wants) QZ_RUN(t, qz_op_add(t->backend, &v->grad, &slot->grad));
    qz_pool_put(t->pool, slot->temporary);
    return QZ_OK;
}

qz_status qz_grad_pass(qz_tape *t, qz_var *to, qz_var *from)
{
    if (!qz_wants(to)) return QZ_OK;
    if (to->has_grad) {
        QZ_RUN(t, qz_op_add(t->backend, &to->grad, &from->grad));
        return QZ_OK;
    }
    if (from->grad_buffer && from->grad_buffer->uses == 1) {
        qz_buffer_use(from->grad_buffer);
        to->grad_buffer = from->grad_buffer;
        to->grad = to->value;
        to->grad.data = from->grad.data;
        to->has_grad = true;
        return QZ_OK;
    }
    QZ_TRY(make_grad(t, to));
    if (!t->dry) memcpy(to->grad.data, from->grad.data, bytes_of(&to->grad));
    return QZ_OK;
}

qz_status qz_var_gradient(qz_tape *t, qz_var *v, qz_tensor *grad)
{
    assert(v->wants);
    return qz_grad_zeroed(t, v, grad);
}

qz_status qz_tape_seed(qz_tape *t, qz_var *v, const qz_tensor *dy)
{
    qz_tensor grad;
    QZ_TRY(qz_var_gradient(t, v, &grad));
    QZ_RUN(t, qz_op_add(t->backend, &grad, dy));
    return QZ_OK;
}

/* ---- backwards ---- */

static qz_status need_values(qz_tape *t, qz_node *n)
{
    for (int i = 0; i < QZ_NODE_INPUTS; i++) {
        if (n->in[i] && n->reads >> i & 1u) QZ_TRY(qz_var_need(t, n->in[i]));
    }
    return n->reads & QZ_READS_OUT ? qz_var_need(t, n->out) : QZ_OK;
}

static void drop_unread(qz_tape *t, qz_var *v)
{
    if (v && v->readers == 0 && !v->held) drop_value(t, v);
}

static void finish_node(qz_tape *t, qz_node *n)
{
    count_readers(n, -1);
    for (int i = 0; i < QZ_NODE_INPUTS; i++) drop_unread(t, n->in[i]);
    drop_unread(t, n->out);
    qz_grad_drop(t, n->out);
    qz_pool_put(t->pool, n->extra);
    n->extra = NULL;
}

qz_status qz_tape_unwind(qz_tape *t, size_t first)
{
    while (t->nodes > first) {
        qz_node *n = t->node[--t->nodes];
        if (n->out->has_grad) {
            QZ_TRY(need_values(t, n));
            QZ_TRY(n->rule->vjp(t, n));
        }
        finish_node(t, n);
    }
    return QZ_OK;
}

qz_status qz_tape_backward(qz_tape *t)
{
    return qz_tape_unwind(t, 0);
}
