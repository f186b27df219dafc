/* The fp8 container: bytes by hand, config block, what a folder may say, what a plan may ask. */
#include <math.h>

#include "testing/container_case.h"

CONTAINER_SUITE(fp8, fp8, "fp8")

static const qz_scheme per_tensor = {.format = QZ_FORMAT_FP8_E4M3, .symmetric = true, .scale_type = QZ_F32};
static const qz_act_scheme dynamic = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_FP8_E4M3, .symmetric = true},
                           fixed = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_FP8_E4M3, .symmetric = true},
                           grouped = {
                               .mode = QZ_ACT_GROUP, .format = QZ_FORMAT_FP8_E4M3, .group = 128, .symmetric = true};

static qz_export_linear linear(const char *module, int64_t n, int64_t k, qz_act_scheme act)
{
    qz_export_linear l = case_linear(module, n, k, per_tensor);
    l.activation = act;
    return l;
}

static qz_export_linear blocks(const char *module, int64_t n, int64_t k)
{
    qz_export_linear l = linear(module, n, k, grouped);
    l.scheme.piece_rows = l.scheme.piece_cols = 128;
    return l;
}

static qz_qtensor matrix(const qz_export_linear *l)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l->scheme, l->n, l->k, arena));
    for (int64_t i = 0; i < l->n * l->k; i++) q.codes[i] = (uint8_t)(i % 0x7f + (i % 2) * 0x80);
    for (int64_t i = 0; i < qz_scheme_pieces(&l->scheme, l->n, l->k); i++) q.scales[i] = 0.1f * (float)(i + 1);
    return q;
}

/* ---- bytes ---- */

Test(fp8, one_scale_and_a_static_input)
{
    const qz_export_linear l = linear("m", 2, 3, fixed);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", fp8, &l, &q, &(qz_act_values){.scale = 0.25f}, arena);
    const qz_stored *w = qz_ckpt_find(c, "m.weight"), *s = qz_ckpt_find(c, "m.weight_scale"),
                    *x = qz_ckpt_find(c, "m.input_scale");
    cr_assert(qz_ckpt_count(c) == 3 && w->view.dtype == QZ_F8_E4M3 && memcmp(w->view.data, q.codes, 6) == 0);
    cr_assert(s->view.dtype == QZ_F32 && s->view.ndim == 1 && *(float *)s->view.data == 0.1f);
    cr_assert(x->view.dtype == QZ_F32 && x->view.ndim == 1 && *(float *)x->view.data == 0.25f);
    qz_act_scheme act;
    qz_act_values values;
    check_ok(qz_ckpt_read_activation(c, "m", &act, &values));
    cr_assert(act.mode == QZ_ACT_TENSOR && act.format == QZ_FORMAT_FP8_E4M3 && values.scale == 0.25f);
    cr_assert(qz_ckpt_is_part_of(c, "m.input_scale", "m") && !qz_ckpt_is_part_of(c, "m.k_scale", "m"));
    float out[6];
    check_ok(qz_ckpt_read_weight(c, "m", 2, 3, out, arena));
    cr_assert(out[0] == 0 && out[1] == -0x1p-9f * 0.1f); /* codes 0x00 and 0x81 */
    qz_ckpt_close(c);
}

Test(fp8, blocks_have_tails)
{
    const qz_export_linear l = blocks("m", 130, 200);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", fp8, &l, &q, NULL, arena);
    const qz_stored *s = qz_ckpt_find(c, "m.weight_scale_inv");
    cr_assert(qz_ckpt_count(c) == 2 && s->view.shape[0] == 2 && s->view.shape[1] == 2);
    qz_act_scheme act;
    qz_act_values values;
    check_ok(qz_ckpt_read_activation(c, "m", &act, &values));
    cr_assert(act.mode == QZ_ACT_GROUP && act.group == 128);
    qz_qtensor back;
    check_ok(qz_ckpt_read_qtensor(c, "m", 130, 200, &back, arena));
    check_ok(qz_qtensor_compare(&q, &back));
    qz_ckpt_close(c);
}

Test(fp8, what_cannot_be_written_is_told)
{
    qz_status status;
    qz_export_linear l = linear("m", 2, 3, fixed), wide = linear("m", 2, 4, dynamic);
    qz_qtensor q = matrix(&l);
    case_write(&status, "a", fp8, &l, &q, NULL, arena);
    check_fails(QZ_ARG, "a static scale of the inputs is missing", status);
    case_write(&status, "b", fp8, &l, &q, &(qz_act_values){.scale = NAN}, arena);
    check_fails(QZ_NUMERIC, "m.input_scale", status);
    q.scales[0] = INFINITY;
    case_write(&status, "c", fp8, &l, &q, &(qz_act_values){.scale = 1}, arena);
    check_fails(QZ_NUMERIC, "m.weight_scale", status);
    check_fails(QZ_SHAPE, "(2, 3) is not the declared (2, 4)", fp8->write_linear(NULL, &wide, &q, NULL, arena));
    q.permutation = (int32_t[]){0, 0, 0};
    check_fails(QZ_UNSUPPORTED, "order", fp8->write_linear(NULL, &l, &q, NULL, arena));
}

/* ---- cache ---- */

static void write_cache(const char *folder, bool key, bool value, const char *names)
{
    char header[600], k[40], v[40];
    const float data[] = {0.5f, 0.75f};
    snprintf(k, sizeof k, *names ? "k_proj.k_scale" : "k_scale");
    snprintf(v, sizeof v, *names ? "v_proj.v_scale" : "v_scale");
    snprintf(header, sizeof header, "{");
    if (key)
        snprintf(header + 1, sizeof header - 1, "\"a.%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}", k);
    const int at = key ? 4 : 0;
    if (value)
        snprintf(header + strlen(header), 300, "%s\"a.%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                 key ? "," : "", v, at, at + 4);
    strcat(header, "}");
    fixture_file(fixture_in(folder, "model.safetensors"), header, key ? data : data + 1, (size_t)(4 * (key + value)));
    fixture_text(folder, "config.json",
                 "{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}}");
}

static void check_cache(const char *name, bool has_key, bool has_value, const char *names, float key, float value)
{
    const char *folder = qz_arena_strdup(arena, fixture_folder(name));
    write_cache(folder, has_key, has_value, names);
    qz_ckpt *c;
    qz_kv_scheme s;
    float k[3] = {0}, v[3] = {0};
    check_ok(qz_ckpt_open(&c, folder));
    check_ok(qz_ckpt_read_kv(c, "a", 3, &s, k, v));
    cr_assert(s.wanted == (has_key || has_value));
    for (int h = 0; h < 3; h++) cr_assert(k[h] == key && v[h] == value, "%s", name);
    if (s.wanted) cr_assert(s.format == QZ_FORMAT_FP8_E4M3 && !s.per_head);
    qz_ckpt_close(c);
}

Test(fp8, scales_of_the_cache)
{
    check_cache("both", true, true, "", 0.5f, 0.75f);
    check_cache("older", true, true, "proj", 0.5f, 0.75f);
    check_cache("key", true, false, "", 0.5f, 0.5f);
    check_cache("value", false, true, "", 0.75f, 0.75f);
}

/* ---- config ---- */

Test(fp8, config_block)
{
    qz_export_linear l[2] = {linear("model.layers.0.a", 8, 8, fixed), linear("model.layers.0.b", 8, 8, fixed)};
    l[1].quantized = false;
    const char *text = case_block(fp8, l, 2, arena);
    case_has(text, "\"quant_method\": \"fp8\"");
    case_has(text, "\"activation_scheme\": \"static\"");
    case_has(text, "\"ignored_layers\": [");
    case_has(text, "\"model.layers.0.b\"");
    case_has(text, "\"lm_head\"");
    cr_assert(!strstr(text, "weight_block_size") && !strstr(text, "layers.0.a"), "%s", text);
    l[0] = blocks("model.layers.0.a", 8, 8);
    text = case_block(fp8, l, 2, arena);
    case_has(text, "\"activation_scheme\": \"dynamic\"");
    case_has(text, "\"weight_block_size\": [128, 128]");
    case_has(text, "\"modules_to_not_convert\"");
}

Test(fp8, reads_the_scheme)
{
    qz_scheme s;
    check_ok(case_scheme(fp8, "\"activation_scheme\":\"static\"", &s));
    cr_assert(s.format == QZ_FORMAT_FP8_E4M3 && s.piece_rows == 0 && s.piece_cols == 0);
    check_ok(case_scheme(fp8, "\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,64],\"fmt\":\"e4m3\"", &s));
    cr_assert(s.piece_rows == 128 && s.piece_cols == 64);
    check_fails(QZ_FORMAT, "activation_scheme", case_scheme(fp8, "", &s));
    check_fails(QZ_FORMAT, "found \"half\"", case_scheme(fp8, "\"activation_scheme\":\"half\"", &s));
    check_fails(QZ_FORMAT, "weight_block_size",
                case_scheme(fp8, "\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128]", &s));
    check_fails(QZ_FORMAT, "weight_block_size[1]",
                case_scheme(fp8, "\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,0]", &s));
    check_fails(QZ_UNSUPPORTED, "static",
                case_scheme(fp8, "\"activation_scheme\":\"static\",\"weight_block_size\":[128,128]", &s));
    check_fails(QZ_UNSUPPORTED, "e5m2", case_scheme(fp8, "\"activation_scheme\":\"dynamic\",\"fmt\":\"e5m2\"", &s));
}

/* ---- folders that do not fit ---- */

#define WEIGHT(type) "\"m.weight\":{\"dtype\":\"" type "\",\"shape\":[2,2],\"data_offsets\":[0,4]}"
#define SCALE(shape) ",\"m.weight_scale\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[4,8]}"

static qz_status read_back(const char *name, const char *header, const uint8_t data[8])
{
    const char *folder = fixture_folder(name);
    fixture_text(folder, "config.json",
                 "{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\"}}");
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, 8);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    float out[4];
    qz_status status = qz_ckpt_read_weight(c, "m", 2, 2, out, arena);
    if (status == QZ_OK) {
        qz_act_scheme act;
        qz_act_values values;
        cr_assert(out[0] == 0.5f && out[3] == -1);
        check_fails(QZ_FORMAT, "\"m.input_scale\" is missing", qz_ckpt_read_activation(c, "m", &act, &values));
    }
    qz_ckpt_close(c);
    return status;
}

Test(fp8, reading_checks_every_part)
{
    uint8_t data[8] = {0x38, 0, 0, 0xc0, 0, 0, 0, 0x3f}; /* 1, 0, 0, -2 times 0.5 */
    check_ok(read_back("good", "{" WEIGHT("F8_E4M3") SCALE("[]") "}", data));
    check_ok(read_back("one", "{" WEIGHT("F8_E4M3") SCALE("[1]") "}", data));
    check_fails(QZ_SHAPE, "\"m.weight_scale\" has the shape [1, 1]",
                read_back("a", "{" WEIGHT("F8_E4M3") SCALE("[1,1]") "}", data));
    check_fails(QZ_FORMAT, "type F8_E5M2; F8_E4M3 is expected",
                read_back("b", "{" WEIGHT("F8_E5M2") SCALE("[1]") "}", data));
    data[2] = 0xff;
    check_fails(QZ_NUMERIC, "\"m.weight\" holds NaN at [1, 0]",
                read_back("c", "{" WEIGHT("F8_E4M3") SCALE("[1]") "}", data));
    data[2] = 0;
    data[6] = 0xc0;
    data[7] = 0x7f;
    check_fails(QZ_NUMERIC, "\"m.weight_scale\" holds NaN",
                read_back("d", "{" WEIGHT("F8_E4M3") SCALE("[1]") "}", data));
}

/* ---- plans ---- */

Test(fp8, expresses_tensors_and_blocks)
{
    qz_export_linear l[2] = {linear("a", 64, 96, dynamic), linear("b", 64, 96, dynamic)};
    check_ok(case_express(fp8, l, 2));
    l[0].activation = l[1].activation = fixed;
    check_ok(case_express(fp8, l, 2));
    l[0] = blocks("a", 64, 96);
    check_fails(QZ_UNSUPPORTED, "b differs from a", case_express(fp8, l, 2));
    l[1].quantized = false;
    check_ok(case_express(fp8, l, 2));
    qz_export_plan plan = {.linear = l, .linears = 2, .plain_type = QZ_BF16};
    plan.kv = (qz_kv_scheme){.wanted = true, .format = QZ_FORMAT_FP8_E4M3};
    check_ok(fp8->can_express(&plan));
    plan.kv.per_head = true;
    check_fails(QZ_UNSUPPORTED, "per head", fp8->can_express(&plan));
    plan.kv = (qz_kv_scheme){.wanted = true, .format = QZ_FORMAT_INT8};
    check_fails(QZ_UNSUPPORTED, "the cache in int8", fp8->can_express(&plan));
}

Test(fp8, declines_what_readers_do_not_take)
{
    qz_export_linear l = linear("m", 64, 96, dynamic);
    l.scheme.piece_rows = 1;
    check_fails(QZ_UNSUPPORTED, "m: found fp8_e4m3 per channel; readers of fp8 take one scale a matrix",
                case_express(fp8, &l, 1));
    l = linear("m", 64, 96, dynamic);
    l.scheme.format = QZ_FORMAT_INT8;
    check_fails(QZ_UNSUPPORTED, "fp8 holds fp8_e4m3", case_express(fp8, &l, 1));
    l = linear("m", 64, 96, (qz_act_scheme){0});
    check_fails(QZ_UNSUPPORTED, "inputs are not rounded", case_express(fp8, &l, 1));
    l.activation = dynamic;
    l.activation.format = QZ_FORMAT_INT8;
    check_fails(QZ_UNSUPPORTED, "inputs in int8", case_express(fp8, &l, 1));
    l = linear("m", 64, 96, grouped);
    check_fails(QZ_UNSUPPORTED, "inputs in groups go with blocks", case_express(fp8, &l, 1));
    l = blocks("m", 64, 96);
    l.activation = dynamic;
    check_fails(QZ_UNSUPPORTED, "in groups of 128 channels", case_express(fp8, &l, 1));
    l = linear("lm_head", 64, 96, dynamic);
    l.layer = -1;
    check_fails(QZ_UNSUPPORTED, "lm_head lies outside the decoder layers", case_express(fp8, &l, 1));
    l.quantized = false;
    check_fails(QZ_UNSUPPORTED, "no linear is quantized", case_express(fp8, &l, 1));
    l = linear("m", 64, 96, dynamic);
    l.ordered = true;
    check_fails(QZ_UNSUPPORTED, "order", case_express(fp8, &l, 1));
    l = linear("m", 64, 96, dynamic);
    l.scheme.scale_type = QZ_BF16;
    check_fails(QZ_UNSUPPORTED, "found scales in BF16; fp8 stores F32", case_express(fp8, &l, 1));
    fp8->settle(&l, QZ_BF16);
    check_ok(case_express(fp8, &l, 1));
}
