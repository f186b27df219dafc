/* Products: linear layers, plain, packed and low rank, and the look-up of embeddings.
 *
 *     y = x W^T + b + r     dx = dy W,  dW += dy^T x,  db += sum_t dy,  dr = dy */
#include <string.h>

#include "autograd/tape.h"

static qz_status start_sum(qz_tape *t, qz_var *y, const qz_var *residual)
{
    if (residual && !t->dry)
        memcpy(y->value.data, residual->value.data, (size_t)qz_tensor_count(&y->value) * sizeof(float));
    return QZ_OK;
}

/* Gradients of bias and residual, the last ones of a rule: the residual may take the buffer over. */
static qz_status pass_rest(qz_tape *t, qz_node *n, qz_var *bias, qz_var *residual)
{
    if (qz_wants(bias)) {
        qz_tensor g;
        QZ_TRY(qz_grad_zeroed(t, bias, &g));
        QZ_RUN(t, qz_op_column_sums(t->backend, &g, &n->out->grad));
    }
    return qz_grad_pass(t, residual, n->out);
}

/* ---- linear ---- */

static qz_status linear_vjp(qz_tape *t, qz_node *n)
{
    qz_var *x = n->in[0], *w = n->in[1];
    qz_tensor g;
    bool accumulate;
    if (qz_wants(x)) {
        QZ_TRY(qz_grad_place(t, x, &g, &accumulate));
        QZ_RUN(t, qz_product_grad_x(t, &g, &n->out->grad, &w->value, accumulate));
    }
    if (qz_wants(w)) {
        QZ_TRY(qz_grad_zeroed(t, w, &g));
        QZ_RUN(t, qz_product_grad_w(t, &g, &n->out->grad, &x->value));
    }
    return pass_rest(t, n, n->in[2], n->in[3]);
}

const qz_rule qz_rule_linear = {"linear", NULL, linear_vjp};

qz_status qz_ag_linear(qz_var **y, qz_tape *t, qz_var *x, qz_var *w, qz_var *bias, qz_var *residual)
{
    qz_node_spec spec = {.rule = &qz_rule_linear, .in = {x, w, bias, residual}};
    QZ_TRY(qz_var_2d(y, t, x->value.shape[0], w->value.shape[0]));
    QZ_TRY(start_sum(t, *y, residual));
    QZ_RUN(t, qz_product(t, &(*y)->value, &x->value, &w->value, bias ? &bias->value : NULL, residual != NULL));
    spec.out = *y;
    spec.reads = (qz_wants(w) ? QZ_READS_0 : 0) | (qz_wants(x) ? QZ_READS_1 : 0);
    return qz_node_add(t, &spec, NULL);
}

/* ---- weights that stay packed ---- */

/* Rows that are dequantized at once. */
enum { ROOM_ROWS = 256 };

static qz_status room_new(qz_tape *t, qz_buffer **buffer, qz_tensor *room, const qz_packed *w)
{
    const int64_t rows = w->q.rows < ROOM_ROWS ? w->q.rows : ROOM_ROWS;
    QZ_TRY(qz_pool_get(t->pool, buffer, (size_t)(rows * w->q.cols) * sizeof(float)));
    *room = qz_tensor_2d((*buffer)->data, QZ_F32, rows, w->q.cols);
    return QZ_OK;
}

static qz_status apply_packed(qz_tape *t, qz_var *y, qz_var *x, const qz_packed *w, const qz_tensor *bias,
                              bool accumulate)
{
    qz_buffer *buffer;
    qz_tensor room;
    QZ_TRY(room_new(t, &buffer, &room, w));
    qz_status status = QZ_OK;
    if (!t->dry) status = qz_op_linear_packed(t->backend, &y->value, &x->value, w, bias, accumulate, &room);
    qz_pool_put(t->pool, buffer);
    return status;
}

static qz_status packed_grad_x(qz_tape *t, qz_var *x, const qz_tensor *dy, const qz_packed *w)
{
    qz_buffer *buffer;
    qz_tensor room, g;
    bool accumulate;
    QZ_TRY(qz_grad_place(t, x, &g, &accumulate));
    QZ_TRY(room_new(t, &buffer, &room, w));
    qz_status status = QZ_OK;
    if (!t->dry) status = qz_op_linear_packed_grad_x(t->backend, &g, dy, w, accumulate, &room);
    qz_pool_put(t->pool, buffer);
    return status;
}

static qz_status linear_packed_vjp(qz_tape *t, qz_node *n)
{
    const qz_packed *w;
    memcpy(&w, n->with, sizeof w);
    if (qz_wants(n->in[0])) QZ_TRY(packed_grad_x(t, n->in[0], &n->out->grad, w));
    return pass_rest(t, n, n->in[1], n->in[2]);
}

const qz_rule qz_rule_linear_packed = {"linear_packed", NULL, linear_packed_vjp};

qz_status qz_ag_linear_packed(qz_var **y, qz_tape *t, qz_var *x, const qz_packed *w, qz_var *bias, qz_var *residual)
{
    qz_node_spec spec = {.rule = &qz_rule_linear_packed, .in = {x, bias, residual}, .with = &w, .size = sizeof w};
    QZ_TRY(qz_var_2d(y, t, x->value.shape[0], w->q.rows));
    QZ_TRY(start_sum(t, *y, residual));
    QZ_TRY(apply_packed(t, *y, x, w, bias ? &bias->value : NULL, residual != NULL));
    spec.out = *y;
    return qz_node_add(t, &spec, NULL);
}

qz_status qz_ag_unpacked(qz_var **w, qz_tape *t, const qz_packed *packed)
{
    QZ_TRY(qz_var_2d(w, t, packed->q.rows, packed->q.cols));
    if (!t->dry) qz_packed_rows(qz_f32(&(*w)->value), packed, 0, packed->q.rows);
    return QZ_OK;
}

/* ---- low rank ---- */

typedef struct low_rank {
    const qz_packed *packed; /* NULL: the base is an input */
    float factor;
} low_rank;

/* factor * x, in a buffer of its own; b and a are small beside what they make. */
static qz_status scaled(qz_tape *t, qz_tensor *out, qz_buffer **buffer, const qz_tensor *x, float factor)
{
    QZ_TRY(qz_pool_get(t->pool, buffer, (size_t)qz_tensor_count(x) * sizeof(float)));
    *out = *x;
    out->data = (*buffer)->data;
    QZ_RUN(t, qz_op_scale(t->backend, out, x, factor));
    return QZ_OK;
}

/* w += factor b a: the shape of a gradient dx += dy w */
static qz_status add_product(qz_tape *t, const qz_tensor *w, const qz_tensor *b, const qz_tensor *a, float factor)
{
    qz_buffer *buffer;
    qz_tensor scaled_b;
    QZ_TRY(scaled(t, &scaled_b, &buffer, b, factor));
    qz_status status = t->dry ? QZ_OK : qz_op_linear_grad_x(t->backend, w, &scaled_b, a, true);
    qz_pool_put(t->pool, buffer);
    return status;
}

static qz_status low_rank_value(qz_tape *t, qz_var *w, const qz_var *base, const low_rank *how, const qz_var *b,
                                const qz_var *a)
{
    if (!t->dry && how->packed)
        qz_packed_rows(qz_f32(&w->value), how->packed, 0, how->packed->q.rows);
    else if (!t->dry)
        memcpy(w->value.data, base->value.data, (size_t)qz_tensor_count(&w->value) * sizeof(float));
    return add_product(t, &w->value, &b->value, &a->value, how->factor);
}

static qz_status low_rank_redo(qz_tape *t, qz_node *n)
{
    return low_rank_value(t, n->out, n->in[0], n->with, n->in[1], n->in[2]);
}

/* db (N, R) += dw (factor a)^T */
static qz_status low_rank_grad_b(qz_tape *t, qz_node *n, float factor)
{
    qz_buffer *buffer;
    qz_tensor g, scaled_a;
    QZ_TRY(qz_grad_zeroed(t, n->in[1], &g));
    QZ_TRY(scaled(t, &scaled_a, &buffer, &n->in[2]->value, factor));
    qz_status status = t->dry ? QZ_OK : qz_op_linear(t->backend, &g, &n->out->grad, &scaled_a, NULL, true);
    qz_pool_put(t->pool, buffer);
    return status;
}

/* da (R, K) += (factor b)^T dw */
static qz_status low_rank_grad_a(qz_tape *t, qz_node *n, float factor)
{
    qz_buffer *buffer;
    qz_tensor g, scaled_b;
    QZ_TRY(qz_grad_zeroed(t, n->in[2], &g));
    QZ_TRY(scaled(t, &scaled_b, &buffer, &n->in[1]->value, factor));
    qz_status status = t->dry ? QZ_OK : qz_op_linear_grad_w(t->backend, &g, &scaled_b, &n->out->grad);
    qz_pool_put(t->pool, buffer);
    return status;
}

static qz_status low_rank_vjp(qz_tape *t, qz_node *n)
{
    const low_rank *how = n->with;
    if (qz_wants(n->in[1])) QZ_TRY(low_rank_grad_b(t, n, how->factor));
    if (qz_wants(n->in[2])) QZ_TRY(low_rank_grad_a(t, n, how->factor));
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_low_rank = {"low_rank", low_rank_redo, low_rank_vjp};

qz_status qz_ag_low_rank(qz_var **w, qz_tape *t, qz_var *base, const qz_packed *packed, qz_var *b, qz_var *a,
                         float factor)
{
    const low_rank how = {base ? NULL : packed, factor};
    QZ_TRY(qz_var_2d(w, t, b->value.shape[0], a->value.shape[1]));
    QZ_TRY(low_rank_value(t, *w, base, &how, b, a));
    const qz_node_spec spec = {.rule = &qz_rule_low_rank,
                               .out = *w,
                               .in = {base, b, a},
                               .reads = QZ_READS_0 | QZ_READS_1 | QZ_READS_2,
                               .with = &how,
                               .size = sizeof how};
    return qz_node_add(t, &spec, NULL);
}

/* ---- embeddings ---- */

typedef struct lookup {
    const int32_t *ids;
    float factor;
} lookup;

static qz_status embedding_vjp(qz_tape *t, qz_node *n)
{
    const lookup *how = n->with;
    qz_tensor g;
    QZ_TRY(qz_grad_zeroed(t, n->in[0], &g));
    QZ_RUN(t, qz_op_embedding_grad(t->backend, &g, &n->out->grad, how->ids, how->factor));
    return QZ_OK;
}

const qz_rule qz_rule_embedding = {"embedding", NULL, embedding_vjp};

qz_status qz_ag_embedding(qz_var **y, qz_tape *t, qz_var *table, const int32_t *ids, int64_t tokens, float factor)
{
    const lookup how = {ids, factor};
    QZ_TRY(qz_var_2d(y, t, tokens, table->value.shape[1]));
    QZ_RUN(t, qz_op_embedding(t->backend, &(*y)->value, &table->value, ids));
    if (factor != 1) QZ_RUN(t, qz_op_scale(t->backend, &(*y)->value, &(*y)->value, factor));
    const qz_node_spec spec = {.rule = &qz_rule_embedding, .out = *y, .in = {table}, .with = &how, .size = sizeof how};
    return qz_node_add(t, &spec, NULL);
}
