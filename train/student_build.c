/* A model folder -> a student: parameters and frozen weights, and round each linear what student_adapter.c and
 * student_grid.c add. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "quant/quant.h"
#include "train/student_parts.h"

qz_status qz_student_numbers(qz_student *s, float **out, int64_t count)
{
    s->bytes += (uint64_t)count * sizeof(float);
    *out = s->rule.dry ? NULL : qz_arena_array(s->arena, float, (size_t)count);
    return *out || s->rule.dry ? QZ_OK : qz_arena_failed(s->arena);
}

qz_status qz_student_add_parameter(qz_student *s, qz_parameter **out, const char *name, qz_parameter_group group,
                                   const qz_tensor *like)
{
    QZ_TRY(qz_parameters_add(&s->parameters, name, group, like, s->arena));
    s->bytes += 2 * (uint64_t)qz_tensor_count(like) * sizeof(float);
    *out = &s->parameters.list[s->parameters.count - 1];
    return QZ_OK;
}

/* ---- what is stored plain ---- */

bool qz_student_narrows(const qz_student *s)
{
    return s->rule.plain_type == QZ_F16 || s->rule.plain_type == QZ_BF16;
}

/* What is frozen is the checkpoint's from the start; what is trained stays wide, and is narrowed when it is judged. */
static qz_status narrow_frozen(const qz_student *s, const qz_tensor *x)
{
    enum { PART = 4096 };
    uint16_t stored[PART];
    const int64_t count = qz_tensor_count(x);
    if (!qz_student_narrows(s) || s->rule.train_weights) return QZ_OK;
    for (int64_t i = 0; i < count; i += PART) {
        const int64_t n = count - i < PART ? count - i : PART;
        QZ_TRY(qz_convert(stored, s->rule.plain_type, qz_f32(x) + i, QZ_F32, n));
        QZ_TRY(qz_convert(qz_f32(x) + i, QZ_F32, stored, s->rule.plain_type, n));
    }
    return QZ_OK;
}

/* ---- random starts ---- */

/* Normal with deviation 0.02, and 0.02 / sqrt(2 layers) for what adds to the residual stream (Radford et al. 2019,
 * section 2.3); norms start at 1. */
static void draw(const qz_student *s, const char *name, const qz_tensor *x, bool adds)
{
    const qz_model_config *c = qz_model_config_of(s->m);
    const int64_t count = qz_tensor_count(x);
    const double deviation = 0.02 / (adds ? sqrt(2 * (double)c->layers) : 1);
    const float one = 1 - (float)c->norm_offset;
    qz_rng rng;
    qz_rng_seed(&rng, s->rule.seed, qz_hash64(name, strlen(name)));
    for (int64_t i = 0; i < count; i++) qz_f32(x)[i] = x->ndim > 1 ? (float)(deviation * qz_rng_normal(&rng)) : one;
}

/* ---- embeddings, norms, head ---- */

static qz_status add_plain(qz_student *s, const char *name)
{
    const qz_stored *stored = qz_ckpt_find(qz_model_ckpt(s->m), name);
    qz_parameter *p = &s->plain[s->plains++];
    p->name = name;
    p->value = stored->view;
    p->value.dtype = QZ_F32;
    if (s->rule.train_weights) {
        qz_parameter *q;
        QZ_TRY(qz_student_add_parameter(s, &q, name, stored->view.ndim > 1 ? QZ_PARAMETER_MATRIX : QZ_PARAMETER_NORM,
                                        &p->value));
        *p = *q;
    } else {
        float *data;
        QZ_TRY(qz_student_numbers(s, &data, qz_tensor_count(&p->value)));
        p->value.data = data;
    }
    if (s->rule.dry) return QZ_OK;
    if (s->rule.random) {
        draw(s, name, &p->value, false);
        return QZ_OK;
    }
    QZ_TRY(qz_ckpt_read_plain(qz_model_ckpt(s->m), name, stored->view.ndim, stored->view.shape, p->value.data));
    return narrow_frozen(s, &p->value);
}

/* The tables and norms of the family, without what was passed through. */
static qz_status add_plains(qz_student *s)
{
    const char **names;
    size_t count;
    QZ_TRY(qz_model_plain_names(s->m, &names, &count, s->arena));
    s->plain = qz_arena_calloc(s->arena, (count + 1) * sizeof *s->plain);
    if (!s->plain) return qz_arena_failed(s->arena);
    for (size_t i = 0; i < count; i++) QZ_TRY(add_plain(s, names[i]));
    return QZ_OK;
}

/* ---- linears ---- */

static void start_trained(qz_student *s, qz_student_linear *l, const qz_linear *from)
{
    if (s->rule.random)
        draw(s, l->module, &l->weight, from->role == QZ_ROLE_O || from->role == QZ_ROLE_DOWN);
    else
        memcpy(l->weight.data, from->weight.data, (size_t)(l->n * l->k) * sizeof(float));
}

static qz_status add_trained(qz_student *s, qz_student_linear *l, const qz_linear *from)
{
    char name[512];
    qz_parameter *p;
    snprintf(name, sizeof name, "%s.weight", l->module);
    QZ_TRY(qz_student_add_parameter(s, &p, name, QZ_PARAMETER_MATRIX, &from->weight));
    l->weight = p->value;
    l->grad = p->grad;
    if (!s->rule.dry) start_trained(s, l, from);
    if (!l->bias.shape[0]) return QZ_OK;
    snprintf(name, sizeof name, "%s.bias", l->module);
    QZ_TRY(qz_student_add_parameter(s, &p, name, QZ_PARAMETER_NORM, &l->bias));
    l->bias = p->value;
    l->bias_grad = p->grad;
    return QZ_OK;
}

/* In the checkpoint that is trained for. */
static bool is_plain(const qz_student_linear *l)
{
    return !l->planned || !l->planned->quantized;
}

/* Frozen, but rounded on scales that are learned: wide, since it is rounded anew in every step. */
static qz_status add_wide(qz_student *s, qz_student_linear *l, const qz_linear *from)
{
    float *data;
    QZ_TRY(qz_student_numbers(s, &data, l->n * l->k));
    l->weight = qz_tensor_2d(data, QZ_F32, l->n, l->k);
    if (s->rule.dry) return QZ_OK;
    memcpy(l->weight.data, from->weight.data, (size_t)(l->n * l->k) * sizeof(float));
    return is_plain(l) ? narrow_frozen(s, &l->weight) : QZ_OK;
}

qz_status qz_student_round_base(const qz_student *s, qz_qtensor *out, const qz_tensor *weight, const qz_scheme *scheme,
                                qz_arena *scratch)
{
    QZ_TRY(qz_qtensor_alloc(out, scheme, weight->shape[0], weight->shape[1], scratch));
    QZ_TRY(qz_op_fit_ranges(qz_model_backend(s->m), out, weight));
    qz_round_to_nearest(out, weight);
    if (scheme->double_quant) qz_qtensor_quantize_scales(out);
    return QZ_OK;
}

static qz_status pack_rounded(qz_student *s, qz_packed *out, const qz_linear *from, const qz_scheme *scheme,
                              qz_arena *scratch)
{
    qz_qtensor q;
    QZ_TRY(qz_student_round_base(s, &q, &from->weight, scheme, scratch));
    return qz_packed_from(out, &q, s->arena);
}

static const qz_stored *plain_weight(const qz_student *s, const qz_student_linear *l)
{
    char name[512];
    snprintf(name, sizeof name, "%s.weight", l->module);
    return qz_ckpt_find(qz_model_ckpt(s->m), name);
}

/* A plain weight that the checkpoint will hold in another type, with nothing added to it before. */
static bool is_narrowed(const qz_student *s, const qz_student_linear *l)
{
    return qz_student_narrows(s) && is_plain(l) && !qz_student_is_adapted(s, l->module) &&
           plain_weight(s, l)->view.dtype != s->rule.plain_type;
}

/* Of a folder's quantized weights, which are packed as they are; plain ones stay in the mapped file, unless they are
 * narrowed. */
static qz_status count_stored(qz_student *s, const qz_student_linear *l)
{
    const qz_ckpt *c = qz_model_ckpt(s->m);
    qz_scheme scheme;
    if (!qz_ckpt_is_quantized(c, l->module)) {
        if (is_narrowed(s, l)) s->bytes += (uint64_t)(l->n * l->k) * sizeof(uint16_t);
        return QZ_OK;
    }
    QZ_TRY(qz_ckpt_container(c)->read_scheme(&scheme, qz_json_root(qz_ckpt_config(c))));
    s->bytes += qz_packed_bytes(&scheme, l->n, l->k);
    return QZ_OK;
}

static qz_status pack_stored(qz_student *s, qz_packed *out, const qz_student_linear *l, qz_arena *scratch)
{
    const qz_ckpt *c = qz_model_ckpt(s->m);
    qz_qtensor q;
    if (qz_ckpt_is_quantized(c, l->module)) {
        QZ_TRY(qz_ckpt_read_qtensor(c, l->module, l->n, l->k, &q, scratch));
        return qz_packed_from(out, &q, s->arena);
    }
    qz_tensor plain = plain_weight(s, l)->view;
    if (is_narrowed(s, l)) {
        plain.dtype = s->rule.plain_type;
        plain.data = qz_arena_array(s->arena, uint16_t, (size_t)(l->n * l->k));
        if (!plain.data) return qz_arena_failed(s->arena);
        QZ_TRY(qz_op_convert(qz_model_backend(s->m), &plain, &plain_weight(s, l)->view));
    }
    *out = qz_packed_plain(&plain);
    return QZ_OK;
}

static bool skips_base(const qz_student *s, const char *module)
{
    return s->adapters.base_skips && s->adapters.base_skips(s->adapters.context, module);
}

/* The base is made together with its adapter. */
static bool starts_with_base(const qz_student *s, const char *module)
{
    return s->adapters.loftq && s->adapters.base && !skips_base(s, module) && !s->rule.dry &&
           qz_student_is_adapted(s, module);
}

/* What a frozen weight is rounded by; NULL: it stays as it is stored. In a merged checkpoint, linears without an
 * adapter are rounded too, once and for all. */
static const qz_scheme *base_scheme(const qz_student *s, const qz_student_linear *l)
{
    const bool merged = s->adapters.merge_aware && l->planned && l->planned->quantized;
    if (merged && !qz_student_is_adapted(s, l->module)) return &l->planned->scheme;
    return skips_base(s, l->module) ? NULL : s->adapters.base;
}

static qz_status add_frozen(qz_student *s, qz_student_linear *l, const qz_linear *from, qz_arena *scratch)
{
    const qz_scheme *scheme = base_scheme(s, l);
    qz_packed *base = qz_arena_calloc(s->arena, sizeof *base);
    if (!base) return qz_arena_failed(s->arena);
    l->base = base;
    if (scheme)
        s->bytes += qz_packed_bytes(scheme, l->n, l->k);
    else
        QZ_TRY(count_stored(s, l));
    if (s->rule.dry) {
        base->q = (qz_qtensor){.rows = l->n, .cols = l->k};
        if (!scheme && !qz_ckpt_is_quantized(qz_model_ckpt(s->m), l->module))
            *base = qz_packed_plain(&plain_weight(s, l)->view); /* never read */
        return QZ_OK;
    }
    if (starts_with_base(s, l->module)) return QZ_OK;
    return scheme ? pack_rounded(s, base, from, scheme, scratch) : pack_stored(s, base, l, scratch);
}

/* ---- windows of roles ---- */

static void add_windows(qz_student *s, const qz_student_linear *l, int index)
{
    const qz_linear_place *p = qz_model_linear(s->m, l->layer, l->linear);
    for (int r = 0; r < p->roles; r++) {
        const int slot = index * QZ_ROLES + (int)p->role + r;
        int64_t first, rows;
        qz_model_role_rows(s->m, l->layer, (qz_role)((int)p->role + r), &first, &rows);
        if (l->base) s->window[slot] = qz_packed_window(l->base, first, rows);
        s->grid[slot] = l->q;
        if (p->roles == 1 || !l->rounded || s->rule.dry) continue;
        const int64_t pieces = first * qz_scheme_scale_cols(&l->q.scheme, l->k);
        s->grid[slot].rows = rows;
        s->grid[slot].scales += pieces;
        if (l->q.zeros) s->grid[slot].zeros += pieces;
    }
}

/* ---- all ---- */

static const qz_export_linear *planned(const qz_student *s, const char *module)
{
    const qz_export_plan *plan = s->rule.plan;
    for (size_t i = 0; plan && i < plan->linears; i++) {
        if (strcmp(plan->linear[i].module, module) == 0) return &plan->linear[i];
    }
    return NULL;
}

static qz_status take_bias(qz_student *s, qz_student_linear *l, const qz_linear *from)
{
    if (!qz_model_linear(s->m, l->layer, l->linear)->has_bias) return QZ_OK;
    if (!s->rule.train_weights) {
        float *data;
        QZ_TRY(qz_student_numbers(s, &data, l->n));
        l->bias = qz_tensor_1d(data, QZ_F32, l->n);
    }
    if (s->rule.dry) return QZ_OK;
    if (s->rule.random)
        memset(l->bias.data, 0, (size_t)l->n * sizeof(float));
    else
        memcpy(l->bias.data, from->bias.data, (size_t)l->n * sizeof(float));
    return narrow_frozen(s, &l->bias);
}

static qz_status add_linear(qz_student *s, int layer, int i, const qz_linear *from, qz_arena *scratch)
{
    const qz_linear_place *p = qz_model_linear(s->m, layer, i);
    const int index = s->linears++;
    qz_student_linear *l = &s->linear[index];
    *l = (qz_student_linear){.module = qz_model_linear_name(s->m, layer, i),
                             .layer = layer,
                             .linear = i,
                             .input = p->input,
                             .n = p->n,
                             .k = p->k};
    if (p->has_bias) l->bias = qz_tensor_1d(NULL, QZ_F32, p->n);
    l->planned = planned(s, l->module);
    QZ_TRY(s->rule.train_weights           ? add_trained(s, l, from)
           : s->rule.rounding.learn_scales ? add_wide(s, l, from)
                                           : add_frozen(s, l, from, scratch));
    QZ_TRY(take_bias(s, l, from));
    QZ_TRY(qz_student_add_factors(s, l, index));
    if (starts_with_base(s, l->module)) QZ_TRY(qz_student_start_loftq(s, l, &from->weight, scratch));
    QZ_TRY(qz_student_add_grid(s, l, scratch));
    add_windows(s, l, index);
    return QZ_OK;
}

static qz_status add_layer(qz_student *s, int layer, qz_arena *scratch)
{
    qz_layer from;
    s->first[layer] = s->linears;
    if (!s->rule.dry) QZ_TRY(qz_model_layer(s->m, layer, &from, scratch));
    for (int i = 0; i < qz_model_linears(s->m, layer); i++) {
        const qz_linear_place *p = qz_model_linear(s->m, layer, i);
        const qz_linear shape = {.weight = qz_tensor_2d(NULL, QZ_F32, p->n, p->k)};
        QZ_TRY(add_linear(s, layer, i, s->rule.dry ? &shape : &from.linear[i], scratch));
    }
    return QZ_OK;
}

static qz_status add_layers(qz_student *s, qz_arena *scratch)
{
    for (int i = 0; i < qz_model_config_of(s->m)->layers; i++) {
        QZ_TRY(add_layer(s, i, scratch));
        qz_arena_reset(scratch);
    }
    return QZ_OK;
}

static qz_status make_room(qz_student *s)
{
    const int64_t layers = qz_model_config_of(s->m)->layers;
    size_t linears = 0;
    for (int i = 0; i < layers; i++) linears += (size_t)qz_model_linears(s->m, i);
    s->first = qz_arena_array(s->arena, int, (size_t)layers);
    s->linear = qz_arena_calloc(s->arena, linears * sizeof *s->linear);
    s->step = qz_arena_calloc(s->arena, linears * sizeof *s->step);
    s->window = qz_arena_calloc(s->arena, linears * QZ_ROLES * sizeof *s->window);
    s->grid = qz_arena_calloc(s->arena, linears * QZ_ROLES * sizeof *s->grid);
    if (!s->first || !s->linear || !s->step || !s->window || !s->grid) return qz_arena_failed(s->arena);
    enum { OF_A_LINEAR = 7, OF_A_LAYER = 8, ELSEWHERE = 8 };
    return qz_parameters_new(&s->parameters, (int)(linears * OF_A_LINEAR) + (int)layers * OF_A_LAYER + ELSEWHERE,
                             s->rule.dry, s->arena);
}

static qz_status no_target(const qz_student *s)
{
    for (int i = 0; s->rule.adapters && i < s->linears; i++) {
        if (s->linear[i].a) return QZ_OK;
    }
    if (!s->rule.adapters) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "train.adapter.targets: none of them matches a linear of the model, for instance \"%s\"",
                   s->linear[0].module);
}

static qz_status build(qz_student *s)
{
    qz_arena *scratch;
    QZ_TRY(qz_arena_new(&s->arena, "student"));
    QZ_TRY(qz_tape_new(&s->outer, qz_model_backend(s->m), s->rule.dry));
    qz_tape_keep_cheap(s->outer, true);
    QZ_TRY(make_room(s));
    QZ_TRY(add_plains(s));
    QZ_TRY(qz_arena_new(&scratch, "layer"));
    qz_status status = add_layers(s, scratch);
    qz_arena_free(scratch);
    QZ_TRY(status);
    QZ_TRY(qz_student_add_points(s));
    QZ_TRY(qz_student_add_watches(s));
    QZ_TRY(qz_student_add_tensors(s));
    return no_target(s);
}

qz_status qz_student_new(qz_student **out, const qz_model *m, const qz_student_rule *rule)
{
    qz_student *s = qz_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return QZ_FAIL(QZ_MEMORY, "no memory for a student");
    s->m = m;
    s->rule = *rule;
    s->round = true;
    s->adapt = true;
    if (rule->adapters) s->adapters = *rule->adapters;
    qz_status status = build(s);
    if (status != QZ_OK) {
        qz_student_free(s);
        return status;
    }
    *out = s;
    return QZ_OK;
}

void qz_student_free(qz_student *s)
{
    if (!s) return;
    qz_tape_free(s->outer);
    qz_arena_free(s->arena);
    qz_free(s);
}
