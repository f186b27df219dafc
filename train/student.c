/* See student.h: what the forward pass is given, and the two ends of a step. student_build.c makes the parts. */
#include <string.h>

#include "quant/quant.h"
#include "train/student_parts.h"

/* ---- weights for a tape ---- */

typedef struct request {
    qz_student *s;
    qz_tape *t;
    const qz_student_linear *l;
    int index;           /* of the linear */
    int64_t first, rows; /* of it that are asked for */
} request;

static qz_tensor rows_of(const qz_tensor *x, const request *r)
{
    return qz_tensor_rows(x, r->first, r->rows);
}

/* Of what has no codes an evaluation sees what the checkpoint will hold. Takes *x over. */
static qz_status as_stored(qz_var **x, const request *r)
{
    qz_var *wide = *x;
    if (!wide || r->s->number != QZ_STUDENT_JUDGED || !qz_student_narrows(r->s)) return QZ_OK;
    QZ_TRY(qz_ag_stored(x, r->t, wide, r->s->rule.plain_type));
    qz_var_release(r->t, wide);
    return QZ_OK;
}

static qz_status leaf_rows(qz_var **out, const request *r, const qz_tensor *value, const qz_tensor *grad)
{
    const qz_tensor v = rows_of(value, r);
    qz_tensor g;
    if (grad) g = rows_of(grad, r);
    return qz_tape_leaf(out, r->t, &v, grad ? &g : NULL);
}

static qz_status bias_of(qz_var **out, const request *r)
{
    const bool trained = r->s->rule.train_weights;
    *out = NULL;
    if (!r->l->bias.shape[0]) return QZ_OK;
    QZ_TRY(leaf_rows(out, r, &r->l->bias, trained ? &r->l->bias_grad : NULL));
    return trained ? as_stored(out, r) : QZ_OK; /* a frozen one is so already */
}

/* y = x W^T; weight and bias are released. */
static qz_status apply(const request *r, qz_var *x, qz_var *w, qz_var *residual, qz_var **y)
{
    qz_var *bias;
    QZ_TRY(bias_of(&bias, r));
    QZ_TRY(qz_ag_linear(y, r->t, x, w, bias, residual));
    qz_var_release(r->t, w);
    qz_var_release(r->t, bias);
    return QZ_OK;
}

/* x W^T with W as it is trained: the rounded values of this step, or the master. */
static qz_status apply_trained(const request *r, qz_var *x, qz_var *residual, qz_var **y)
{
    const qz_student_step *step = &r->s->step[r->index];
    qz_var *w;
    if (step->rounded)
        QZ_TRY(leaf_rows(&w, r, qz_var_value(step->rounded), &step->grad));
    else
        QZ_TRY(leaf_rows(&w, r, &r->l->weight, r->s->rule.train_weights ? &r->l->grad : NULL));
    if (step->rounded ? r->s->rule.plain_values : r->s->rule.train_weights) QZ_TRY(as_stored(&w, r));
    return apply(r, x, w, residual, y);
}

static qz_status apply_base(const request *r, qz_var *x, qz_var *residual, qz_var **y)
{
    const qz_packed *window = &r->s->window[r->index * QZ_ROLES + (int)r->s->role];
    qz_var *bias;
    QZ_TRY(bias_of(&bias, r));
    QZ_TRY(qz_ag_linear_packed(y, r->t, x, window, bias, residual));
    qz_var_release(r->t, bias);
    return QZ_OK;
}

static qz_status adapter_vars(const request *r, qz_var **a, qz_var **b)
{
    QZ_TRY(qz_tape_leaf(a, r->t, &r->l->a->value, &r->l->a->grad));
    return leaf_rows(b, r, &r->l->b->value, &r->l->b->grad);
}

/* y = (base or trained)(x) + factor B A drop(x) */
static qz_status apply_beside(const request *r, qz_var *x, qz_var *residual, qz_var **y)
{
    const qz_student_adapters *how = &r->s->adapters;
    const uint64_t place = (uint64_t)(r->index * QZ_ROLES + (int)r->s->role) << 40;
    const uint64_t seed = how->seed + r->s->number * 0x9E3779B97F4A7C15u;
    qz_var *a, *b, *dropped, *low, *scaled, *base;
    QZ_TRY(adapter_vars(r, &a, &b));
    QZ_TRY(apply_base(r, x, residual, &base));
    QZ_TRY(qz_ag_dropout(&dropped, r->t, x, r->s->number == QZ_STUDENT_JUDGED ? 0 : how->dropout, seed, place));
    QZ_TRY(qz_ag_linear(&low, r->t, dropped, a, NULL, NULL));
    if (dropped != x) qz_var_release(r->t, dropped);
    QZ_TRY(qz_ag_scale(&scaled, r->t, low, how->factor));
    qz_var_release(r->t, low);
    QZ_TRY(qz_ag_linear(y, r->t, scaled, b, NULL, base));
    qz_var_release(r->t, scaled);
    qz_var_release(r->t, base);
    return QZ_OK;
}

/* y = x round(W + factor B A)^T: what the merged checkpoint will compute. */
static qz_status apply_merged(const request *r, qz_var *x, qz_var *residual, qz_var **y)
{
    const int slot = r->index * QZ_ROLES + (int)r->s->role;
    qz_var *a, *b, *sum, *rounded;
    QZ_TRY(adapter_vars(r, &a, &b));
    QZ_TRY(qz_ag_low_rank(&sum, r->t, NULL, &r->s->window[slot], b, a, r->s->adapters.factor));
    const qz_ag_grid grid = {.q = &r->s->grid[slot], .fit = true, .rule = r->s->rule.rounding.rule};
    QZ_TRY(qz_ag_fake_quant(&rounded, r->t, sum, &grid));
    qz_var_release(r->t, sum);
    if (r->s->rule.plain_values) QZ_TRY(as_stored(&rounded, r));
    return apply(r, x, rounded, residual, y);
}

/* The same of a linear that is merged and stays plain, when it is judged. */
static qz_status apply_merged_plain(const request *r, qz_var *x, qz_var *residual, qz_var **y)
{
    const qz_packed *window = &r->s->window[r->index * QZ_ROLES + (int)r->s->role];
    qz_var *a, *b, *w;
    if (r->l->a) {
        QZ_TRY(adapter_vars(r, &a, &b));
        QZ_TRY(qz_ag_low_rank(&w, r->t, NULL, window, b, a, r->s->adapters.factor));
    } else {
        QZ_TRY(qz_ag_unpacked(&w, r->t, window));
    }
    QZ_TRY(as_stored(&w, r));
    return apply(r, x, w, residual, y);
}

static bool merges(const request *r)
{
    return r->s->adapters.merge_aware && r->s->adapt && r->s->round;
}

/* Is it judged by values that are nowhere yet? A plain base without an adapter has the checkpoint's type already. */
static bool merges_plain(const request *r)
{
    const qz_student_linear *l = r->l;
    if (!merges(r) || r->s->number != QZ_STUDENT_JUDGED || !l->base) return false;
    return l->a ? !l->rounded : !l->base->plain.data && (!l->rounded || r->s->rule.plain_values);
}

/* The first linear whose input is not finite is remembered. */
static qz_status search(qz_student *s, const qz_var *x, const char *module)
{
    int64_t at;
    QZ_TRY(qz_op_first_nonfinite(qz_model_backend(s->m), qz_var_value(x), &at));
    if (at >= 0) s->found = module;
    return QZ_OK;
}

static qz_status give_linear(void *context, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var *residual,
                             qz_var **y)
{
    qz_student *s = context;
    request r = {.s = s, .t = t};
    r.index = s->first[layer] + qz_model_role_rows(s->m, layer, role, &r.first, &r.rows);
    r.l = &s->linear[r.index];
    s->role = role;
    if (s->searching && !s->found) QZ_TRY(search(s, x, r.l->module));
    if (merges_plain(&r)) return apply_merged_plain(&r, x, residual, y);
    if (r.l->a && s->adapt)
        return merges(&r) && r.l->rounded ? apply_merged(&r, x, residual, y) : apply_beside(&r, x, residual, y);
    return r.l->base ? apply_base(&r, x, residual, y) : apply_trained(&r, x, residual, y);
}

static qz_status give_plain(void *context, qz_tape *t, const char *name, qz_var **w)
{
    qz_student *s = context;
    const request r = {.s = s, .t = t};
    for (int i = 0; i < s->plains; i++) {
        if (strcmp(s->plain[i].name, name) != 0) continue;
        QZ_TRY(qz_tape_leaf(w, t, &s->plain[i].value, s->rule.train_weights ? &s->plain[i].grad : NULL));
        return s->rule.train_weights ? as_stored(w, &r) : QZ_OK;
    }
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: stored quantized, and so not trained", name);
}

qz_status qz_student_forward(qz_student *s, qz_tape *t, qz_tape_batch batch, uint64_t number, qz_var **hidden,
                             qz_var **head, qz_arena *arena)
{
    const qz_tape_weights weights = {.context = s,
                                     .linear = give_linear,
                                     .plain = give_plain,
                                     .recompute = s->rule.recompute,
                                     .point = s->input ? qz_student_point : NULL};
    s->number = number;
    s->observing = s->learning;
    qz_status status = qz_model_tape_forward(s->m, t, &weights, batch, hidden, head, arena);
    s->observing = false;
    return status;
}

/* ---- steps ---- */

static qz_status scale_vars(qz_student *s, const qz_student_linear *l, qz_ag_grid *grid)
{
    if (l->scale) QZ_TRY(qz_tape_leaf(&grid->scale, s->outer, &l->scale->value, &l->scale->grad));
    if (l->offset) QZ_TRY(qz_tape_leaf(&grid->offset, s->outer, &l->offset->value, &l->offset->grad));
    return QZ_OK;
}

static qz_status round_linear(qz_student *s, int i)
{
    qz_student_linear *l = &s->linear[i];
    qz_student_step *step = &s->step[i];
    const bool trained = s->rule.train_weights;
    const bool fits = s->rule.rounding.fit, shares = qz_student_shares_scale(l);
    qz_ag_grid grid = {.q = &l->q, .fit = fits && !shares, .rule = s->rule.rounding.rule};
    qz_var *w;
    if (fits && shares && !s->rule.dry) QZ_TRY(qz_student_fit(s, l, &l->q, &l->weight));
    QZ_TRY(qz_tape_leaf(&w, s->outer, &l->weight, trained ? &l->grad : NULL));
    QZ_TRY(scale_vars(s, l, &grid));
    QZ_TRY(qz_ag_fake_quant(&step->rounded, s->outer, w, &grid));
    qz_student_look(s, i, qz_var_value(step->rounded));
    return qz_var_gradient(s->outer, step->rounded, &step->grad);
}

/* Do scales start from the weights as they are now? Until the first step that rounds they do. */
static bool starts(const qz_student *s)
{
    return !s->marks[QZ_STUDENT_BEGUN] && !s->rule.rounding.start_from_grid && !s->rule.rounding.fit && !s->rule.dry;
}

static qz_status start_scales(qz_student *s, qz_student_linear *l)
{
    QZ_TRY(qz_student_fit(s, l, &l->q, &l->weight));
    qz_student_start_scales(l);
    return QZ_OK;
}

static qz_status round_all(qz_student *s)
{
    for (int i = 0; i < s->linears; i++) {
        if (!s->linear[i].rounded || s->linear[i].base) continue;
        if (starts(s)) QZ_TRY(start_scales(s, &s->linear[i]));
        QZ_TRY(round_linear(s, i));
    }
    if (s->learning) s->marks[QZ_STUDENT_BEGUN] = s->marks[QZ_STUDENT_WATCHED] = 1;
    return QZ_OK;
}

qz_status qz_student_begin_step(qz_student *s, bool learning)
{
    qz_tape_reset(s->outer);
    s->learning = learning;
    for (int i = 0; i < s->linears; i++) s->step[i] = (qz_student_step){0};
    return s->round ? round_all(s) : QZ_OK;
}

qz_status qz_student_end_step(qz_student *s)
{
    qz_student_hold_gradients(s);
    QZ_TRY(qz_tape_backward(s->outer));
    qz_student_points_end(s);
    for (int i = 0; i < s->linears; i++) s->step[i] = (qz_student_step){0};
    return QZ_OK;
}

/* ---- one linear ---- */

qz_status qz_student_weight(const qz_student *s, int i, bool merged, const qz_tensor *out)
{
    const qz_student_linear *l = &s->linear[i];
    const size_t bytes = (size_t)(l->n * l->k) * sizeof(float);
    if (l->base)
        qz_packed_rows(qz_f32(out), l->base, 0, l->n);
    else
        memcpy(out->data, l->weight.data, bytes);
    if (!merged || !l->a) return QZ_OK;
    return qz_student_add_adapter(s, l, out, s->adapters.factor);
}

static qz_status set_grid(const qz_student *s, const qz_student_linear *l, qz_qtensor *q, const qz_tensor *weight)
{
    if (s->rule.rounding.fit || l->base || starts(s)) return qz_student_fit(s, l, q, weight);
    const size_t pieces = (size_t)qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    memcpy(q->scales, l->q.scales, pieces * sizeof *q->scales);
    if (q->zeros) memcpy(q->zeros, l->q.zeros, pieces);
    if (l->scale) qz_ag_grid_take(q, qz_f32(&l->scale->value), l->offset ? qz_f32(&l->offset->value) : NULL);
    return QZ_OK;
}

/* Of a frozen linear that was rounded when it was read. */
static void take_packed(qz_qtensor *out, const qz_packed *base)
{
    const size_t pieces = (size_t)qz_scheme_pieces(&out->scheme, out->rows, out->cols);
    memcpy(out->scales, base->q.scales, pieces * sizeof *out->scales);
    if (out->zeros) memcpy(out->zeros, base->q.zeros, pieces);
    for (int64_t n = 0; n < out->rows; n++) qz_packed_codes(out->codes + n * out->cols, base, n, 0, out->cols);
}

qz_status qz_student_codes(const qz_student *s, int i, qz_qtensor *out, qz_arena *arena)
{
    const qz_student_linear *l = &s->linear[i];
    QZ_TRY(qz_qtensor_alloc(out, &l->planned->scheme, l->n, l->k, arena));
    if (l->base && !l->a) {
        take_packed(out, l->base);
        return QZ_OK;
    }
    float *data = qz_arena_array(arena, float, (size_t)(l->n * l->k));
    if (!data) return qz_arena_failed(arena);
    const qz_tensor weight = qz_tensor_2d(data, QZ_F32, l->n, l->k);
    QZ_TRY(qz_student_weight(s, i, true, &weight));
    QZ_TRY(set_grid(s, l, out, &weight));
    qz_round_to_nearest(out, &weight);
    qz_student_hold_codes(s, i, out);
    return QZ_OK;
}

/* ---- looking at it ---- */

qz_parameters *qz_student_parameters(qz_student *s)
{
    return &s->parameters;
}

const qz_model *qz_student_model(const qz_student *s)
{
    return s->m;
}

uint64_t qz_student_bytes(const qz_student *s)
{
    return s->bytes + qz_tape_peak(s->outer);
}

void qz_student_round(qz_student *s, bool on)
{
    s->round = on;
}

void qz_student_adapt(qz_student *s, bool on)
{
    s->adapt = on;
}

void qz_student_search(qz_student *s, bool on)
{
    s->searching = on;
    if (on) s->found = NULL;
}

const char *qz_student_found(const qz_student *s)
{
    return s->found;
}

int qz_student_linears(const qz_student *s)
{
    return s->linears;
}

const qz_student_linear *qz_student_linear_at(const qz_student *s, int i)
{
    return &s->linear[i];
}
