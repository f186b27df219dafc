/* The gptq container: words by hand, both layouts, config block and its rules, what a plan may ask, spoiled folders. */
#include "base/log.h"
#include "testing/container_case.h"

CONTAINER_SUITE(gptq, gptq, "gptq")

static qz_export_linear linear(const char *module, qz_format format, int64_t n, int64_t k, int64_t group)
{
    return (qz_export_linear){
        .module = module,
        .n = n,
        .k = k,
        .quantized = true,
        .fused = -1,
        .scheme = {.format = format, .piece_rows = 1, .piece_cols = group, .symmetric = true, .scale_type = QZ_F16}};
}

static qz_status express(const qz_export_linear *l, size_t count)
{
    return gptq->can_express(&(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_F16});
}

static void has(const char *text, const char *part)
{
    cr_assert(strstr(text, part) != NULL, "\"%s\" is not in %s", part, text);
}

/* ---- bytes ---- */

static qz_safetensors *written(const qz_export_linear *l, const qz_qtensor *q)
{
    const char *folder = fixture_folder("m");
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(gptq->declare_linear(s, l));
    check_ok(qz_shards_begin(s));
    check_ok(gptq->write_linear(s, l, q, NULL, arena));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, fixture_in(folder, "model.safetensors")));
    return st;
}

static const void *part(const qz_safetensors *st, const char *name, qz_dtype type, int64_t a, int64_t b)
{
    const qz_stored *t = qz_safetensors_find(st, name);
    cr_assert(t && t->view.dtype == type && t->view.shape[0] == a && (b == 0 || t->view.shape[1] == b), "%s", name);
    return t->view.data;
}

Test(gptq, four_bits_as_in_the_specification)
{
    /* FORMATS.md 2.2: 1..8 down K -> 0x87654321; 2.3: symmetric zeros -> 0x77777777. */
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 8, 64, 32);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 8, 64, arena));
    for (int i = 0; i < 8 * 64; i++) q.codes[i] = (uint8_t)(i % 8 + 1);
    for (int i = 0; i < 16; i++) q.scales[i] = (float)(i + 1) * 0.5f;
    qz_safetensors *st = written(&l, &q);
    const uint32_t *w = part(st, "m.qweight", QZ_I32, 8, 8), *z = part(st, "m.qzeros", QZ_I32, 2, 1);
    const uint16_t *s = part(st, "m.scales", QZ_F16, 2, 8);
    const int32_t *order = part(st, "m.g_idx", QZ_I32, 64, 0);
    for (int i = 0; i < 64; i++) cr_assert(w[i] == 0x87654321u);
    cr_assert(z[0] == 0x77777777u && z[1] == 0x77777777u);
    cr_assert(s[0] == 0x3800 && s[8] == 0x3C00 && s[1] == 0x3E00); /* (0, 0) = 0.5, (0, group 1) = 1, (1, 0) = 1.5 */
    for (int k = 0; k < 64; k++) cr_assert(order[k] == k / 32);
    qz_safetensors_close(st);
}

Test(gptq, three_bits_straddle_words)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT3, 32, 32, 32);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 32, 32, arena));
    for (int i = 0; i < 32 * 32; i++) q.codes[i] = (uint8_t)(i % 8);
    for (int i = 0; i < 32; i++) q.scales[i] = 1;
    qz_safetensors *st = written(&l, &q);
    const uint32_t *w = part(st, "m.qweight", QZ_I32, 3, 32), *z = part(st, "m.qzeros", QZ_I32, 1, 3);
    cr_assert(w[0] == 0x88FAC688u && w[32] == 0xC688FAC6u && w[64] == 0xFAC688FAu && w[95] == 0xFAC688FAu);
    cr_assert(z[0] == 0xDB6DB6DBu && z[1] == 0xB6DB6DB6u && z[2] == 0x6DB6DB6Du);
    qz_safetensors_close(st);
}

Test(gptq, order_and_zeros_that_it_cannot_store)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 8, 64, 32);
    qz_qtensor q;
    int32_t order[64];
    for (int k = 0; k < 64; k++) order[k] = k % 2;
    l.scheme.symmetric = false;
    l.scheme.least_zero = 1;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 8, 64, arena));
    memset(q.codes, 0, 8 * 64);
    for (int i = 0; i < 16; i++) q.scales[i] = 1;
    memset(q.zeros, 16, 16); /* 2^bits fits: 15 is stored */
    q.permutation = order;
    check_fails(QZ_ARG, "not declared as ordered", gptq->write_linear(NULL, &l, &q, NULL, arena));
    l.ordered = true;
    qz_safetensors *st = written(&l, &q);
    const int32_t *stored = part(st, "m.g_idx", QZ_I32, 64, 0);
    cr_assert(memcmp(stored, order, sizeof order) == 0);
    cr_assert(*(const uint32_t *)part(st, "m.qzeros", QZ_I32, 2, 1) == 0xFFFFFFFFu);
    qz_safetensors_close(st);
    q.zeros[3] = 0;
    qz_shards *s;
    check_ok(qz_shards_new(&s, fixture_folder("n"), 0));
    check_ok(gptq->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_fails(QZ_NUMERIC, "the zero of output 1, group 1 is 0; gptq stores 1 to 16",
                gptq->write_linear(s, &l, &q, NULL, arena));
    qz_shards_free(s);
}

/* ---- config ---- */

static const char *block(const qz_export_linear *l, size_t count)
{
    char *text;
    check_ok(gptq->config_block(&text, &(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_F16}, arena));
    return text;
}

Test(gptq, config_block)
{
    qz_export_linear l[3] = {linear("a.q_proj", QZ_FORMAT_INT4, 32, 128, 128),
                             linear("a.k_proj", QZ_FORMAT_INT4, 32, 128, 128),
                             linear("lm_head", QZ_FORMAT_INT4, 32, 128, 128)};
    l[2].quantized = false;
    l[2].layer = -1;
    const char *text = block(l, 3);
    has(text, "\"quant_method\": \"gptq\"");
    has(text, "\"bits\": 4");
    has(text, "\"group_size\": 128");
    has(text, "\"desc_act\": false");
    has(text, "\"sym\": true");
    has(text, "\"lm_head\": false");
    has(text, "\"checkpoint_format\": \"gptq\"");
    cr_assert(strstr(text, "dynamic") == NULL && strstr(text, "meta") == NULL);
    l[0].fused_as = l[1].fused_as = "a.qkv_proj";
    l[1].ordered = true;
    l[0].quantized = false;
    text = block(l, 2);
    has(text, "\"-:^a\\\\.q_proj$\": {}");
    has(text, "\"-:^a\\\\.qkv_proj$\": {}");
    has(text, "\"desc_act\": true");
    qz_export_linear row = linear("a", QZ_FORMAT_INT8, 32, 576, 576);
    has(block(&row, 1), "\"group_size\": -1");
}

Test(gptq, what_departs_from_the_first_has_a_rule)
{
    qz_export_linear l[3] = {linear("a", QZ_FORMAT_INT4, 32, 128, 128), linear("b.0", QZ_FORMAT_INT8, 32, 128, 128),
                             linear("c", QZ_FORMAT_INT4, 32, 128, 0)};
    const char *text = block(l, 3);
    has(text, "\"+:^b\\\\.0$\"");
    has(text, "\"bits\": 8");
    has(text, "\"+:^c$\"");
    has(text, "\"group_size\": -1");
    cr_assert(strstr(text, "^a$") == NULL);
}

Test(gptq, a_copy_of_the_config_beside_it)
{
    qz_export_linear l = linear("a", QZ_FORMAT_INT4, 32, 128, 128);
    qz_export_plan plan = {.linear = &l, .linears = 1, .plain_type = QZ_F16};
    const char *folder = fixture_folder("m");
    char *text, *copy;
    size_t size;
    check_ok(gptq->config_block(&text, &plan, arena));
    check_ok(gptq->extra_files(folder, &plan, arena));
    check_ok(qz_file_read(&copy, &size, fixture_in(folder, "quantize_config.json"), 1 << 16, arena));
    cr_assert(size == strlen(text) && memcmp(copy, text, size) == 0);
}

static qz_status scheme_of(const char *fields, qz_scheme *s)
{
    char text[400];
    snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"gptq\"%s%s}}", *fields ? "," : "",
             fields);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    cr_assert(gptq->recognise(qz_json_root(doc)));
    qz_status status = gptq->read_scheme(s, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

Test(gptq, reads_the_scheme)
{
    qz_scheme s;
    check_ok(scheme_of("\"bits\":3,\"group_size\":64,\"sym\":false", &s));
    cr_assert(s.format == QZ_FORMAT_INT3 && s.piece_rows == 1 && s.piece_cols == 64 && !s.symmetric);
    check_ok(scheme_of("\"bits\":8,\"group_size\":-1,\"checkpoint_format\":\"gptq_v2\"", &s));
    cr_assert(s.format == QZ_FORMAT_INT8 && s.piece_cols == 0 && s.symmetric);
    check_fails(QZ_FORMAT, "bits: found 5", scheme_of("\"bits\":5,\"group_size\":64", &s));
    check_fails(QZ_FORMAT, "bits", scheme_of("\"group_size\":64", &s));
    check_fails(QZ_FORMAT, "group_size", scheme_of("\"bits\":4,\"group_size\":0", &s));
    check_fails(QZ_FORMAT, "sym", scheme_of("\"bits\":4,\"group_size\":64,\"sym\":1", &s));
    check_fails(QZ_UNSUPPORTED, "\"marlin\" is another layout",
                scheme_of("\"bits\":4,\"group_size\":64,\"checkpoint_format\":\"marlin\"", &s));
    check_fails(QZ_UNSUPPORTED, "pack_dtype", scheme_of("\"bits\":4,\"group_size\":64,\"pack_dtype\":\"int8\"", &s));
    check_fails(QZ_FORMAT, "dynamic: found an array", scheme_of("\"bits\":4,\"group_size\":64,\"dynamic\":[]", &s));
    check_fails(QZ_FORMAT, "dynamic: \"+:a\"", scheme_of("\"bits\":4,\"group_size\":64,\"dynamic\":{\"+:a\":1}", &s));
    check_fails(QZ_FORMAT, "bits", scheme_of("\"bits\":4,\"group_size\":64,\"dynamic\":{\"a\":{\"bits\":7}}", &s));
    check_fails(QZ_FORMAT, "not closed", scheme_of("\"bits\":4,\"group_size\":64,\"dynamic\":{\"-:(a\":{}}", &s));
}

/* ---- folders ---- */

#define PART(name, type, shape, from, to)                                                                              \
    "\"m." name "\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"
#define WEIGHT PART("qweight", "I32", "4,8", 0, 128)
#define ZEROS PART("qzeros", "I32", "1,1", 128, 132)
#define SCALES PART("scales", "F16", "1,8", 132, 148)
#define ORDER PART("g_idx", "I32", "32", 148, 276)

static float first;

static qz_status read_back(const char *name, const char *fields, const char *header, const void *data, size_t size)
{
    const char *folder = fixture_folder(name);
    fixture_text(folder, "config.json",
                 qz_arena_printf(arena, "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,%s}}", fields));
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, size);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_is_quantized(c, "m") && qz_ckpt_is_part_of(c, "m.g_idx", "m"));
    float out[8 * 32];
    qz_status status = qz_ckpt_read_weight(c, "m", 8, 32, out, arena);
    first = out[0];
    qz_ckpt_close(c);
    return status;
}

Test(gptq, reading_checks_every_part)
{
    static uint8_t data[276];
    const char *asym = "\"group_size\":32,\"sym\":false", *sym = "\"group_size\":32,\"sym\":true";
    memset(data + 128, 0x77, 4);
    for (int i = 0; i < 8; i++) data[132 + 2 * i + 1] = 0x38;
    check_ok(read_back("good", sym, "{" WEIGHT "," ZEROS "," SCALES "," ORDER "}", data, 276));
    cr_assert(first == -4.0f); /* (0 - 8) * 0.5 */
    check_ok(read_back("no-order", sym, "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    check_ok(read_back("v2", "\"group_size\":32,\"sym\":false,\"checkpoint_format\":\"gptq_v2\"",
                       "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    cr_assert(first == -3.5f);
    check_fails(QZ_FORMAT, "\"m.scales\" is missing", read_back("a", sym, "{" WEIGHT "," ZEROS "}", data, 132));
    check_fails(QZ_SHAPE, "\"m.qweight\" has the shape [8, 4]; [4, 8] is expected",
                read_back("b", sym, "{" PART("qweight", "I32", "8,4", 0, 128) "," ZEROS "," SCALES "}", data, 148));
    check_fails(QZ_FORMAT, "type F32; I32 is expected",
                read_back("c", sym, "{" PART("qweight", "F32", "4,8", 0, 128) "," ZEROS "," SCALES "}", data, 148));
    check_fails(
        QZ_SHAPE, "\"m.g_idx\" has the shape [16, 2]",
        read_back("d", sym, "{" WEIGHT "," ZEROS "," SCALES "," PART("g_idx", "I32", "16,2", 148, 276) "}", data, 276));
    data[148] = 1;
    check_fails(QZ_FORMAT, "\"m.g_idx\" holds 1 at 0; groups 0 to 0",
                read_back("e", sym, "{" WEIGHT "," ZEROS "," SCALES "," ORDER "}", data, 276));
    data[129] = 0x78;
    check_fails(QZ_FORMAT, "the zero of output 2, group 0 is 9; config.json says sym",
                read_back("f", sym, "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    check_ok(read_back("g", asym, "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    data[135] = 0x7c;
    check_fails(QZ_NUMERIC, "\"m.scales\" holds an infinity at element 1",
                read_back("h", asym, "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    check_fails(
        QZ_FORMAT, "the rule leaves m plain",
        read_back("i", "\"group_size\":32,\"dynamic\":{\"-:m$\":{}}", "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
    check_fails(QZ_SHAPE, "do not divide into groups of 48",
                read_back("j", "\"group_size\":48", "{" WEIGHT "," ZEROS "," SCALES "}", data, 148));
}

/* ---- plans ---- */

static void count(void *context, const char *message)
{
    (void)message;
    ++*(int *)context;
}

Test(gptq, what_not_every_reader_takes_is_a_warning)
{
    int warnings = 0;
    qz_log_to(count, &warnings);
    qz_export_linear l = linear("m", QZ_FORMAT_INT4, 64, 768, 128);
    check_ok(express(&l, 1));
    l.scheme.format = QZ_FORMAT_INT8;
    check_ok(express(&l, 1));
    cr_assert(warnings == 0);
    l.scheme.format = QZ_FORMAT_INT3;
    l.scheme.symmetric = false;
    l.ordered = true;
    gptq->settle(&l, QZ_F16);
    check_ok(express(&l, 1));
    cr_assert(warnings == 3);
    qz_log_to(NULL, NULL);
}

Test(gptq, refuses)
{
    qz_export_linear l = linear("m", QZ_FORMAT_INT5, 64, 768, 128);
    check_fails(QZ_UNSUPPORTED, "m: found int5", express(&l, 1));
    l = linear("m", QZ_FORMAT_FP8_E4M3, 64, 768, 128);
    check_fails(QZ_UNSUPPORTED, "m: found fp8_e4m3", express(&l, 1));
    l = linear("m", QZ_FORMAT_INT4, 64, 768, 128);
    l.scheme.symmetric = false;
    check_fails(QZ_UNSUPPORTED, "zeros may be 0", express(&l, 1));
    l = linear("m", QZ_FORMAT_INT4, 64, 768, 128);
    l.scheme.scale_type = QZ_F32;
    check_fails(QZ_UNSUPPORTED, "gptq stores F16", express(&l, 1));
    l = linear("m", QZ_FORMAT_INT3, 48, 768, 128);
    check_fails(QZ_UNSUPPORTED, "multiples of 32 for int3", express(&l, 1));
    l = linear("m", QZ_FORMAT_INT4, 64, 576, 128);
    check_fails(QZ_UNSUPPORTED, "576 inputs do not divide into groups of 128", express(&l, 1));
    l = linear("model.embed_tokens", QZ_FORMAT_INT4, 64, 768, 128);
    l.layer = -1;
    check_fails(QZ_UNSUPPORTED, "outside the decoder layers", express(&l, 1));
    l = linear("lm_head", QZ_FORMAT_INT4, 64, 768, 128);
    l.layer = -1;
    check_ok(express(&l, 1));
    has(block(&l, 1), "\"lm_head\": true");
    l = linear("m", QZ_FORMAT_INT4, 64, 768, 128);
    l.activation = (qz_act_scheme){.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8};
    check_fails(QZ_UNSUPPORTED, "m: its input is to be rounded to int8; gptq holds weights only", express(&l, 1));
    l = linear("m", QZ_FORMAT_INT4, 64, 768, 128);
    check_fails(
        QZ_UNSUPPORTED, "key-value cache",
        gptq->can_express(&(qz_export_plan){.linear = &l, .linears = 1, .plain_type = QZ_F16, .kv = {.wanted = true}}));
    l.quantized = false;
    check_fails(QZ_UNSUPPORTED, "no linear is quantized", express(&l, 1));
}

Test(gptq, fused_linears_share_their_order)
{
    qz_export_linear l[2] = {linear("q", QZ_FORMAT_INT4, 64, 768, 128), linear("k", QZ_FORMAT_INT4, 64, 768, 128)};
    l[0].fused = l[1].fused = 0;
    check_ok(express(l, 2));
    l[1].ordered = true;
    check_fails(QZ_UNSUPPORTED, "one of q and k is ordered", express(l, 2));
}
