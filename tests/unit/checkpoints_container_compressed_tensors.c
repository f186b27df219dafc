/* The compressed-tensors container as it is written: words and bytes by hand, config block, what a plan may ask. */
#include "base/log.h"
#include "checkpoints/ct_config.h"
#include "testing/container_case.h"

CONTAINER_SUITE(compressed_tensors, ct, "compressed-tensors")

static qz_export_linear linear(const char *module, qz_format format, int64_t rows, int64_t cols)
{
    return (qz_export_linear){
        .module = module,
        .n = 64,
        .k = 256,
        .quantized = true,
        .fused = -1,
        .scheme = {.format = format, .piece_rows = rows, .piece_cols = cols, .symmetric = true, .scale_type = QZ_BF16}};
}

static const qz_act_scheme token8 = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true},
                           static8 = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8},
                           token_fp8 = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_FP8_E4M3},
                           group_fp8 = {.mode = QZ_ACT_GROUP, .format = QZ_FORMAT_FP8_E4M3, .group = 128};

static qz_export_plan plan_of(const qz_export_linear *l, size_t count)
{
    return (qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_BF16};
}

static qz_status express(const qz_export_linear *l, size_t count)
{
    return case_express(ct, l, count);
}

/* ---- bytes ---- */

static qz_safetensors *written(const char *name, const qz_export_linear *l, const qz_qtensor *q,
                               const qz_act_values *act)
{
    const char *folder = fixture_folder(name);
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(ct->declare_linear(s, l));
    check_ok(qz_shards_begin(s));
    check_ok(ct->write_linear(s, l, q, act, arena));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, fixture_in(folder, "model.safetensors")));
    return st;
}

static const void *part(const qz_safetensors *st, const char *name, qz_dtype type, int ndim, int64_t a, int64_t b)
{
    const qz_stored *t = qz_safetensors_find(st, name);
    cr_assert(t && t->view.dtype == type && t->view.ndim == ndim && t->view.shape[0] == a, "%s", name);
    cr_assert(ndim == 1 || t->view.shape[1] == b, "%s", name);
    return t->view.data;
}

static qz_qtensor matrix(const qz_export_linear *l, uint8_t code)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l->scheme, l->n, l->k, arena));
    memset(q.codes, code, (size_t)(l->n * l->k));
    int64_t pieces = qz_scheme_scale_rows(&l->scheme, l->n) * qz_scheme_scale_cols(&l->scheme, l->k);
    for (int64_t i = 0; i < pieces; i++) q.scales[i] = (float)(i + 1);
    if (q.zeros) memset(q.zeros, 0, (size_t)pieces);
    return q;
}

Test(compressed_tensors, packed_words_as_in_the_specification)
{
    /* FORMATS.md 3.3: -8 -7 0 7 1 -1 3 -4 -> 0x4B79F810. */
    static const int8_t given[8] = {-8, -7, 0, 7, 1, -1, 3, -4};
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 1, 128);
    l.n = 10;
    l.scheme.symmetric = false;
    qz_qtensor q = matrix(&l, 0);
    for (int i = 0; i < 10 * 256; i++) q.codes[i] = (uint8_t)(given[i % 8] + 8);
    for (int n = 0; n < 10; n++) q.zeros[2 * n + 1] = (uint8_t)n; /* the second group of each row */
    qz_safetensors *st = written("m", &l, &q, NULL);
    const uint32_t *w = part(st, "m.weight_packed", QZ_I32, 2, 10, 32);
    const uint32_t *z = part(st, "m.weight_zero_point", QZ_I32, 2, 2, 2);
    const int64_t *shape = part(st, "m.weight_shape", QZ_I64, 1, 2, 0);
    const uint16_t *s = part(st, "m.weight_scale", QZ_BF16, 2, 10, 2);
    for (int i = 0; i < 320; i++) cr_assert(w[i] == 0x4B79F810u);
    cr_assert(z[0] == 0 && z[1] == 0x76543210u && z[2] == 0 && z[3] == 0x98u); /* 10 of them: two words, half empty */
    cr_assert(shape[0] == 10 && shape[1] == 256 && s[0] == 0x3F80 && s[1] == 0x4000);
    qz_safetensors_close(st);
}

Test(compressed_tensors, int8_and_its_input)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT8, 1, 0);
    l.activation = static8;
    l.scheme.scale_type = QZ_F32;
    qz_qtensor q = matrix(&l, 1);
    q.codes[0] = 255;
    qz_safetensors *st = written("m", &l, &q, &(qz_act_values){0.1f, -7});
    const int8_t *w = part(st, "m.weight", QZ_I8, 2, 64, 256), *z = part(st, "m.input_zero_point", QZ_I8, 1, 1, 0);
    const float *s = part(st, "m.weight_scale", QZ_F32, 2, 64, 1), *x = part(st, "m.input_scale", QZ_F32, 1, 1, 0);
    cr_assert(w[0] == 127 && w[1] == -127 && s[63] == 64 && *x == 0.1f && *z == -7);
    qz_safetensors_close(st);
    qz_shards *out;
    check_ok(qz_shards_new(&out, fixture_folder("n"), 0));
    check_ok(ct->declare_linear(out, &l));
    check_ok(qz_shards_begin(out));
    check_fails(QZ_NUMERIC, "the scale of its input is 0",
                ct->write_linear(out, &l, &q, &(qz_act_values){0, 0}, arena));
    qz_shards_free(out);
    l.activation.symmetric = true;
    st = written("o", &l, &q, &(qz_act_values){0.1f, 0});
    cr_assert(!qz_safetensors_find(st, "m.input_zero_point"));
    qz_safetensors_close(st);
}

Test(compressed_tensors, fp8_per_tensor_and_block)
{
    qz_export_linear l = linear("m", QZ_FORMAT_FP8_E4M3, 0, 0);
    l.activation = token_fp8;
    qz_qtensor q = matrix(&l, 0xB8);
    qz_safetensors *st = written("m", &l, &q, NULL);
    cr_assert(*(const uint8_t *)part(st, "m.weight", QZ_F8_E4M3, 2, 64, 256) == 0xB8);
    part(st, "m.weight_scale", QZ_BF16, 1, 1, 0);
    cr_assert(!qz_safetensors_find(st, "m.input_scale") && qz_safetensors_count(st) == 2);
    qz_safetensors_close(st);
    l = linear("m", QZ_FORMAT_FP8_E4M3, 128, 128);
    q = matrix(&l, 0);
    st = written("n", &l, &q, NULL);
    part(st, "m.weight_scale", QZ_BF16, 2, 1, 2);
    qz_safetensors_close(st);
}

Test(compressed_tensors, nothing_is_rounded_and_nothing_is_permuted)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 1, 128);
    qz_qtensor q = matrix(&l, 8);
    int32_t order[256] = {0};
    q.permutation = order;
    check_fails(QZ_UNSUPPORTED, "no permuted groups", ct->write_linear(NULL, &l, &q, NULL, arena));
    q.permutation = NULL;
    q.scales[5] = 0.1f;
    qz_shards *s;
    check_ok(qz_shards_new(&s, fixture_folder("m"), 0));
    check_ok(ct->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_fails(QZ_NUMERIC, "m.weight_scale: 0.100000001 at element 5 is not a number of BF16",
                ct->write_linear(s, &l, &q, NULL, arena));
    qz_shards_free(s);
}

/* ---- the config block ---- */

static const char *block(const qz_export_linear *l, size_t count)
{
    char *text;
    qz_export_plan plan = plan_of(l, count);
    check_ok(ct->config_block(&text, &plan, arena));
    return text;
}

Test(compressed_tensors, one_kind_is_one_group)
{
    qz_export_linear l[3] = {linear("a", QZ_FORMAT_INT4, 1, 128), linear("b", QZ_FORMAT_INT4, 1, 128),
                             linear("c", QZ_FORMAT_INT4, 1, 128)};
    l[2].quantized = false;
    const char *text = block(l, 3);
    case_has(text, "\"quant_method\": \"compressed-tensors\"");
    case_has(text, "\"format\": \"pack-quantized\"");
    case_has(text, "\"quantization_status\": \"compressed\"");
    case_has(text, "\"Linear\"");
    case_has(text, "\"strategy\": \"group\"");
    case_has(text, "\"group_size\": 128");
    case_has(text, "\"input_activations\": null");
    case_has(text, "\"kv_cache_scheme\": null");
    case_has(text, "\"c\"");
    case_has(text, "\"lm_head\"");
    cr_assert(strstr(text, "group_1") == NULL && strstr(text, "\"a\"") == NULL);
    l[0] = linear("a", QZ_FORMAT_INT8, 1, 0);
    l[0].activation = static8;
    text = block(l, 1);
    case_has(text, "\"format\": \"int-quantized\"");
    case_has(text, "\"strategy\": \"channel\"");
    case_has(text, "\"strategy\": \"tensor\"");
    case_has(text, "\"symmetric\": false");
    l[0] = linear("lm_head", QZ_FORMAT_INT4, 1, 128);
    l[0].layer = -1;
    text = block(l, 1); /* servers give the head another class, so it is a target of its own */
    case_has(text, "\"ignore\": []");
    case_has(strstr(text, "Linear"), "\"lm_head\"");
}

static void count(void *context, const char *message)
{
    (void)message;
    ++*(int *)context;
}

/* Not every model of vLLM tells its embeddings their name, so the class is the target. */
Test(compressed_tensors, embeddings_go_by_their_class)
{
    int warnings = 0;
    qz_export_linear l[2] = {linear("a", QZ_FORMAT_INT4, 1, 128), linear("model.embed_tokens", QZ_FORMAT_INT4, 1, 128)};
    l[1].layer = -1;
    l[1].embedding = true;
    qz_log_to(count, &warnings);
    check_ok(express(l, 2));
    qz_log_to(NULL, NULL);
    cr_assert(warnings == 1);
    const char *text = block(l, 2);
    case_has(text, "\"Embedding\"");
    case_has(text, "group_1");
    cr_assert(strstr(text, "embed_tokens") == NULL);
    qz_json *config;
    qz_ct_group group;
    check_ok(qz_json_parse(&config, text, strlen(text)));
    check_ok(qz_ct_config_find(&group, qz_json_root(config), "model.embed_tokens"));
    cr_assert(group.weights.bits == 4 && group.weights.group == 128);
    qz_json_close(config);
    l[1].scheme.format = QZ_FORMAT_INT3;
    check_fails(QZ_UNSUPPORTED, "model.embed_tokens: found int3; vLLM takes embeddings of int2, int4 and int8",
                express(l, 2));
    l[1] = linear("model.embed_tokens", QZ_FORMAT_INT4, 1, 128);
    l[1].scheme.symmetric = false;
    l[1].embedding = true;
    check_fails(QZ_UNSUPPORTED, "found int4 with zeros", express(l, 2));
}

Test(compressed_tensors, several_kinds_are_named)
{
    qz_export_linear l[4] = {linear("a", QZ_FORMAT_INT4, 1, 128), linear("b", QZ_FORMAT_FP8_E4M3, 128, 128),
                             linear("c", QZ_FORMAT_INT4, 1, 128), linear("d", QZ_FORMAT_INT4, 1, 128)};
    l[1].activation = group_fp8;
    l[3].activation = token8;
    check_ok(express(l, 4));
    const char *text = block(l, 4);
    case_has(text, "\"format\": \"mixed-precision\"");
    case_has(text, "\"format\": \"float-quantized\"");
    case_has(text, "\"block_structure\": [");
    case_has(text, "\"group_2\"");
    cr_assert(strstr(text, "\"Linear\"") == NULL);
    text = block(l + 2, 2); /* one format, but readers would take the second for int-quantized */
    case_has(text, "\"group_1\"");
    cr_assert(strstr(strstr(text, "\"format\"") + 1, "\"format\": \"pack-quantized\"") != NULL);
}

/* ---- plans ---- */

Test(compressed_tensors, what_it_expresses)
{
    qz_export_linear good[] = {linear("m", QZ_FORMAT_INT4, 1, 32),       linear("m", QZ_FORMAT_INT4, 1, 0),
                               linear("m", QZ_FORMAT_INT8, 1, 128),      linear("m", QZ_FORMAT_INT4, 1, 128),
                               linear("m", QZ_FORMAT_INT8, 1, 0),        linear("m", QZ_FORMAT_INT8, 0, 0),
                               linear("m", QZ_FORMAT_FP8_E4M3, 0, 0),    linear("m", QZ_FORMAT_FP8_E4M3, 1, 0),
                               linear("m", QZ_FORMAT_FP8_E4M3, 128, 128)};
    good[3].activation = good[4].activation = token8;
    good[5].activation = static8;
    good[6].activation = (qz_act_scheme){.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_FP8_E4M3};
    good[7].activation = token_fp8;
    good[8].activation = group_fp8;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) check_ok(express(&good[i], 1));
}

static void refused(const qz_export_linear *l, const char *why)
{
    check_fails(QZ_UNSUPPORTED, why, express(l, 1));
}

Test(compressed_tensors, what_it_refuses)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 0, 0);
    refused(&l, "packed weights need a scale for each output");
    l = linear("m", QZ_FORMAT_INT4, 1, 96);
    refused(&l, "256 inputs do not divide into groups of 96");
    l = linear("m", QZ_FORMAT_INT4, 1, 0);
    l.k = 240;
    refused(&l, "found 240 inputs; a multiple of 32");
    l = linear("m", QZ_FORMAT_INT4, 1, 128);
    l.scheme.scale_type = QZ_F32;
    refused(&l, "readers round to the model's type, BF16");
    l = linear("m", QZ_FORMAT_INT4, 1, 128);
    l.ordered = true;
    refused(&l, "use static groups");
    l = linear("m", QZ_FORMAT_INT3, 1, 128);
    l.activation = token8;
    refused(&l, "packed weights are int4 symmetric");
    l = linear("m", QZ_FORMAT_INT8, 1, 128);
    l.activation = token8;
    refused(&l, "must be symmetric, with a scale for each output or one for all");
    l = linear("m", QZ_FORMAT_INT8, 1, 0);
    l.activation = token_fp8;
    refused(&l, "int8 weights go with int8 inputs");
    l = linear("m", QZ_FORMAT_FP8_E5M2, 1, 0);
    refused(&l, "found fp8_e5m2");
    l = linear("m", QZ_FORMAT_FP8_E4M3, 1, 64);
    refused(&l, "fp8 weights have a scale for");
    l = linear("m", QZ_FORMAT_FP8_E4M3, 1, 0);
    l.activation = token8;
    refused(&l, "fp8 weights go with fp8_e4m3 inputs, found int8");
    l.activation = group_fp8;
    refused(&l, "go together");
    l = linear("m", QZ_FORMAT_FP8_E4M3, 128, 128);
    l.activation = token_fp8;
    refused(&l, "go together");
    l.quantized = false;
    refused(&l, "no linear is quantized, nor the key-value cache");
}

Test(compressed_tensors, the_cache_alone_is_enough)
{
    static const char *const attention[] = {"a"};
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 1, 128);
    qz_export_plan plan = plan_of(&l, 1);
    char *text;
    l.quantized = false;
    plan.kv = (qz_kv_scheme){.wanted = true, .format = QZ_FORMAT_FP8_E4M3, .per_head = true};
    check_fails(QZ_UNSUPPORTED, "names no attention modules", ct->can_express(&plan));
    plan.attention = attention;
    plan.layers = 1;
    plan.kv_heads = 2;
    check_ok(ct->can_express(&plan));
    check_ok(ct->config_block(&text, &plan, arena));
    case_has(text, "\"format\": \"dense\"");
    case_has(text, "\"config_groups\": {}");
    case_has(text, "\"strategy\": \"attn_head\"");
    case_has(text, "\"type\": \"float\"");
    plan.kv.format = QZ_FORMAT_INT8;
    check_ok(ct->can_express(&plan));
    check_ok(ct->config_block(&text, &plan, arena));
    case_has(text, "\"num_bits\": 8");
    case_has(text, "\"type\": \"int\"");
    case_has(text, "\"symmetric\": true");
    plan.kv.format = QZ_FORMAT_FP8_E5M2;
    check_fails(QZ_UNSUPPORTED, "the key-value cache is to be fp8_e5m2", ct->can_express(&plan));
}

Test(compressed_tensors, fused_linears_round_their_input_alike)
{
    qz_export_linear l[2] = {linear("q", QZ_FORMAT_INT8, 1, 0), linear("k", QZ_FORMAT_INT8, 1, 0)};
    l[0].fused = l[1].fused = 0;
    l[0].activation = l[1].activation = token8;
    check_ok(express(l, 2));
    l[1].activation = static8;
    check_fails(QZ_UNSUPPORTED, "inputs of q and k are rounded differently", express(l, 2));
}

Test(compressed_tensors, scales_have_the_type_that_readers_keep)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 1, 128);
    ct->settle(&l, QZ_F16);
    cr_assert(l.scheme.scale_type == QZ_F16 && l.scheme.zero_rule == QZ_ROUND_SUM);
    l = linear("m", QZ_FORMAT_FP8_E4M3, 1, 0);
    ct->settle(&l, QZ_F16);
    cr_assert(l.scheme.scale_type == QZ_F32 && l.scheme.zero_rule == QZ_ROUND_VALUE);
    ct->settle(&l, QZ_BF16);
    cr_assert(l.scheme.scale_type == QZ_BF16);
    l = linear("m", QZ_FORMAT_INT8, 1, 0);
    l.activation = token8;
    ct->settle(&l, QZ_F16);
    cr_assert(l.scheme.scale_type == QZ_F32);
}

Test(compressed_tensors, what_not_every_reader_takes_is_a_warning)
{
    int warnings = 0;
    qz_log_to(count, &warnings);
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 1, 128);
    check_ok(express(&l, 1));
    cr_assert(warnings == 0);
    l.scheme.format = QZ_FORMAT_INT3;
    check_ok(express(&l, 1));
    cr_assert(warnings == 1);
    l = linear("m", QZ_FORMAT_FP8_E4M3, 128, 128);
    check_ok(express(&l, 1));
    cr_assert(warnings == 1);
    l.k = 200;
    check_ok(express(&l, 1));
    cr_assert(warnings == 2);
    qz_log_to(NULL, NULL);
}
