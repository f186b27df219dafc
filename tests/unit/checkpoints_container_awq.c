/* The awq container: words by hand, config block, what a folder may say, what a plan may ask. */
#include "testing/container_case.h"

CONTAINER_SUITE(awq, awq, "awq")

static qz_export_linear linear(const char *module, int64_t n, int64_t k, int64_t group)
{
    return (qz_export_linear){
        .module = module,
        .n = n,
        .k = k,
        .quantized = true,
        .fused = -1,
        .scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = group, .scale_type = QZ_F16}};
}

static qz_status express(const qz_export_linear *l, size_t count)
{
    return awq->can_express(&(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_F16});
}

/* ---- bytes ---- */

Test(awq, words_as_in_the_specification)
{
    /* FORMATS.md 1.2: columns 0..7 hold 1..8 -> 0x86427531. N = 8, K = 32, one group. */
    const char *folder = fixture_folder("m");
    qz_export_linear l = linear("m", 8, 32, 32);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 8, 32, arena));
    for (int n = 0; n < 8; n++) {
        memset(q.codes + 32 * n, n + 1, 32);
        q.scales[n] = 0.5f;
        q.zeros[n] = (uint8_t)(n == 0 ? 15 : 0);
    }
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(awq->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_ok(awq->write_linear(s, &l, &q, NULL, arena));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, fixture_in(folder, "model.safetensors")));
    const qz_stored *w = qz_safetensors_find(st, "m.qweight"), *z = qz_safetensors_find(st, "m.qzeros"),
                    *c = qz_safetensors_find(st, "m.scales");
    cr_assert(w->view.dtype == QZ_I32 && w->view.shape[0] == 32 && w->view.shape[1] == 1);
    cr_assert(z->view.dtype == QZ_I32 && z->view.shape[0] == 1 && z->view.shape[1] == 1);
    cr_assert(c->view.dtype == QZ_F16 && c->view.shape[0] == 1 && c->view.shape[1] == 8);
    for (int k = 0; k < 32; k++) cr_assert(((uint32_t *)w->view.data)[k] == 0x86427531u);
    cr_assert(*(uint32_t *)z->view.data == 0x0000000Fu);
    for (int n = 0; n < 8; n++) cr_assert(((uint16_t *)c->view.data)[n] == 0x3800);
    qz_safetensors_close(st);
}

Test(awq, a_scale_is_never_rounded)
{
    qz_export_linear l = linear("m", 8, 32, 32);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 8, 32, arena));
    memset(q.codes, 0, 8 * 32);
    memset(q.zeros, 0, 8);
    for (int n = 0; n < 8; n++) q.scales[n] = 1;
    q.scales[5] = 0.1f;
    qz_shards *s;
    check_ok(qz_shards_new(&s, fixture_folder("m"), 0));
    check_ok(awq->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_fails(QZ_NUMERIC, "output 5, group 0 is not a number of F16", awq->write_linear(s, &l, &q, NULL, arena));
    qz_shards_free(s);
}

Test(awq, another_matrix_than_declared)
{
    qz_export_linear l = linear("m", 8, 32, 32), wide = linear("m", 16, 32, 32);
    qz_qtensor q;
    int32_t order[32] = {0};
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 8, 32, arena));
    check_fails(QZ_SHAPE, "(8, 32) is not the declared (16, 32)", awq->write_linear(NULL, &wide, &q, NULL, arena));
    q.permutation = order;
    check_fails(QZ_UNSUPPORTED, "permuted groups", awq->write_linear(NULL, &l, &q, NULL, arena));
}

/* ---- config ---- */

static const char *block(const qz_export_linear *l, size_t count)
{
    char *text;
    check_ok(awq->config_block(&text, &(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_F16}, arena));
    return text;
}

static void has(const char *text, const char *part)
{
    cr_assert(strstr(text, part) != NULL, "\"%s\" is not in %s", part, text);
}

Test(awq, config_block)
{
    qz_export_linear l[3] = {linear("model.layers.0.a", 8, 128, 128), linear("model.layers.0.b", 8, 128, 128),
                             linear("lm_head", 8, 128, 128)};
    l[2].quantized = false;
    l[2].layer = -1;
    const char *text = block(l, 3);
    has(text, "\"quant_method\": \"awq\"");
    has(text, "\"bits\": 4");
    has(text, "\"group_size\": 128");
    has(text, "\"zero_point\": true");
    has(text, "\"version\": \"gemm\"");
    has(text, "\"modules_to_not_convert\": null");
    l[1].quantized = false;
    text = block(l, 3);
    has(text, "\"model.layers.0.b\"");
    has(text, "\"lm_head\"");
    cr_assert(strstr(text, "layers.0.a") == NULL);
    qz_export_linear row = linear("a", 8, 576, 0);
    has(block(&row, 1), "\"group_size\": -1");
    row.scheme.piece_cols = 576;
    has(block(&row, 1), "\"group_size\": -1");
}

static size_t times(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part)) n++;
    return n;
}

Test(awq, a_skipped_fused_set_is_named_by_parts_and_as_a_whole)
{
    qz_export_linear l[4] = {linear("a.q_proj", 8, 128, 128), linear("a.k_proj", 8, 128, 128),
                             linear("a.o_proj", 8, 128, 128), linear("b.q_proj", 8, 128, 128)};
    for (int i = 0; i < 4; i++) l[i].quantized = i > 1;
    l[0].fused = l[1].fused = 0;
    l[0].fused_as = l[1].fused_as = "a.qkv_proj";
    l[3].fused_as = "b.qkv_proj";
    const char *text = block(l, 4);
    has(text, "\"a.q_proj\"");
    has(text, "\"a.k_proj\"");
    cr_assert(times(text, "a.qkv_proj") == 1 && times(text, "b.") == 0 && times(text, "o_proj") == 0, "%s", text);
}

static qz_status scheme_of(const char *fields, qz_scheme *s)
{
    char text[300];
    snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"awq\"%s%s}}", *fields ? "," : "", fields);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    cr_assert(awq->recognise(qz_json_root(doc)));
    qz_status status = awq->read_scheme(s, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

Test(awq, reads_the_scheme)
{
    qz_scheme s;
    check_ok(scheme_of("\"bits\":4,\"group_size\":64,\"zero_point\":true,\"version\":\"GEMM\"", &s));
    cr_assert(s.format == QZ_FORMAT_INT4 && s.piece_rows == 1 && s.piece_cols == 64 && !s.symmetric &&
              s.scale_type == QZ_F16);
    check_ok(scheme_of("\"w_bit\":4,\"q_group_size\":-1", &s));
    cr_assert(s.piece_cols == 0);
    check_fails(QZ_FORMAT, "bits", scheme_of("\"bits\":3,\"group_size\":64", &s));
    check_fails(QZ_FORMAT, "bits", scheme_of("\"group_size\":64", &s));
    check_fails(QZ_FORMAT, "group_size", scheme_of("\"bits\":4", &s));
    check_fails(QZ_FORMAT, "group_size", scheme_of("\"bits\":4,\"group_size\":0", &s));
    check_fails(QZ_FORMAT, "group_size", scheme_of("\"bits\":4,\"group_size\":-2", &s));
    check_fails(QZ_FORMAT, "zero_point", scheme_of("\"bits\":4,\"group_size\":64,\"zero_point\":1", &s));
    check_fails(QZ_UNSUPPORTED, "zero_point", scheme_of("\"bits\":4,\"group_size\":64,\"zero_point\":false", &s));
    check_fails(QZ_UNSUPPORTED, "\"gemv\" is another layout",
                scheme_of("\"bits\":4,\"group_size\":64,\"version\":\"gemv\"", &s));
}

/* ---- folders that do not fit ---- */

#define PART(name, type, rows, cols, from, to)                                                                         \
    "\"m." name "\":{\"dtype\":\"" type "\",\"shape\":[" #rows "," #cols "],\"data_offsets\":[" #from "," #to "]}"

static qz_status read_back(const char *name, const char *header, const void *data, size_t size)
{
    const char *folder = fixture_folder(name);
    fixture_text(
        folder, "config.json",
        "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"zero_point\":true}}");
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, size);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_is_quantized(c, "m"));
    cr_assert(qz_ckpt_is_part_of(c, "m.qzeros", "m") && qz_ckpt_is_part_of(c, "m.bias", "m"));
    cr_assert(!qz_ckpt_is_part_of(c, "m.weight", "m"));
    float out[8 * 32];
    qz_status status = qz_ckpt_read_weight(c, "m", 8, 32, out, arena);
    if (status == QZ_OK) cr_assert(out[0] == -1.5f && out[255] == -1.5f); /* (0 - 3) * 0.5 */
    qz_ckpt_close(c);
    return status;
}

Test(awq, reading_checks_every_part)
{
    static uint8_t data[200];
    memset(data, 0, sizeof data);
    memset(data + 128, 0x33, 4);
    for (int i = 0; i < 8; i++) data[132 + 2 * i + 1] = 0x38;
    const char *weight = PART("qweight", "I32", 32, 1, 0, 128), *zeros = PART("qzeros", "I32", 1, 1, 128, 132),
               *scales = PART("scales", "F16", 1, 8, 132, 148);
    char header[600];
#define HEADER(a, b, c) (snprintf(header, sizeof header, "{%s%s%s%s%s}", a, *b ? "," : "", b, *c ? "," : "", c), header)
    check_ok(read_back("good", HEADER(weight, zeros, scales), data, 148));
    check_fails(QZ_FORMAT, "\"m.scales\" is missing", read_back("a", HEADER(weight, zeros, ""), data, 132));
    check_fails(QZ_FORMAT, "\"m.qzeros\" is missing", read_back("b", HEADER(weight, "", ""), data, 128));
    check_fails(QZ_SHAPE, "\"m.qweight\" has the shape [16, 2]; [32, 1] is expected",
                read_back("c", HEADER(PART("qweight", "I32", 16, 2, 0, 128), zeros, scales), data, 148));
    check_fails(QZ_FORMAT, "type F32; I32 is expected",
                read_back("d", HEADER(PART("qweight", "F32", 32, 1, 0, 128), zeros, scales), data, 148));
    check_fails(QZ_SHAPE, "\"m.scales\" has the shape [2, 4]",
                read_back("e", HEADER(weight, zeros, PART("scales", "F16", 2, 4, 132, 148)), data, 148));
    data[132 + 7] = 0x7e;
    check_fails(QZ_NUMERIC, "\"m.scales\" holds NaN at [0, 3]",
                read_back("f", HEADER(weight, zeros, scales), data, 148));
    data[132 + 7] = 0x7c;
    data[132 + 6] = 0;
    check_fails(QZ_NUMERIC, "holds an infinity at [0, 3]", read_back("g", HEADER(weight, zeros, scales), data, 148));
}

/* ---- plans ---- */

Test(awq, expresses_the_groups_that_readers_take)
{
    static const int64_t good[] = {32, 64, 128, 0, 768};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        qz_export_linear l = linear("m", 64, 768, good[i]);
        check_ok(express(&l, 1));
        l.scheme.scale_type = QZ_BF16; /* as read from a file with such scales */
        check_ok(express(&l, 1));
        l.scheme.symmetric = true;
        check_ok(express(&l, 1));
    }
}

Test(awq, groups_that_do_not_divide_are_named_with_those_that_do)
{
    qz_export_linear l = linear("model.layers.0.self_attn.q_proj", 576, 576, 128);
    check_fails(QZ_UNSUPPORTED,
                "model.layers.0.self_attn.q_proj: 576 inputs do not divide into groups of 128; groups that fit: "
                "32, 64, or the whole row",
                express(&l, 1));
    l = linear("m", 64, 1536, 1000);
    check_fails(QZ_UNSUPPORTED, "groups that fit: 32, 64, 128, or the whole row", express(&l, 1));
    l = linear("m", 64, 50, 32);
    check_fails(QZ_UNSUPPORTED, "groups that fit: the whole row (\"channel\")", express(&l, 1));
    l = linear("m", 64, 768, 96);
    check_fails(QZ_UNSUPPORTED, "which readers of awq do not take; groups that fit: 32, 64, 128, or", express(&l, 1));
}

Test(awq, refuses_other_formats_and_sizes)
{
    qz_export_linear l = linear("m", 64, 768, 128);
    l.scheme.format = QZ_FORMAT_INT8;
    check_fails(QZ_UNSUPPORTED, "m: found int8", express(&l, 1));
    l = linear("m", 64, 768, 128);
    l.scheme.piece_rows = 0;
    check_fails(QZ_UNSUPPORTED, "a scale for each output and group", express(&l, 1));
    l = linear("m", 64, 768, 128);
    l.scheme.scale_type = QZ_F32;
    check_fails(QZ_UNSUPPORTED, "found scales in F32; awq stores F16", express(&l, 1));
    l = linear("m", 60, 768, 128);
    check_fails(QZ_UNSUPPORTED, "found 60 outputs", express(&l, 1));
    l = linear("head", 64, 768, 128);
    l.layer = -1;
    check_fails(QZ_UNSUPPORTED, "head lies outside the decoder layers, where awq holds at most lm_head",
                express(&l, 1));
    l.module = "lm_head";
    check_ok(express(&l, 1));
    has(block(&l, 1), "\"lm_head\": true");
    l.embedding = true;
    check_fails(QZ_UNSUPPORTED, "no reader of awq (vLLM, transformers) takes quantized embeddings", express(&l, 1));
    l.embedding = false;
    l.quantized = false;
    check_fails(QZ_UNSUPPORTED, "no linear is quantized", express(&l, 1));
    l = linear("m", 64, 768, 128);
    l.ordered = true;
    check_fails(QZ_UNSUPPORTED, "use static groups", express(&l, 1));
    l = linear("m", 64, 768, 128);
    l.activation = (qz_act_scheme){.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8};
    check_fails(QZ_UNSUPPORTED, "awq holds weights only", express(&l, 1));
    l = linear("m", 64, 768, 128);
    check_fails(QZ_UNSUPPORTED, "plain tensors are to be F32",
                awq->can_express(&(qz_export_plan){.linear = &l, .linears = 1, .plain_type = QZ_F32}));
}

Test(awq, fused_linears_and_one_group_size)
{
    qz_export_linear l[3] = {linear("q", 64, 768, 128), linear("k", 64, 768, 128), linear("o", 64, 768, 128)};
    l[0].fused = l[1].fused = 0;
    check_ok(express(l, 3));
    l[1].quantized = false;
    check_fails(QZ_UNSUPPORTED, "q is quantized, but k is not; servers fuse them", express(l, 3));
    l[1].layer = 1;
    check_ok(express(l, 3));
    l[1] = l[0];
    l[1].module = "k";
    l[1].scheme.symmetric = true;
    check_fails(QZ_UNSUPPORTED, "q and k have different schemes", express(l, 3));
    l[1] = l[0];
    l[2].scheme.piece_cols = 64;
    check_fails(QZ_UNSUPPORTED, "o has groups of 64, but q of 128", express(l, 3));
}

Test(awq, many_reasons_are_counted)
{
    qz_export_linear l[100];
    for (int i = 0; i < 100; i++) l[i] = linear("model.layers.0.self_attn.q_proj", 571, 576, 64);
    check_fails(QZ_UNSUPPORTED, "more", express(l, 100));
    const char *message = qz_error_message();
    size_t lines = 0;
    for (const char *c = message; *c; c++) lines += *c == '\n';
    cr_assert(lines >= 3);
    char end[40];
    snprintf(end, sizeof end, "and %zu more", 100 - lines);
    has(message, end);
}
