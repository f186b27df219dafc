/* What a server rounds at run time, as a tap on the model: the inputs of linears and the keys and values of the cache,
 * by what the checkpoint says (or by given schemes), with the arithmetic of numeric/actgrid.h.
 *
 * The linears of one input see the same rounded values, as in a server that fuses them; schemes or scales that differ
 * within such a set are an error. Keys are rounded after rope. Everything that is not named here is computed in fp32:
 * a server's accumulation and its queries, which some attention kernels round to fp8 as well, are not imitated. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "eval/eval.h"

static qz_status round_input(const qz_eval_layer_rounding *r, const qz_layer *layer, int input, const qz_tensor *x)
{
    if (input >= r->inputs)
        return QZ_FAIL(QZ_ARG, "layer %d: input %d is to be rounded, but rounding is given for %d inputs", layer->index,
                       input, r->inputs);
    const qz_eval_input_rounding *how = &r->input[input];
    if (how->scheme.mode == QZ_ACT_NONE) return QZ_OK;
    QZ_TRY_CTX(qz_op_round_activations(r->backend, x, x, &how->scheme, &how->values), "layer %d, input of %s",
               layer->index, qz_stage_name(qz_input_stage(input)));
    return QZ_OK;
}

static qz_status round_cache(const qz_eval_layer_rounding *r, const qz_layer *layer, const float *scale,
                             const qz_tensor *x)
{
    const qz_tensor scales = qz_tensor_1d((void *)scale, QZ_F32, x->shape[1]);
    QZ_TRY_CTX(qz_op_round_heads(r->backend, x, x, &scales, r->kv.format), "layer %d, cache", layer->index);
    return QZ_OK;
}

static qz_status round_at(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    const qz_eval_layer_rounding *r = context;
    if (point == QZ_POINT_INPUT) return r->inputs ? round_input(r, layer, input, x) : QZ_OK;
    if (!r->kv.wanted) return QZ_OK;
    return round_cache(r, layer, point == QZ_POINT_KEY ? r->key : r->value, x);
}

static qz_status round_any(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    const qz_eval_rounding *r = context;
    return round_at(&r->layer[layer->index], layer, input, point, x);
}

static bool rounds_something(const qz_eval_layer_rounding *r)
{
    if (r->kv.wanted) return true;
    for (int i = 0; i < r->inputs; i++)
        if (r->input[i].scheme.mode != QZ_ACT_NONE) return true;
    return false;
}

qz_tap qz_eval_layer_tap(const qz_eval_layer_rounding *r)
{
    return rounds_something(r) ? (qz_tap){round_at, (void *)r} : (qz_tap){NULL, NULL};
}

qz_tap qz_eval_rounding_tap(const qz_eval_rounding *r)
{
    for (int i = 0; i < r->layers; i++)
        if (rounds_something(&r->layer[i])) return (qz_tap){round_any, (void *)r};
    return (qz_tap){NULL, NULL};
}

/* ---- from a checkpoint ---- */

static bool same_rounding(const qz_eval_input_rounding *a, const qz_eval_input_rounding *b)
{
    const qz_act_scheme *s = &a->scheme, *t = &b->scheme;
    if (!qz_act_scheme_same(s, t) || s->divisor != t->divisor) return false;
    return s->mode != QZ_ACT_TENSOR || (a->values.scale == b->values.scale && a->values.zero == b->values.zero);
}

static void describe(const qz_eval_input_rounding *r, char *out, size_t size)
{
    static const char *const mode[] = {"not rounded", "per token", "per group", "static"};
    const qz_act_scheme *s = &r->scheme;
    if (s->mode == QZ_ACT_NONE)
        snprintf(out, size, "%s", mode[s->mode]);
    else if (s->mode == QZ_ACT_TENSOR)
        snprintf(out, size, "%s %s, scale %.9g, zero %d", qz_format_of(s->format)->name, mode[s->mode],
                 (double)r->values.scale, r->values.zero);
    else
        snprintf(out, size, "%s %s", qz_format_of(s->format)->name, mode[s->mode]);
}

/* `how` of a linear against what the first linear of its input (`first`) says. */
static qz_status check_same(const char *first, const qz_eval_input_rounding *known, const char *module,
                            const qz_eval_input_rounding *how)
{
    char a[128], b[128];
    if (same_rounding(known, how)) return QZ_OK;
    describe(known, a, sizeof a);
    describe(how, b, sizeof b);
    return QZ_FAIL(QZ_FORMAT,
                   "\"%s\" and \"%s\" read the same input, but the first wants it %s, the second %s; servers run such "
                   "linears as one and round their input once",
                   first, module, a, b);
}

static qz_status read_inputs(qz_eval_layer_rounding *out, const qz_model *m, int layer, qz_arena *arena)
{
    const int inputs = qz_model_inputs(m, layer);
    qz_eval_input_rounding *known = qz_arena_calloc(arena, (size_t)inputs * sizeof *known);
    const char **first = qz_arena_calloc(arena, (size_t)inputs * sizeof *first);
    if (!known || !first) return qz_arena_failed(arena);
    for (int i = 0; i < qz_model_linears(m, layer); i++) {
        const char *module = qz_model_linear_name(m, layer, i);
        const int input = qz_model_linear(m, layer, i)->input;
        qz_eval_input_rounding how;
        QZ_TRY_CTX(qz_ckpt_read_activation(qz_model_ckpt(m), module, &how.scheme, &how.values), "%s", module);
        if (first[input]) {
            QZ_TRY(check_same(first[input], &known[input], module, &how));
        } else {
            first[input] = module;
            known[input] = how;
        }
    }
    out->inputs = inputs;
    out->input = known;
    return QZ_OK;
}

static qz_status read_cache(qz_eval_layer_rounding *out, const qz_model *m, int layer, qz_arena *arena)
{
    const int64_t heads = qz_model_config_of(m)->kv_heads;
    const char *module = qz_model_attention_name(m, layer);
    float *key = qz_arena_calloc(arena, (size_t)heads * sizeof *key);
    float *value = qz_arena_calloc(arena, (size_t)heads * sizeof *value);
    if (!key || !value) return qz_arena_failed(arena);
    QZ_TRY_CTX(qz_ckpt_read_kv(qz_model_ckpt(m), module, heads, &out->kv, key, value), "%s", module);
    out->key = key;
    out->value = value;
    return QZ_OK;
}

static qz_status warn_of_head(const qz_model *m)
{
    qz_act_scheme scheme = {0};
    qz_act_values values;
    const char *module = qz_model_end_name(m, QZ_END_HEAD);
    if (module) QZ_TRY_CTX(qz_ckpt_read_activation(qz_model_ckpt(m), module, &scheme, &values), "%s", module);
    if (scheme.mode != QZ_ACT_NONE) qz_warn("%s: servers round its input; this evaluation does not", module);
    return QZ_OK;
}

qz_status qz_eval_rounding_read(qz_eval_rounding *out, const qz_model *m, qz_arena *arena)
{
    const int layers = (int)qz_model_config_of(m)->layers;
    out->layers = layers;
    out->layer = qz_arena_calloc(arena, (size_t)layers * sizeof *out->layer);
    if (!out->layer) return qz_arena_failed(arena);
    for (int i = 0; i < layers; i++) {
        qz_eval_layer_rounding *r = &out->layer[i];
        r->backend = qz_model_backend(m);
        QZ_TRY(read_inputs(r, m, i, arena));
        QZ_TRY(read_cache(r, m, i, arena));
    }
    return warn_of_head(m);
}

void qz_eval_rounding_describe(const qz_eval_rounding *r, char *out, size_t size)
{
    char input[128] = "inputs not rounded", cache[96] = "";
    int rounded = 0, inputs = 0;
    for (int i = 0; i < r->layers; i++) {
        const qz_eval_layer_rounding *layer = &r->layer[i];
        for (int j = 0; j < layer->inputs; j++, inputs++) {
            if (layer->input[j].scheme.mode == QZ_ACT_NONE || rounded++) continue;
            const qz_eval_input_rounding example = {layer->input[j].scheme, {0, 0}};
            describe(&example, input, sizeof input);
            char *values = strchr(input, ',');
            if (values) *values = 0;
        }
        if (layer->kv.wanted && !*cache)
            snprintf(cache, sizeof cache, "; cache %s per %s", qz_format_of(layer->kv.format)->name,
                     layer->kv.per_head ? "head" : "tensor");
    }
    if (rounded)
        snprintf(out, size, "%d of %d inputs rounded (%s)%s", rounded, inputs, input, cache);
    else
        snprintf(out, size, "%s%s", input, cache);
}
