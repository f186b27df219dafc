/* The compressed-tensors container: words and bytes by hand, config block, targets, inputs and cache, what a plan may
 * ask, spoiled folders. */
#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "checkpoints/checkpoints.h"
#include "checkpoints/ct_config.h"
#include "testing/safetensors_fixture.h"

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

TestSuite(compressed_tensors, .init = start, .fini = stop);

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
    qz_export_plan plan = plan_of(l, count);
    return ct->can_express(&plan);
}

static void has(const char *text, const char *part)
{
    cr_assert(strstr(text, part) != NULL, "\"%s\" is not in %s", part, text);
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
    has(text, "\"quant_method\": \"compressed-tensors\"");
    has(text, "\"format\": \"pack-quantized\"");
    has(text, "\"quantization_status\": \"compressed\"");
    has(text, "\"Linear\"");
    has(text, "\"strategy\": \"group\"");
    has(text, "\"group_size\": 128");
    has(text, "\"input_activations\": null");
    has(text, "\"kv_cache_scheme\": null");
    has(text, "\"c\"");
    has(text, "\"lm_head\"");
    cr_assert(strstr(text, "group_1") == NULL && strstr(text, "\"a\"") == NULL);
    l[0] = linear("a", QZ_FORMAT_INT8, 1, 0);
    l[0].activation = static8;
    text = block(l, 1);
    has(text, "\"format\": \"int-quantized\"");
    has(text, "\"strategy\": \"channel\"");
    has(text, "\"strategy\": \"tensor\"");
    has(text, "\"symmetric\": false");
    l[0] = linear("lm_head", QZ_FORMAT_INT4, 1, 128);
    l[0].layer = -1;
    text = block(l, 1); /* servers give the head another class, so it is a target of its own */
    has(text, "\"ignore\": []");
    has(strstr(text, "Linear"), "\"lm_head\"");
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
    has(text, "\"Embedding\"");
    has(text, "group_1");
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
    has(text, "\"format\": \"mixed-precision\"");
    has(text, "\"format\": \"float-quantized\"");
    has(text, "\"block_structure\": [");
    has(text, "\"group_2\"");
    cr_assert(strstr(text, "\"Linear\"") == NULL);
    text = block(l + 2, 2); /* one format, but readers would take the second for int-quantized */
    has(text, "\"group_1\"");
    cr_assert(strstr(strstr(text, "\"format\"") + 1, "\"format\": \"pack-quantized\"") != NULL);
}

/* ---- reading configs ---- */

static qz_status scheme_of(const char *fields, qz_scheme *s)
{
    char text[900];
    snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",%s}}", fields);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    cr_assert(ct->recognise(qz_json_root(doc)));
    qz_status status = ct->read_scheme(s, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

#define GROUP(weights) "\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{" weights "}}}"

Test(compressed_tensors, reads_the_scheme)
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

Test(compressed_tensors, configs_that_it_cannot_read)
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

Test(compressed_tensors, reading_packed_checks_every_part)
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

Test(compressed_tensors, targets_and_ignore)
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

Test(compressed_tensors, reading_bytes_checks_their_range)
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

Test(compressed_tensors, inputs)
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

Test(compressed_tensors, cache)
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
    c = with("c", "\"kv_cache_scheme\":null", tensor, data, 8);
    check_ok(qz_ckpt_read_kv(c, "m", 2, &s, key, value));
    cr_assert(!s.wanted);
    qz_ckpt_close(c);
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
    has(text, "\"format\": \"dense\"");
    has(text, "\"config_groups\": {}");
    has(text, "\"strategy\": \"attn_head\"");
    plan.kv.format = QZ_FORMAT_INT8;
    check_fails(QZ_UNSUPPORTED, "the key-value cache is to be int8", ct->can_express(&plan));
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
