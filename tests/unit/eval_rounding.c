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

/* ---- from a checkpoint ---- */

static const char static_config[] =
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\", \"quantization_status\": \"compressed\","
    " \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, \"type\": \"int\","
    " \"symmetric\": true, \"strategy\": \"channel\", \"dynamic\": false}, \"input_activations\": {\"num_bits\": 8,"
    " \"type\": \"int\", \"symmetric\": true, \"strategy\": \"tensor\", \"dynamic\": false}}},"
    " \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, \"strategy\": \"tensor\","
    " \"dynamic\": false}, \"ignore\": [\"lm_head\"]}";

/* Input scales of all linears, and of layer 1's v_proj. */
typedef struct folder_scales {
    float input, odd;
} folder_scales;

static bool is_linear(const char *name)
{
    return strstr(name, "_proj.weight") != NULL;
}

static void put_linear(qz_shards *s, const qz_stored *t, const folder_scales *scales, bool declare)
{
    char module[200], name[260];
    const int64_t n = t->view.shape[0], k = t->view.shape[1];
    const float *w = t->view.data;
    snprintf(module, sizeof module, "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
    int8_t *codes = malloc((size_t)(n * k));
    float *scale = malloc((size_t)n * sizeof *scale);
    for (int64_t i = 0; i < n; i++) {
        float lo, hi;
        qz_range_of(&lo, &hi, w + i * k, k);
        scale[i] = fmaxf(-lo, hi) / 127.5f;
        for (int64_t j = 0; j < k; j++)
            codes[i * k + j] = (int8_t)fmaxf(-128, fminf(127, rintf(w[i * k + j] / scale[i])));
    }
    const float input = strstr(module, "layers.1.self_attn.v_proj") ? scales->odd : scales->input;
    const struct {
        const char *suffix;
        qz_dtype type;
        int ndim;
        int64_t shape[2];
        const void *data;
        size_t bytes;
    } part[] = {{"weight", QZ_I8, 2, {n, k}, codes, (size_t)(n * k)},
                {"weight_scale", QZ_F32, 2, {n, 1}, scale, (size_t)n * 4},
                {"input_scale", QZ_F32, 1, {1, 0}, &input, 4}};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%s", module, part[i].suffix);
        if (declare)
            check_ok(qz_shards_declare(s, module, name, part[i].type, part[i].ndim, part[i].shape));
        else
            check_ok(qz_shards_write(s, name, part[i].data, part[i].bytes));
    }
    free(codes);
    free(scale);
}

static void put_all(qz_shards *s, const qz_ckpt *from, const folder_scales *scales, bool declare)
{
    static const float cache = 0.02f;
    for (size_t i = 0; i < qz_ckpt_count(from); i++) {
        const qz_stored *t = qz_ckpt_at(from, i);
        if (is_linear(t->name))
            put_linear(s, t, scales, declare);
        else if (declare)
            check_ok(qz_shards_declare(s, t->name, t->name, t->view.dtype, t->view.ndim, t->view.shape));
        else
            check_ok(qz_shards_write(s, t->name, t->view.data, t->bytes));
    }
    for (int i = 0; i < 4; i++) {
        char name[100];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%c_scale", i / 2, i % 2 ? 'v' : 'k');
        if (declare)
            check_ok(qz_shards_declare(s, name, name, QZ_F32, 1, (int64_t[]){1}));
        else
            check_ok(qz_shards_write(s, name, &cache, sizeof cache));
    }
}

/* The golden llama as W8A8 with static inputs and an fp8 cache. */
static const char *static_folder(const char *label, folder_scales scales)
{
    const char *folder = test_path(label);
    char path[600], *text;
    qz_ckpt *from;
    qz_shards *s;
    qz_arena *arena;
    cr_assert(mkdir(folder, 0700) == 0);
    check_ok(qz_arena_new(&arena, "folder"));
    check_ok(qz_ckpt_open(&from, "tests/golden/models/llama"));
    check_ok(qz_json_text_set(&text, qz_ckpt_config_text(from), "quantization_config", static_config, arena));
    snprintf(path, sizeof path, "%s/config.json", folder);
    test_write_file(path, text, strlen(text));
    check_ok(qz_shards_new(&s, folder, 0));
    put_all(s, from, &scales, true);
    check_ok(qz_shards_begin(s));
    put_all(s, from, &scales, false);
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_ckpt_close(from);
    qz_arena_free(arena);
    return folder;
}

static double perplexity_of(const char *folder, qz_tap tap)
{
    int32_t ids[3 * 16];
    qz_perplexity p;
    opened o = open_model(folder);
    const qz_windows w = {.ids = ids, .count = 3, .length = 16};
    for (int i = 0; i < 48; i++) ids[i] = i * 37 % 160;
    if (tap.fn) qz_model_set_tap(o.model, tap);
    check_ok(qz_eval_perplexity(&p, o.model, &w, NULL));
    close_model(&o);
    return p.perplexity;
}

Test(rounding, is_read_from_a_checkpoint_and_done_by_evaluation)
{
    const char *fine = static_folder("fine", (folder_scales){0.02f, 0.02f});
    const char *coarse = static_folder("coarse", (folder_scales){0.5f, 0.5f});
    opened o = open_model(fine);
    qz_eval_rounding r;
    char text[200];
    check_ok(qz_eval_rounding_read(&r, o.model, o.arena));
    qz_eval_rounding_describe(&r, text, sizeof text);
    cr_assert_str_eq(text, "8 of 8 inputs rounded (int8 static); cache fp8_e4m3 per tensor");
    for (int i = 0; i < 8; i++) {
        const qz_eval_input_rounding *in = &r.layer[i / 4].input[i % 4];
        cr_assert(in->scheme.mode == QZ_ACT_TENSOR && in->values.scale == 0.02f && in->values.zero == 0);
    }
    for (int h = 0; h < HEADS; h++) cr_assert(r.layer[1].key[h] == 0.02f && r.layer[1].value[h] == 0.02f);
    const double with_fine = perplexity_of(fine, (qz_tap){NULL, NULL}),
                 with_coarse = perplexity_of(coarse, (qz_tap){NULL, NULL});
    cr_assert(with_fine != with_coarse, "%g", with_fine);
    /* the checkpoint decides, not a tap that was left on the model */
    by_hand hand = {.r = &r.layer[0]};
    cr_assert(perplexity_of(fine, (qz_tap){hand_tap, &hand}) == with_fine && hand.inputs == 0);
    close_model(&o);
}

Test(rounding, linears_of_one_input_must_agree)
{
    opened o = open_model(static_folder("odd", (folder_scales){0.02f, 0.03f}));
    qz_eval_rounding r;
    check_fails(QZ_FORMAT, "layers.1.self_attn.q_proj\" and \"model.layers.1.self_attn.v_proj\" read the same input",
                qz_eval_rounding_read(&r, o.model, o.arena));
    check_fails(QZ_FORMAT, "scale 0.0299999993", qz_eval_rounding_read(&r, o.model, o.arena));
    close_model(&o);
}
