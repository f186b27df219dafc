/* Rounding in the forward pass, straight through in the backward pass (Bengio et al. 2013, section 4): weights on their
 * grids, inputs of linears, keys and values. Of the first two the rounded value is not kept: it is made again from the
 * unrounded one, which is a parameter or cheap itself. Of keys and values the unrounded one is not kept. */
#include <math.h>
#include <string.h>

#include "autograd/tape.h"
#include "numeric/intgrid.h"

/* ---- weights ---- */

/* A learned scale that training drove to zero or below would turn the grid over. */
static float positive(float scale)
{
    return scale > 1e-12f ? scale : 1e-12f;
}

/* As the container stores it, straight through for the gradient: what is left of a narrow scale after it was stored
 * times 127. */
static float stored_scale(const qz_scheme *s, float scale)
{
    const float rounded = qz_scale_round(positive(scale), 1, s->scale_type);
    if (!s->narrow || s->scale_type != QZ_F32) return rounded;
    return qz_grid_narrow_scale(rounded, qz_format_of(s->format)->bits);
}

void qz_ag_grid_take(qz_qtensor *q, const float *scale, const float *offset)
{
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    const float top = (float)((1 << qz_format_of(q->scheme.format)->bits) - 1);
    for (int64_t i = 0; i < pieces; i++) q->scales[i] = stored_scale(&q->scheme, scale[i]);
    if (!offset || !q->zeros) return;
    for (int64_t i = 0; i < pieces; i++)
        q->zeros[i] = (uint8_t)qz_rint_small(qz_clamp(offset[i], (float)q->scheme.least_zero, top));
}

/* Esser et al. 2020, section 2.2: 1 / sqrt(N Qp), N weights that share a scale. */
float qz_ag_scale_factor(const qz_qtensor *q)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    const double top = f->kind == QZ_KIND_INTEGER ? (s->symmetric ? (1 << (f->bits - 1)) - 1 : (1 << f->bits) - 1) : 1;
    const double pieces = (double)qz_scheme_pieces(s, q->rows, q->cols);
    return (float)(1 / sqrt((double)q->rows * (double)q->cols / pieces * top));
}

static qz_status grid_set(qz_tape *t, const qz_ag_grid *grid, const qz_tensor *w)
{
    if (t->dry) return QZ_OK;
    if (grid->fit) return qz_op_fit_ranges(t->backend, grid->q, w);
    if (grid->scale)
        qz_ag_grid_take(grid->q, qz_f32(&grid->scale->value), grid->offset ? qz_f32(&grid->offset->value) : NULL);
    return QZ_OK;
}

static qz_status fake_quant_redo(qz_tape *t, qz_node *n)
{
    const qz_ag_grid *grid = n->with;
    QZ_RUN(t, qz_op_fake_quant(t->backend, &n->out->value, &n->in[0]->value, grid->q));
    return QZ_OK;
}

static qz_status learned_grad(qz_tape *t, qz_var *v, qz_tensor *grad, const qz_tensor **wanted)
{
    *wanted = qz_wants(v) ? grad : NULL;
    return *wanted ? qz_grad_zeroed(t, v, grad) : QZ_OK;
}

/* In place on the gradient of the rounded weight, which then is the weight's. */
static qz_status fake_quant_vjp(qz_tape *t, qz_node *n)
{
    const qz_ag_grid *grid = n->with;
    qz_tensor dscale, doffset;
    const qz_tensor *want_scale, *want_offset;
    QZ_TRY(learned_grad(t, n->in[1], &dscale, &want_scale));
    QZ_TRY(learned_grad(t, n->in[2], &doffset, &want_offset));
    QZ_RUN(t, qz_op_fake_quant_grad(t->backend, &n->out->grad, want_scale, want_offset, &n->out->grad, &n->in[0]->value,
                                    grid->q, grid->rule, qz_ag_scale_factor(grid->q)));
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_fake_quant = {"fake_quant", fake_quant_redo, fake_quant_vjp};

qz_status qz_ag_fake_quant(qz_var **y, qz_tape *t, qz_var *w, const qz_ag_grid *grid)
{
    QZ_TRY(qz_var_like(y, t, w));
    QZ_TRY(grid_set(t, grid, &w->value));
    QZ_RUN(t, qz_op_fake_quant(t->backend, &(*y)->value, &w->value, grid->q));
    const qz_node_spec spec = {.rule = &qz_rule_fake_quant,
                               .out = *y,
                               .in = {w, grid->scale, grid->offset},
                               .reads = QZ_READS_0,
                               .with = grid,
                               .size = sizeof *grid};
    return qz_node_add(t, &spec, NULL);
}

/* ---- as plain tensors are stored ---- */

qz_status qz_ag_stored(qz_var **y, qz_tape *t, const qz_var *x, qz_dtype type)
{
    qz_buffer *buffer;
    qz_tensor narrow = x->value;
    QZ_TRY(qz_var_like(y, t, x));
    QZ_TRY(qz_pool_get(t->pool, &buffer, (size_t)(qz_tensor_count(&narrow) * qz_dtype_bits(type) / 8)));
    narrow.dtype = type;
    narrow.data = buffer->data;
    qz_status status = t->dry ? QZ_OK : qz_op_convert(t->backend, &narrow, &x->value);
    if (status == QZ_OK && !t->dry) status = qz_op_convert(t->backend, &(*y)->value, &narrow);
    qz_pool_put(t->pool, buffer);
    return status;
}

/* ---- inputs of linears ---- */

typedef struct rounding {
    qz_act_scheme scheme;
    qz_act_values values;
    qz_ste rule;
    double *scale_grad; /* NULL: the scale is not learned */
} rounding;

static qz_tensor mask_view(const qz_buffer *b, const qz_tensor *x)
{
    return qz_tensor_1d(b->data, QZ_U8, (qz_tensor_count(x) + 7) / 8);
}

static const qz_act_values *static_values(const rounding *how)
{
    return how->scheme.mode == QZ_ACT_TENSOR ? &how->values : NULL;
}

static qz_status round_inputs_redo(qz_tape *t, qz_node *n)
{
    const rounding *how = n->with;
    QZ_RUN(t, qz_op_round_activations(t->backend, &n->out->value, &n->in[0]->value, &how->scheme, static_values(how)));
    return QZ_OK;
}

/* Esser et al. 2020, section 2.2, for a tensor of activations: N is the number of features of a token. */
static float input_gradient_factor(const rounding *how, const qz_tensor *x)
{
    return (float)(1 / sqrt((double)x->shape[1] * (how->scheme.format == QZ_FORMAT_INT8 ? 127 : 1)));
}

static qz_status round_inputs_vjp(qz_tape *t, qz_node *n)
{
    const rounding *how = n->with;
    const qz_tensor *x = &n->in[0]->value, *dy = &n->out->grad;
    if (how->scale_grad)
        QZ_RUN(t, qz_op_activation_scale_grad(t->backend, how->scale_grad, dy, x, &how->scheme, static_values(how),
                                              input_gradient_factor(how, x)));
    if (n->extra) {
        const qz_tensor mask = mask_view(n->extra, x);
        QZ_RUN(t, qz_op_mask_grad(t->backend, dy, dy, &mask));
    }
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_round_inputs = {"round_inputs", round_inputs_redo, round_inputs_vjp};

/* Dynamic scales cut nothing off, so only static ones need a mask. */
static bool needs_mask(const rounding *how)
{
    return how->rule != QZ_STE_PASS && how->scheme.mode == QZ_ACT_TENSOR;
}

static qz_status round_inputs(qz_tape *t, qz_var *y, const qz_var *x, const rounding *how, qz_buffer **mask)
{
    qz_tensor bits;
    if (*mask) bits = mask_view(*mask, &x->value);
    QZ_RUN(t, qz_op_fake_quant_activations(t->backend, &y->value, *mask ? &bits : NULL, &x->value, &how->scheme,
                                           static_values(how)));
    return QZ_OK;
}

qz_status qz_ag_round_inputs(qz_var **y, qz_tape *t, qz_var *x, const qz_act_scheme *scheme,
                             const qz_act_values *values, qz_ste rule, double *scale_grad)
{
    const rounding how = {*scheme, values ? *values : (qz_act_values){0}, rule, scale_grad};
    qz_buffer *mask = NULL;
    qz_node *n;
    QZ_TRY(qz_var_like(y, t, x));
    const qz_node_spec spec = {
        .rule = &qz_rule_round_inputs, .out = *y, .in = {x}, .reads = QZ_READS_0, .with = &how, .size = sizeof how};
    if (needs_mask(&how) && qz_node_wanted(t, &spec))
        QZ_TRY(qz_pool_get(t->pool, &mask, (size_t)(qz_tensor_count(&x->value) + 7) / 8));
    QZ_TRY(round_inputs(t, *y, x, &how, &mask));
    QZ_TRY(scale_grad ? qz_node_force(t, &spec, &n) : qz_node_add(t, &spec, &n));
    if (n) n->extra = mask;
    return QZ_OK;
}

/* ---- keys and values ---- */

typedef struct head_rounding {
    qz_tensor scale; /* (HK) */
    qz_format format;
} head_rounding;

static qz_status round_heads(qz_tape *t, qz_var *y, const qz_var *x, const head_rounding *how)
{
    const int64_t heads = how->scale.shape[0], tokens = x->value.shape[0], size = x->value.shape[1] / heads;
    const qz_tensor to = qz_tensor_3d(y->value.data, QZ_F32, tokens, heads, size);
    const qz_tensor from = qz_tensor_3d(x->value.data, QZ_F32, tokens, heads, size);
    QZ_RUN(t, qz_op_round_heads(t->backend, &to, &from, &how->scale, how->format));
    return QZ_OK;
}

static qz_status round_heads_vjp(qz_tape *t, qz_node *n)
{
    return qz_grad_pass(t, n->in[0], n->out);
}

const qz_rule qz_rule_round_heads = {"round_heads", NULL, round_heads_vjp};

qz_status qz_ag_round_heads(qz_var **y, qz_tape *t, qz_var *x, const qz_tensor *scale, qz_format format)
{
    const head_rounding how = {*scale, format};
    QZ_TRY(qz_var_like(y, t, x));
    QZ_TRY(round_heads(t, *y, x, &how));
    const qz_node_spec spec = {.rule = &qz_rule_round_heads, .out = *y, .in = {x}};
    return qz_node_add(t, &spec, NULL);
}
