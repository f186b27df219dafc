/* The tap that rounds what a server rounds: against a tap of the test's own that does it one value after another. */
#include <math.h>

#include "eval/eval.h"
#include "model_folder.h"
#include "numeric/actgrid.h"

enum { TOKENS = 12, HEADS = 2 };

typedef struct by_hand {
    const qz_eval_layer_rounding *r;
    int inputs, keys, values; /* that were seen */
} by_hand;

static void round_row(float *x, int64_t count, const qz_eval_input_rounding *how)
{
    float lo, hi;
    qz_range_of(&lo, &hi, x, count);
    const bool fixed = how->scheme.mode == QZ_ACT_TENSOR;
    const qz_act_values v = fixed ? how->values : qz_act_values_of(lo, hi, how->scheme);
    for (int64_t i = 0; i < count; i++) x[i] = qz_act_round(x[i], v, how->scheme.format);
}

static qz_status hand_tap(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    by_hand *h = context;
    const int64_t rows = x->shape[0], cols = qz_tensor_count(x) / rows;
    float *data = qz_f32(x);
    h->inputs += point == QZ_POINT_INPUT, h->keys += point == QZ_POINT_KEY, h->values += point == QZ_POINT_VALUE;
    for (int64_t t = 0; t < rows; t++) {
        const qz_eval_input_rounding *how = &h->r->input[input];
        if (point == QZ_POINT_INPUT && how->scheme.mode != QZ_ACT_NONE) round_row(data + t * cols, cols, how);
        for (int64_t i = 0; point != QZ_POINT_INPUT && i < cols; i++) {
            const float scale = (point == QZ_POINT_KEY ? h->r->key : h->r->value)[i / (cols / HEADS)];
            data[t * cols + i] = qz_act_round(data[t * cols + i], (qz_act_values){scale, 0}, h->r->kv.format);
        }
    }
    return QZ_OK;
}

/* The residual stream after layer 0. */
static float *after_layer(opened *o, qz_tap tap)
{
    const int64_t hidden = qz_model_config_of(o->model)->hidden;
    float *out = qz_arena_array(o->arena, float, (size_t)(TOKENS * hidden));
    int32_t ids[TOKENS];
    qz_layer layer;
    qz_tensor residual = qz_tensor_2d(out, QZ_F32, TOKENS, hidden);
    for (int i = 0; i < TOKENS; i++) ids[i] = i * 11 % 160;
    check_ok(qz_model_embed(o->model, ids, &residual));
    check_ok(qz_model_layer(o->model, 0, &layer, o->arena));
    layer.tap = tap;
    check_ok(qz_layer_forward(o->model, &layer, (qz_batch){1, TOKENS}, &residual, o->arena));
    return out;
}

static const qz_eval_input_rounding inputs[QZ_STAGES] = {
    {.scheme = {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, true, 127.5f}},
    {.scheme = {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, false, 127}, .values = {0.01f, -9}},
    {.scheme = {QZ_ACT_NONE, QZ_FORMAT_INT8, 0, true, 127}},
    {.scheme = {QZ_ACT_TOKEN, QZ_FORMAT_FP8_E4M3, 0, true, 0}},
};
static const float key_scale[HEADS] = {0.02f, 0.05f}, value_scale[HEADS] = {0.01f, 0.003f};

Test(rounding, tap_does_what_each_value_needs)
{
    opened o = open_model("tests/golden/models/llama");
    const qz_eval_layer_rounding r = {.backend = qz_model_backend(o.model),
                                      .inputs = QZ_STAGES,
                                      .input = inputs,
                                      .kv = {true, QZ_FORMAT_INT8, true},
                                      .key = key_scale,
                                      .value = value_scale};
    by_hand hand = {.r = &r};
    const float *ours = after_layer(&o, qz_eval_layer_tap(&r)), *theirs = after_layer(&o, (qz_tap){hand_tap, &hand});
    const float *plain = after_layer(&o, (qz_tap){NULL, NULL});
    const size_t count = TOKENS * (size_t)qz_model_config_of(o.model)->hidden;
    cr_assert(hand.inputs == 4 && hand.keys == 1 && hand.values == 1);
    cr_assert_arr_eq(ours, theirs, count * sizeof *ours);
    cr_assert(memcmp(ours, plain, count * sizeof *ours) != 0, "rounding changes something");
    close_model(&o);
}

Test(rounding, nothing_to_round_is_no_tap)
{
    const qz_eval_input_rounding none[2] = {{.scheme = {.mode = QZ_ACT_NONE}}};
    qz_eval_layer_rounding layers[2] = {{.inputs = 2, .input = none}, {0}};
    qz_eval_rounding all = {.layers = 2, .layer = layers};
    cr_assert(qz_eval_layer_tap(&layers[0]).fn == NULL && qz_eval_rounding_tap(&all).fn == NULL);
    layers[1].kv.wanted = true;
    cr_assert(qz_eval_layer_tap(&layers[1]).fn && qz_eval_rounding_tap(&all).fn);
}

Test(rounding, a_plain_folder_rounds_nothing)
{
    opened o = open_model("tests/golden/models/llama");
    qz_eval_rounding r;
    char text[200];
    check_ok(qz_eval_rounding_read(&r, o.model, o.arena));
    cr_assert(r.layers == 2 && r.layer[1].inputs == QZ_STAGES && !r.layer[1].kv.wanted);
    cr_assert(qz_eval_rounding_tap(&r).fn == NULL);
    qz_eval_rounding_describe(&r, text, sizeof text);
    cr_assert_str_eq(text, "inputs not rounded");
    close_model(&o);
}

Test(rounding, is_described)
{
    char text[200];
    qz_eval_layer_rounding layers[2] = {
        {.inputs = QZ_STAGES, .input = inputs},
        {.inputs = QZ_STAGES, .input = inputs, .kv = {true, QZ_FORMAT_FP8_E4M3, false}}};
    const qz_eval_rounding all = {.layers = 2, .layer = layers};
    qz_eval_rounding_describe(&all, text, sizeof text);
    cr_assert_str_eq(text, "6 of 8 inputs rounded (int8 per token); cache fp8_e4m3 per tensor");
}

Test(rounding, too_few_inputs_are_told)
{
    opened o = open_model("tests/golden/models/llama");
    const qz_eval_layer_rounding r = {.backend = qz_model_backend(o.model), .inputs = 1, .input = inputs};
    const int64_t hidden = qz_model_config_of(o.model)->hidden;
    float *x = qz_arena_calloc(o.arena, (size_t)(TOKENS * hidden) * sizeof *x);
    const qz_tensor residual = qz_tensor_2d(x, QZ_F32, TOKENS, hidden);
    qz_layer layer;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    layer.tap = qz_eval_layer_tap(&r);
    check_fails(QZ_ARG, "input 1 is to be rounded",
                qz_layer_forward(o.model, &layer, (qz_batch){1, TOKENS}, &residual, o.arena));
    close_model(&o);
}
