/* Rounding between the weights: inputs of linears and the cache of keys and values, with the arithmetic of
 * numeric/actgrid.h, as the server of the exported folder will do it.
 *
 * Dynamic schemes need nothing. Static ones follow a moving average of the extremes, low += 0.01 (lowest - low) after
 * the first batch, which counts whole (MovingAverageMinMaxObserver of PyTorch, averaging_constant 0.01; ours hold 0, as
 * the grids do), or learn the scale from there on by its gradient (Esser et al. 2020, eq. 3). One pass forward of one
 * micro-batch is one observation: a layer that is computed again on the way back sees the values that it saw before,
 * and evaluations change nothing. Before the first observation an evaluation takes the extremes of its own batch. While
 * rounding is still off (a delayed start) averages gather. Keys are rounded after the rotation. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/parallel.h"
#include "numeric/actgrid.h"
#include "train/student_parts.h"

static const float SHARE = 0.01f; /* of a new observation in an average */

static const float UNSEEN = NAN;

/* ---- extremes ---- */

enum { STRETCHES = 64 };

/* Extremes do not depend on the order, so any cut would do. */
static void extremes(float *low, float *high, const float *x, int64_t count)
{
    float lo[STRETCHES], hi[STRETCHES];
    const int64_t each = (count + STRETCHES - 1) / STRETCHES;
    QZ_PARALLEL_FOR for (int i = 0; i < STRETCHES; i++)
    {
        const int64_t first = i * each < count ? i * each : count, left = count - first;
        qz_range_of(&lo[i], &hi[i], x + first, left < each ? left : each);
    }
    *low = *high = 0;
    for (int i = 0; i < STRETCHES; i++) {
        *low = lo[i] < *low ? lo[i] : *low;
        *high = hi[i] > *high ? hi[i] : *high;
    }
}

static void average(float *mean, float seen)
{
    *mean = isnan(*mean) ? seen : *mean + SHARE * (seen - *mean);
}

/* ---- inputs of linears ---- */

static bool is_static(const qz_student_input *in)
{
    return in->scheme.mode == QZ_ACT_TENSOR;
}

static bool is_learning(const qz_student_input *in)
{
    return in->scale && in->range->started != 0;
}

static qz_act_values values_now(const qz_student_input *in)
{
    if (in->given) return in->values;
    if (!is_learning(in)) return qz_act_values_of(in->range->low, in->range->high, in->scheme);
    const float scale = *qz_f32(&in->scale->value), least = 1e-12f;
    return (qz_act_values){scale > least ? scale : least, (int)in->range->zero};
}

static void start_scale(qz_student_input *in, qz_act_values v)
{
    *qz_f32(&in->scale->value) = v.scale;
    in->range->zero = (float)v.zero;
    in->range->started = 1;
}

/* Looks at a batch: what it is to be rounded with. */
static qz_act_values look(const qz_student *s, qz_student_input *in, const qz_tensor *x)
{
    float low, high;
    if (in->given || is_learning(in) || (!s->observing && !isnan(in->range->low))) return values_now(in);
    extremes(&low, &high, qz_f32(x), qz_tensor_count(x));
    if (!s->observing) return qz_act_values_of(low, high, in->scheme);
    average(&in->range->low, low);
    average(&in->range->high, high);
    if (in->scale && s->round) start_scale(in, values_now(in));
    return values_now(in);
}

static qz_status round_input(qz_student *s, qz_tape *t, qz_student_input *in, qz_var **x)
{
    qz_act_values values = {1, 0};
    if (in->scheme.mode == QZ_ACT_NONE) return QZ_OK;
    if (is_static(in) && !qz_tape_is_dry(t)) values = look(s, in, qz_var_value(*x));
    if (!s->round) return QZ_OK;
    return qz_ag_round_inputs(x, t, *x, &in->scheme, &values, s->rule.rounding.rule,
                              in->scale ? &in->scale_grad : NULL);
}

/* ---- the cache ---- */

static float *cache_of(const qz_student *s, int layer, qz_point point)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads;
    return s->cache + (2 * layer + (point == QZ_POINT_VALUE)) * heads;
}

/* most (HK) of x (T, HK D); one for all heads unless the scheme says otherwise */
static void largest(const qz_student *s, float *most, const qz_tensor *x)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads, width = x->shape[1], size = width / heads;
    float all = 0;
    QZ_PARALLEL_FOR for (int64_t h = 0; h < heads; h++)
    {
        most[h] = 0;
        for (int64_t t = 0; t < x->shape[0]; t++) {
            float lo, hi;
            qz_range_of(&lo, &hi, qz_f32(x) + t * width + h * size, size);
            most[h] = -lo > most[h] ? -lo : most[h];
            most[h] = hi > most[h] ? hi : most[h];
        }
    }
    if (s->rule.plan->kv.per_head) return;
    for (int64_t h = 0; h < heads; h++) all = most[h] > all ? most[h] : all;
    for (int64_t h = 0; h < heads; h++) most[h] = all;
}

/* As calibration has it: a head that was always zero gets 1. */
static float cache_scale(const qz_student *s, float most)
{
    const qz_act_scheme scheme = {
        .mode = QZ_ACT_TENSOR, .format = s->rule.plan->kv.format, .symmetric = true, .divisor = 127};
    if (s->cache_given) return most;
    return most > 0 ? qz_act_values_of(-most, most, scheme).scale : 1;
}

static void look_at_cache(qz_student *s, float *mean, const qz_tensor *x)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads;
    const bool seen = !isnan(mean[0]);
    if (s->observing || !seen) largest(s, s->cache_scale, x);
    for (int64_t h = 0; h < heads; h++) {
        if (s->observing) average(&mean[h], s->cache_scale[h]);
        s->cache_scale[h] = cache_scale(s, s->observing || seen ? mean[h] : s->cache_scale[h]);
    }
}

static qz_status round_cache(qz_student *s, qz_tape *t, float *mean, qz_var **x)
{
    const qz_tensor scale = qz_tensor_1d(s->cache_scale, QZ_F32, qz_model_config_of(s->m)->kv_heads);
    if (!qz_tape_is_dry(t)) look_at_cache(s, mean, qz_var_value(*x));
    return s->round ? qz_ag_round_heads(x, t, *x, &scale, s->rule.plan->kv.format) : QZ_OK;
}

qz_status qz_student_point(void *context, qz_tape *t, int layer, int input, qz_point point, qz_var **x)
{
    qz_student *s = context;
    if (point == QZ_POINT_INPUT) return round_input(s, t, &s->input[layer * s->inputs + input], x);
    return s->cache ? round_cache(s, t, cache_of(s, layer, point), x) : QZ_OK;
}

void qz_student_points_end(qz_student *s)
{
    const int count = s->rule.dry ? 0 : s->inputs * (int)qz_model_config_of(s->m)->layers;
    for (int i = 0; i < count; i++) {
        if (s->input[i].scale) *qz_f32(&s->input[i].scale->grad) += (float)s->input[i].scale_grad;
        s->input[i].scale_grad = 0;
    }
}

/* ---- making ---- */

static bool same_scheme(const qz_act_scheme *a, const qz_act_scheme *b)
{
    return qz_act_scheme_same(a, b) && (a->mode == QZ_ACT_NONE || a->divisor == b->divisor);
}

static qz_act_scheme scheme_of(const qz_student_linear *l)
{
    return l->planned && l->planned->quantized ? l->planned->activation : (qz_act_scheme){0};
}

/* Where the folder has a static scale already. */
static qz_status take_stored(qz_student *s, qz_student_input *in, const char *module)
{
    qz_act_scheme scheme = {0};
    qz_act_values v = {0};
    if (s->rule.dry || !qz_ckpt_is_quantized(qz_model_ckpt(s->m), module)) return QZ_OK;
    QZ_TRY(qz_ckpt_read_activation(qz_model_ckpt(s->m), module, &scheme, &v));
    if (!same_scheme(&scheme, &in->scheme)) return QZ_OK;
    const bool whole = qz_act_is_int(scheme.format);
    const float top = whole ? scheme.divisor : qz_act_largest(scheme.format);
    in->range->low = (whole && !scheme.symmetric ? (float)(-128 - v.zero) : -top) * v.scale;
    in->range->high = (whole && !scheme.symmetric ? (float)(127 - v.zero) : top) * v.scale;
    if (in->scale) start_scale(in, v);
    return QZ_OK;
}

static qz_status add_input(qz_student *s, const qz_student_linear *l, qz_student_input *in)
{
    char name[512];
    const qz_tensor one = qz_tensor_1d(NULL, QZ_F32, 1);
    in->scheme = scheme_of(l);
    in->module = l->module;
    if (!is_static(in)) return QZ_OK;
    if (s->rule.rounding.learn_activations) {
        snprintf(name, sizeof name, "%s.input_scale", l->module);
        QZ_TRY(qz_student_add_parameter(s, &in->scale, name, QZ_PARAMETER_SCALE, &one));
        if (!s->rule.dry) *qz_f32(&in->scale->value) = 0; /* until it starts */
    }
    return take_stored(s, in, l->module);
}

static qz_status add_inputs(qz_student *s)
{
    for (int i = 0; i < s->linears; i++) {
        const qz_student_linear *l = &s->linear[i];
        qz_student_input *in = &s->input[l->layer * s->inputs + l->input];
        const qz_act_scheme scheme = scheme_of(l);
        if (!in->module)
            QZ_TRY(add_input(s, l, in));
        else if (!same_scheme(&in->scheme, &scheme))
            return QZ_FAIL(QZ_ARG,
                           "%s and %s read the same input, but the recipe rounds it in different ways; servers run "
                           "such linears as one and round their input once: give both the same activations",
                           in->module, l->module);
    }
    return QZ_OK;
}

static qz_status take_stored_cache(qz_student *s)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads;
    const qz_kv_scheme *wanted = &s->rule.plan->kv;
    const float top = qz_act_is_int(wanted->format) ? 127 : qz_act_largest(wanted->format);
    for (int i = 0; i < qz_model_config_of(s->m)->layers; i++) {
        float *key = cache_of(s, i, QZ_POINT_KEY), *value = cache_of(s, i, QZ_POINT_VALUE);
        qz_kv_scheme scheme = {0};
        QZ_TRY(qz_ckpt_read_kv(qz_model_ckpt(s->m), qz_model_attention_name(s->m, i), heads, &scheme, key, value));
        const bool same = scheme.wanted && scheme.format == wanted->format && scheme.per_head == wanted->per_head;
        for (int64_t h = 0; h < 2 * heads; h++) key[h] = same ? key[h] * top : UNSEEN;
    }
    return QZ_OK;
}

static qz_status add_cache(qz_student *s)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads, layers = qz_model_config_of(s->m)->layers;
    if (!s->rule.plan->kv.wanted) return QZ_OK;
    s->cache = qz_arena_array(s->arena, float, (size_t)(2 * layers * heads));
    s->cache_scale = qz_arena_array(s->arena, float, (size_t)heads);
    if (!s->cache || !s->cache_scale) return qz_arena_failed(s->arena);
    return s->rule.dry ? QZ_OK : take_stored_cache(s);
}

qz_status qz_student_add_points(qz_student *s)
{
    const int layers = (int)qz_model_config_of(s->m)->layers;
    if (!s->rule.plan) return QZ_OK;
    for (int i = 0; i < layers; i++) {
        const int inputs = qz_model_inputs(s->m, i);
        s->inputs = inputs > s->inputs ? inputs : s->inputs;
    }
    const size_t count = (size_t)(layers * s->inputs);
    s->input = qz_arena_calloc(s->arena, count * sizeof *s->input);
    s->range = qz_arena_calloc(s->arena, count * sizeof *s->range);
    if (!s->input || !s->range) return qz_arena_failed(s->arena);
    for (size_t i = 0; i < count; i++) {
        s->range[i] = (qz_student_range){.low = UNSEEN, .high = UNSEEN};
        s->input[i].range = &s->range[i];
    }
    QZ_TRY(add_inputs(s));
    return add_cache(s);
}

/* ---- for exports ---- */

bool qz_student_has_ranges(const qz_student *s)
{
    const int layers = s->rule.plan && !s->rule.dry ? (int)qz_model_config_of(s->m)->layers : 0;
    for (int i = 0; i < layers * s->inputs; i++) {
        const qz_student_input *in = &s->input[i];
        if (is_static(in) && !is_learning(in) && isnan(in->range->low)) return false;
    }
    for (int i = 0; s->cache && i < layers; i++) {
        if (isnan(*cache_of(s, i, QZ_POINT_KEY))) return false;
    }
    return true;
}

qz_status qz_student_activation(const qz_student *s, int i, qz_act_values *out)
{
    const qz_student_linear *l = &s->linear[i];
    *out = (qz_act_values){0};
    if (!s->rule.plan) return QZ_OK;
    const qz_student_input *in = &s->input[l->layer * s->inputs + l->input];
    if (!is_static(in)) return QZ_OK;
    if (!in->given && !is_learning(in) && isnan(in->range->low))
        return QZ_FAIL(QZ_ARG, "%s: no batch was seen, so its input has no static scale yet", l->module);
    *out = values_now(in);
    return QZ_OK;
}

qz_status qz_student_kv(const qz_student *s, int layer, float *key, float *value)
{
    const int64_t heads = qz_model_config_of(s->m)->kv_heads;
    if (!s->cache) return QZ_FAIL(QZ_ARG, "layer %d: its cache is not rounded", layer);
    const float *keys = cache_of(s, layer, QZ_POINT_KEY), *values = cache_of(s, layer, QZ_POINT_VALUE);
    if (isnan(keys[0])) return QZ_FAIL(QZ_ARG, "layer %d: no batch was seen, so its cache has no scales yet", layer);
    for (int64_t h = 0; h < heads; h++) {
        key[h] = cache_scale(s, keys[h]);
        value[h] = cache_scale(s, values[h]);
    }
    return QZ_OK;
}

/* ---- from an export ---- */

void qz_student_set_activation(qz_student *s, int i, qz_act_values values)
{
    const qz_student_linear *l = &s->linear[i];
    qz_student_input *in = &s->input[l->layer * s->inputs + l->input];
    assert(is_static(in));
    in->given = true;
    in->values = values;
}

void qz_student_set_kv(qz_student *s, int layer, const float *key, const float *value)
{
    const size_t bytes = (size_t)qz_model_config_of(s->m)->kv_heads * sizeof(float);
    s->cache_given = true;
    memcpy(cache_of(s, layer, QZ_POINT_KEY), key, bytes);
    memcpy(cache_of(s, layer, QZ_POINT_VALUE), value, bytes);
}
