/* The compressed-tensors container as it is read: configs, targets, inputs and cache, spoiled folders. */
#include "testing/container_case.h"

static const qz_container *ct;
static qz_arena *arena;

static void start(void)
{
    check_ok(qz_container_find(&ct, "compressed-tensors"));
    check_ok(qz_arena_new(&arena, "test"));
}

static void stop(void)
{
    qz_arena_free(arena);
}

TestSuite(ct_read, .init = start, .fini = stop);

/* ---- configs ---- */

static qz_status scheme_of(const char *fields, qz_scheme *s)
{
    return case_scheme(ct, fields, s);
}

#define GROUP(weights) "\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{" weights "}}}"

Test(ct_read, reads_the_scheme)
{
    qz_scheme s;
    check_ok(scheme_of(GROUP("\"num_bits\":3,\"type\":\"int\",\"symmetric\":false,\"group_size\":64"), &s));
    cr_assert(s.format == QZ_FORMAT_INT3 && s.piece_rows == 1 && s.piece_cols == 64 && !s.symmetric);
    check_ok(
        scheme_of(GROUP("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\",\"block_structure\":[128,64]"), &s));
    cr_assert(s.format == QZ_FORMAT_FP8_E4M3 && s.piece_rows == 128 && s.piece_cols == 64);
    check_ok(scheme_of(GROUP("\"strategy\":\"tensor\""), &s));
    cr_assert(s.format == QZ_FORMAT_INT8 && s.piece_rows == 0 && s.symmetric);
    check_ok(scheme_of("\"config_groups\":{}", &s));
    cr_assert(qz_format_of(s.format)->kind == QZ_KIND_PLAIN);
}

Test(ct_read, configs_that_it_cannot_read)
{
    qz_scheme s;
    check_fails(QZ_UNSUPPORTED, "format: \"nvfp4-pack-quantized\" is not read",
                scheme_of("\"format\":\"nvfp4-pack-quantized\"", &s));
    check_fails(QZ_UNSUPPORTED, "quantization_status: \"frozen\"", scheme_of("\"quantization_status\":\"frozen\"", &s));
    check_fails(QZ_UNSUPPORTED, "sparsity_config", scheme_of("\"sparsity_config\":{\"format\":\"x\"}", &s));
    check_fails(QZ_UNSUPPORTED, "transform_config", scheme_of("\"transform_config\":{\"config_groups\":{}}", &s));
    check_fails(QZ_FORMAT, "config_groups: found an array", scheme_of("\"config_groups\":[]", &s));
    check_fails(QZ_FORMAT, "config_groups.W8A8: found an array",
                scheme_of("\"config_groups\":{\"W8A8\":[\"Linear\"]}", &s));
    check_fails(QZ_FORMAT, "ignore: found", scheme_of("\"ignore\":\"lm_head\"", &s));
    check_fails(QZ_FORMAT, "not closed", scheme_of("\"ignore\":[\"re:(\"]", &s));
    check_fails(QZ_FORMAT, "strategy: \"rows\"", scheme_of(GROUP("\"strategy\":\"rows\""), &s));
    check_fails(QZ_FORMAT, "needs a positive group_size", scheme_of(GROUP("\"strategy\":\"group\""), &s));
    check_fails(QZ_FORMAT, "go together", scheme_of(GROUP("\"strategy\":\"block\""), &s));
    check_fails(QZ_FORMAT, "block_structure", scheme_of(GROUP("\"block_structure\":[1]"), &s));
    check_fails(QZ_FORMAT, "block_structure", scheme_of(GROUP("\"block_structure\":[0,1]"), &s));
    check_fails(QZ_FORMAT, "num_bits", scheme_of(GROUP("\"num_bits\":0"), &s));
    check_fails(QZ_UNSUPPORTED, "int of 16 bits", scheme_of(GROUP("\"num_bits\":16"), &s));
    check_fails(QZ_UNSUPPORTED, "float of 4 bits", scheme_of(GROUP("\"num_bits\":4,\"type\":\"float\""), &s));
    check_fails(QZ_FORMAT, "type: found \"fp\"", scheme_of(GROUP("\"type\":\"fp\""), &s));
    check_fails(QZ_FORMAT, "symmetric", scheme_of(GROUP("\"type\":\"float\",\"symmetric\":false"), &s));
    check_fails(QZ_FORMAT, "static", scheme_of(GROUP("\"dynamic\":true"), &s));
    check_fails(QZ_UNSUPPORTED, "\"local\"", scheme_of(GROUP("\"dynamic\":\"local\""), &s));
    check_fails(QZ_UNSUPPORTED, "output_activations",
                scheme_of("\"config_groups\":{\"g\":{\"weights\":{},\"output_activations\":{}}}", &s));
    check_fails(QZ_UNSUPPORTED, "kv_cache_scheme", scheme_of("\"kv_cache_scheme\":{\"num_bits\":4}", &s));
}

/* ---- folders ---- */

#define PART(name, type, shape, from, to)                                                                              \
    "\"m." name "\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"
#define PACKED PART("weight_packed", "I32", "8,4", 0, 128)
#define SHAPE PART("weight_shape", "I64", "2", 128, 144)
#define SCALE PART("weight_scale", "BF16", "8,1", 144, 160)
#define ZERO PART("weight_zero_point", "I32", "1,1", 160, 164)
#define W4 "\"weights\":{\"num_bits\":4,\"group_size\":32}"
#define ASYM "\"weights\":{\"num_bits\":4,\"group_size\":32,\"symmetric\":false}"

static float first;

static qz_status read_back(const char *name, const char *group, const char *more, const char *header, const void *data,
                           size_t size)
{
    const char *folder = qz_arena_strdup(arena, fixture_folder(name));
    fixture_text(folder, "config.json",
                 qz_arena_printf(arena,
                                 "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\","
                                 "\"config_groups\":{\"g\":{%s}}%s}}",
                                 group, more));
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, size);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_is_quantized(c, "m") && qz_ckpt_is_part_of(c, "m.weight_scale", "m"));
    float out[8 * 32] = {0};
    qz_status status = qz_ckpt_read_weight(c, "m", 8, 32, out, arena);
    first = out[0];
    qz_ckpt_close(c);
    return status;
}

Test(ct_read, reading_packed_checks_every_part)
{
    static uint8_t data[164];
    const char *any = "\"targets\":[\"Linear\"]," W4, *asym = "\"targets\":[\"Linear\"]," ASYM;
    data[128] = 8;
    data[136] = 32;
    for (int i = 0; i < 8; i++) data[145 + 2 * i] = 0x3f; /* 0.5 */
    memset(data + 160, 0x33, 4);
    check_ok(read_back("good", any, "", "{" PACKED "," SHAPE "," SCALE "}", data, 160));
    cr_assert(first == -4.0f); /* (0 - 8) * 0.5 */
    check_ok(read_back("zeros", asym, "", "{" PACKED "," SHAPE "," SCALE "," ZERO "}", data, 164));
    cr_assert(first == -1.5f);
    check_ok(read_back("flat", any, "", "{" PACKED "," SHAPE "," PART("weight_scale", "BF16", "8", 144, 160) "}", data,
                       160));
    check_fails(QZ_FORMAT, "\"m.weight_shape\" is missing",
                read_back("a", any, "", "{" PACKED "," PART("weight_scale", "BF16", "8,1", 128, 144) "}", data, 144));
    check_fails(QZ_FORMAT, "\"m.weight_zero_point\" is missing",
                read_back("b", asym, "", "{" PACKED "," SHAPE "," SCALE "}", data, 160));
    check_fails(QZ_FORMAT, "\"m.weight_zero_point\" is not zero, but config.json says symmetric",
                read_back("c", any, "", "{" PACKED "," SHAPE "," SCALE "," ZERO "}", data, 164));
    check_fails(
        QZ_SHAPE, "\"m.weight_packed\" has the shape [4, 8]; [8, 4] is expected",
        read_back("d", any, "", "{" PART("weight_packed", "I32", "4,8", 0, 128) "," SHAPE "," SCALE "}", data, 160));
    check_fails(
        QZ_SHAPE, "\"m.weight_scale\" has the shape [4, 2]",
        read_back("e", any, "", "{" PACKED "," SHAPE "," PART("weight_scale", "BF16", "4,2", 144, 160) "}", data, 160));
    check_fails(QZ_FORMAT, "type F8_E5M2; F32, F16 or BF16 is expected",
                read_back("f", any, "", "{" PACKED "," SHAPE "," PART("weight_scale", "F8_E5M2", "8,2", 144, 160) "}",
                          data, 160));
    check_fails(QZ_SHAPE, "32 inputs do not divide into groups of 48",
                read_back("g", "\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"group_size\":48}", "",
                          "{" PACKED "," SHAPE "," SCALE "}", data, 160));
    data[136] = 31;
    check_fails(QZ_SHAPE, "says (8, 31)", read_back("h", any, "", "{" PACKED "," SHAPE "," SCALE "}", data, 160));
    data[136] = 32;
    data[145] = 0x7f;
    data[144] = 0x80;
    check_fails(QZ_NUMERIC, "holds an infinity at element 0",
                read_back("i", any, "", "{" PACKED "," SHAPE "," SCALE "}", data, 160));
}

Test(ct_read, targets_and_ignore)
{
    static uint8_t data[160];
    const char *header = "{" PACKED "," SHAPE "," SCALE "}";
    data[128] = 8;
    data[136] = 32;
    check_ok(read_back("a", "\"targets\":[\"m\"]," W4, "", header, data, 160));
    check_ok(read_back("b", "\"targets\":[\"x\",\"re:.*[km]$\"]," W4, "", header, data, 160));
    check_fails(QZ_FORMAT, "no target matches m", read_back("c", "\"targets\":[\"re:n\"]," W4, "", header, data, 160));
    check_fails(QZ_FORMAT, "ignore: m is listed",
                read_back("d", "\"targets\":[\"m\"]," W4, ",\"ignore\":[\"re:m\"]", header, data, 160));
    check_fails(QZ_FORMAT, "does not quantize the weights of m",
                read_back("e", "\"targets\":[\"m\"]", "", header, data, 160));
    /* A name goes before a class, whatever the order of the groups. */
    check_ok(read_back("f",
                       "\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":2,\"group_size\":16}},\"h\":{"
                       "\"targets\":[\"m\"]," W4,
                       "", header, data, 160));
}

Test(ct_read, reading_bytes_checks_their_range)
{
    static uint8_t data[272];
    const char *int4 = "\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"strategy\":\"channel\"}",
               *fp8 = "\"targets\":[\"Linear\"],\"weights\":{\"type\":\"float\",\"strategy\":\"channel\"}";
    for (int i = 0; i < 8; i++) data[257 + 2 * i] = 0x3f;
    data[0] = 0xf9; /* -7 */
#define BYTES(type) "{" PART("weight", type, "8,32", 0, 256) "," PART("weight_scale", "BF16", "8,1", 256, 272) "}"
    check_ok(read_back("a", int4, "", BYTES("I8"), data, 272));
    cr_assert(first == -3.5f);
    check_fails(QZ_FORMAT, "type I8; F8_E4M3 is expected", read_back("b", fp8, "", BYTES("I8"), data, 272));
    data[33] = 8;
    check_fails(QZ_FORMAT, "holds 8 at element 33; 4 bits hold -8 to 7",
                read_back("c", int4, "", BYTES("I8"), data, 272));
    data[33] = 0xff;
    check_fails(QZ_NUMERIC, "holds NaN at [1, 1]", read_back("d", fp8, "", BYTES("F8_E4M3"), data, 272));
}

/* ---- inputs and cache ---- */

static qz_ckpt *with(const char *name, const char *fields, const char *header, const void *data, size_t size)
{
    const char *folder = qz_arena_strdup(arena, fixture_folder(name));
    fixture_text(
        folder, "config.json",
        qz_arena_printf(arena, "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",%s}}", fields));
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, size);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    return c;
}

static qz_status activation(const char *name, const char *input, const char *header, const void *data, size_t size,
                            qz_act_scheme *s, qz_act_values *v)
{
    char fields[400];
    snprintf(fields, sizeof fields,
             "\"config_groups\":{\"g\":{\"targets\":[\"m\"],\"weights\":{},\"input_activations\":{%s}}}", input);
    qz_ckpt *c = with(name, fields, header, data, size);
    qz_status status = qz_ckpt_read_activation(c, "m", s, v);
    qz_ckpt_close(c);
    return status;
}

Test(ct_read, inputs)
{
    static const float values[2] = {1.0f, 0.25f};
    const uint8_t *bytes = (const uint8_t *)values;
    uint8_t data[9];
    memcpy(data, bytes, 8);
    data[8] = 0x85;
    qz_act_scheme s;
    qz_act_values v;
#define SCALES PART("weight_scale", "F32", "1", 0, 4) "," PART("input_scale", "F32", "1", 4, 8)
    const char *both = "{" SCALES "," PART("input_zero_point", "I8", "1", 8, 9) "}", *one = "{" SCALES "}";
    const char *none = "{" PART("weight_scale", "F32", "1", 0, 4) "}";
    check_ok(activation("a", "\"strategy\":\"token\",\"dynamic\":true", one, data, 8, &s, &v));
    cr_assert(s.mode == QZ_ACT_TOKEN && s.format == QZ_FORMAT_INT8 && s.symmetric && s.divisor == 127.0f);
    check_ok(activation("b", "\"strategy\":\"tensor\",\"symmetric\":false", both, data, 9, &s, &v));
    cr_assert(s.mode == QZ_ACT_TENSOR && !s.symmetric && v.scale == 0.25f && v.zero == -123);
    check_ok(activation("c", "\"type\":\"float\",\"strategy\":\"group\",\"group_size\":128,\"dynamic\":true", one, data,
                        8, &s, &v));
    cr_assert(s.mode == QZ_ACT_GROUP && s.group == 128 && s.format == QZ_FORMAT_FP8_E4M3);
    check_fails(QZ_FORMAT, "\"m.input_zero_point\" is missing",
                activation("d", "\"strategy\":\"tensor\",\"symmetric\":false", one, data, 8, &s, &v));
    check_fails(QZ_FORMAT, "\"m.input_scale\" is missing",
                activation("e", "\"strategy\":\"tensor\"", none, data, 4, &s, &v));
    check_fails(QZ_UNSUPPORTED, "8 bits per tensor, dynamic, is not supported",
                activation("f", "\"strategy\":\"tensor\",\"dynamic\":true", one, data, 8, &s, &v));
    check_fails(QZ_UNSUPPORTED, "4 bits per token",
                activation("g", "\"num_bits\":4,\"strategy\":\"token\",\"dynamic\":true", one, data, 8, &s, &v));
    memset(data + 4, 0, 4);
    check_fails(QZ_NUMERIC, "\"m.input_scale\" is 0; a scale is positive",
                activation("h", "\"strategy\":\"tensor\"", one, data, 8, &s, &v));
}

Test(ct_read, cache)
{
    static const float data[4] = {1.0f, 0.25f, 2.0f, -1.0f};
    const char *heads = "{" PART("k_scale", "F32", "2,1,1", 0, 8) "," PART("v_scale", "F32", "2", 8, 16) "}";
    const char *tensor = "{" PART("k_scale", "F32", "", 0, 4) "," PART("v_scale", "F32", "1", 4, 8) "}";
    qz_kv_scheme s;
    float key[2], value[2];
#define CACHE(strategy) "\"kv_cache_scheme\":{\"type\":\"float\",\"strategy\":\"" strategy "\"}"
    qz_ckpt *c = with("a", CACHE("tensor"), tensor, data, 8);
    check_ok(qz_ckpt_read_kv(c, "m", 2, &s, key, value));
    cr_assert(s.wanted && s.format == QZ_FORMAT_FP8_E4M3 && !s.per_head && key[1] == 1.0f && value[1] == 0.25f);
    check_fails(QZ_FORMAT, "\"n.k_scale\" is missing", qz_ckpt_read_kv(c, "n", 2, &s, key, value));
    qz_ckpt_close(c);
    c = with("b", CACHE("attn_head"), heads, data, 16);
    check_fails(QZ_NUMERIC, "\"m.v_scale\" holds -1 for head 1", qz_ckpt_read_kv(c, "m", 2, &s, key, value));
    cr_assert(s.per_head && key[0] == 1.0f && key[1] == 0.25f);
    check_fails(QZ_SHAPE, "\"m.k_scale\" has the shape [2, 1, 1]; [3, 1, 1]",
                qz_ckpt_read_kv(c, "m", 3, &s, key, value));
    qz_ckpt_close(c);
    c = with("i", "\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"tensor\"}", tensor, data, 8);
    check_ok(qz_ckpt_read_kv(c, "m", 2, &s, key, value));
    cr_assert(s.wanted && s.format == QZ_FORMAT_INT8 && key[1] == 1.0f && value[1] == 0.25f);
    qz_ckpt_close(c);
    c = with("c", "\"kv_cache_scheme\":null", tensor, data, 8);
    check_ok(qz_ckpt_read_kv(c, "m", 2, &s, key, value));
    cr_assert(!s.wanted);
    qz_ckpt_close(c);
}
