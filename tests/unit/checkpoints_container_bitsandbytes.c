/* The bitsandbytes container: bytes by hand, quant_state, config block, what a folder may say, what a plan may ask. */
#include <math.h>

#include "checkpoints/bnb_state.h"
#include "numeric/codebook.h"
#include "testing/container_case.h"

CONTAINER_SUITE(bitsandbytes, bnb, "bitsandbytes")

static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .piece_rows = 1, .piece_cols = 64};

/* As the pipeline makes it: a recipe's scheme, settled. */
static qz_export_linear linear(const char *module, int64_t n, int64_t k, qz_scheme scheme)
{
    qz_export_linear l = case_linear(module, n, k, scheme);
    bnb->settle(&l, QZ_BF16);
    return l;
}

static qz_export_linear int8(const char *module, int64_t n, int64_t k)
{
    return linear(module, n, k,
                  (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .scale_type = QZ_BF16});
}

static qz_qtensor matrix(const qz_export_linear *l)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l->scheme, l->n, l->k, arena));
    for (int64_t i = 0; i < l->n * l->k; i++) q.codes[i] = (uint8_t)(i % 16);
    for (int64_t i = 0; i < qz_scheme_pieces(&l->scheme, l->n, l->k); i++) q.scales[i] = 0.5f + 0.25f * (float)i;
    if (l->scheme.double_quant) qz_qtensor_quantize_scales(&q);
    return q;
}

static const char *text_of(const qz_ckpt *c, const char *name)
{
    const qz_stored *t = qz_ckpt_find(c, name);
    cr_assert(t != NULL && t->view.dtype == QZ_U8 && t->view.ndim == 1, "%s", name);
    return qz_arena_printf(arena, "%.*s", (int)t->bytes, (const char *)t->view.data);
}

/* ---- bytes ---- */

Test(bitsandbytes, even_elements_are_in_the_high_half)
{
    const qz_export_linear l = linear("m", 2, 64, nf4);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", bnb, &l, &q, NULL, arena);
    const qz_stored *w = qz_ckpt_find(c, "m.weight"), *absmax = qz_ckpt_find(c, "m.weight.absmax"),
                    *map = qz_ckpt_find(c, "m.weight.quant_map");
    cr_assert(qz_ckpt_count(c) == 4);
    cr_assert(w->view.dtype == QZ_U8 && w->view.ndim == 2 && w->view.shape[0] == 64 && w->view.shape[1] == 1);
    cr_assert(((uint8_t *)w->view.data)[0] == 0x01 && ((uint8_t *)w->view.data)[7] == 0xef);
    cr_assert(absmax->view.dtype == QZ_F32 && absmax->view.shape[0] == 2 && qz_f32(&absmax->view)[1] == 0.75f);
    cr_assert(map->view.shape[0] == 16 && qz_f32(&map->view)[0] == -1 && qz_f32(&map->view)[15] == 1);
    cr_assert_str_eq(text_of(c, "m.weight.quant_state.bitsandbytes__nf4"),
                     "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [2, 64]}");
    cr_assert(qz_ckpt_is_part_of(c, "m.weight.quant_map", "m") && !qz_ckpt_is_part_of(c, "m.weight.other", "m"));
    qz_ckpt_close(c);
}

Test(bitsandbytes, blocks_run_across_rows_and_an_odd_code_is_padded)
{
    const qz_export_linear l = linear("m", 3, 43, nf4); /* 129 weights: two blocks and one number */
    cr_assert(l.scheme.flat == 64 && l.scheme.piece_cols == 0);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", bnb, &l, &q, NULL, arena);
    const qz_stored *w = qz_ckpt_find(c, "m.weight");
    cr_assert(w->view.shape[0] == 65 && ((uint8_t *)w->view.data)[64] == 0x07, "code 0, and that of the number 0");
    cr_assert(qz_ckpt_find(c, "m.weight.absmax")->view.shape[0] == 3);
    float out[129];
    check_ok(qz_ckpt_read_weight(c, "m", 3, 43, out, arena));
    for (int i = 0; i < 129; i++)
        cr_assert(out[i] == qz_codebook_value(i % 16, QZ_FORMAT_NF4) * (0.5f + 0.25f * (float)(i / 64)), "%d", i);
    qz_ckpt_close(c);
}

Test(bitsandbytes, quantized_scales)
{
    qz_scheme scheme = nf4;
    scheme.format = QZ_FORMAT_FP4;
    scheme.double_quant = true;
    const qz_export_linear l = linear("m", 260, 64, scheme);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", bnb, &l, &q, NULL, arena);
    const qz_stored *absmax = qz_ckpt_find(c, "m.weight.absmax"), *nested = qz_ckpt_find(c, "m.weight.nested_absmax"),
                    *map = qz_ckpt_find(c, "m.weight.nested_quant_map");
    cr_assert(qz_ckpt_count(c) == 6 && absmax->view.dtype == QZ_U8 && nested->view.shape[0] == 2);
    cr_assert(map->view.shape[0] == 256 && qz_f32(&map->view)[255] == 1);
    const char *text = text_of(c, "m.weight.quant_state.bitsandbytes__fp4");
    case_has(text, "\"shape\": [260, 64], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
                   "\"nested_offset\": 32.875} "); /* the mean of 0.5 + 0.25 i, i < 260 */
    qz_qtensor back;
    check_ok(qz_ckpt_read_qtensor(c, "m", 260, 64, &back, arena));
    check_ok(qz_qtensor_compare(&q, &back));
    cr_assert(back.scheme.double_quant && back.scale_offset == q.scale_offset);
    cr_assert_arr_eq(back.scale_codes, q.scale_codes, 260);
    qz_ckpt_close(c);
}

Test(bitsandbytes, int8_stores_the_largest_of_a_row)
{
    const qz_export_linear l = int8("m", 4, 3);
    cr_assert(l.scheme.narrow && l.scheme.scale_type == QZ_F32);
    const float most[] = {1, 0.3f, 0, 127};
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 4, 3, arena));
    for (int i = 0; i < 12; i++) q.codes[i] = (uint8_t)(i % 3 == 0 ? 255 : i % 3 == 1 ? 1 : 128);
    for (int i = 0; i < 4; i++) q.scales[i] = most[i] / 127.0f;
    qz_ckpt *c = case_written("m", bnb, &l, &q, NULL, arena);
    const qz_stored *w = qz_ckpt_find(c, "m.weight"), *scb = qz_ckpt_find(c, "m.SCB"),
                    *format = qz_ckpt_find(c, "m.weight_format");
    cr_assert(w->view.dtype == QZ_I8 && ((int8_t *)w->view.data)[0] == 127 && ((int8_t *)w->view.data)[1] == -127);
    cr_assert(format->view.dtype == QZ_U8 && format->view.ndim == 0 && *(uint8_t *)format->view.data == 0);
    for (int i = 0; i < 4; i++)
        cr_assert(qz_f32(&scb->view)[i] / 127.0f == q.scales[i] &&
                      fabsf(qz_f32(&scb->view)[i] - most[i]) <= 6e-8f * most[i],
                  "%d", i);
    cr_assert(qz_f32(&scb->view)[0] == 1 && qz_f32(&scb->view)[2] == 0 && qz_f32(&scb->view)[3] == 127);
    qz_qtensor back;
    check_ok(qz_ckpt_read_qtensor(c, "m", 4, 3, &back, arena));
    check_ok(qz_qtensor_compare(&q, &back));
    qz_ckpt_close(c);
}

Test(bitsandbytes, what_cannot_be_written_is_told)
{
    qz_status status;
    const qz_export_linear l = int8("m", 1, 3);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l.scheme, 1, 3, arena));
    memset(q.codes, 1, 3);
    /* 127 / 128 of the numbers between 2^-7 and 2^-6 are a quotient; find one that is not */
    float scale = 0.0079f;
    while (scale * 127 / 127 == scale) scale = nextafterf(scale, 1);
    q.scales[0] = scale;
    case_write(&status, "a", bnb, &l, &q, NULL, arena);
    check_fails(QZ_NUMERIC, "of output 0 is no number over 127", status);
    qz_scheme scheme = nf4;
    scheme.double_quant = true;
    const qz_export_linear twice = linear("m", 2, 64, scheme);
    q = matrix(&twice);
    q.scales[1] = nextafterf(q.scales[1], 9);
    case_write(&status, "b", bnb, &twice, &q, NULL, arena);
    check_fails(QZ_NUMERIC, "m: scale 1 is", status);
    check_fails(QZ_SHAPE, "is not the declared (1, 3)", bnb->write_linear(NULL, &l, &q, NULL, arena));
}

/* ---- quant_state ---- */

static qz_status parse(const char *text, qz_bnb_state *out)
{
    return qz_bnb_state_parse(out, text, strlen(text));
}

Test(bitsandbytes, quant_state_text_has_one_size_for_every_offset)
{
    const float offset[] = {0, 0.0856475830078125f, -1.17549435e-38f, 3.4028e38f, 1e-7f, 0.1f};
    for (int i = 0; i < 6; i++) {
        qz_bnb_state s = {QZ_FORMAT_NF4, 64, QZ_F16, 7, 9, true, offset[i]}, back;
        char *text;
        int64_t size;
        check_ok(qz_bnb_state_print(&text, &s, arena));
        check_ok(parse(text, &back));
        cr_assert(back.offset == offset[i] && back.n == 7 && back.k == 9 && back.type == QZ_F16 && back.nested);
        s.offset = 0;
        check_ok(qz_bnb_state_size(&size, &s, arena));
        cr_assert(size == (int64_t)strlen(text), "%s", text);
    }
}

Test(bitsandbytes, quant_state_is_checked)
{
    qz_bnb_state s;
    check_ok(parse("{\"quant_type\":\"fp4\",\"blocksize\":128,\"dtype\":\"float32\",\"shape\":[3,5]} ", &s));
    cr_assert(s.format == QZ_FORMAT_FP4 && s.block == 128 && s.type == QZ_F32 && !s.nested);
    check_fails(QZ_FORMAT, "expected an object", parse("[]", &s));
    check_fails(QZ_FORMAT, "quant_type", parse("{\"quant_type\":\"int4\"}", &s));
    check_fails(QZ_FORMAT, "quant_type", parse("{}", &s));
    check_fails(QZ_FORMAT, "dtype", parse("{\"quant_type\":\"nf4\",\"dtype\":\"f16\"}", &s));
    check_fails(QZ_FORMAT, "blocksize", parse("{\"quant_type\":\"nf4\",\"dtype\":\"float16\"}", &s));
#define HEAD "{\"quant_type\":\"nf4\",\"dtype\":\"float16\",\"blocksize\":64,"
    check_fails(QZ_FORMAT, "shape", parse(HEAD "\"shape\":[1]}", &s));
    check_fails(QZ_FORMAT, "shape[1]", parse(HEAD "\"shape\":[1,0]}", &s));
    check_fails(QZ_FORMAT, "nested_blocksize", parse(HEAD "\"shape\":[1,2],\"nested_blocksize\":128}", &s));
    check_fails(QZ_FORMAT, "nested_dtype", parse(HEAD "\"shape\":[1,2],\"nested_blocksize\":256}", &s));
    check_fails(QZ_FORMAT, "nested_offset",
                parse(HEAD "\"shape\":[1,2],\"nested_blocksize\":256,\"nested_dtype\":\"float32\"}", &s));
}

/* ---- config ---- */

Test(bitsandbytes, config_block)
{
    qz_export_linear l[2] = {linear("a", 8, 64, nf4), linear("b", 8, 64, nf4)};
    l[0].scheme.double_quant = true;
    l[1].quantized = false;
    const char *text = case_block(bnb, l, 2, arena);
    static const char *const part[] = {"\"quant_method\": \"bitsandbytes\"",
                                       "\"load_in_4bit\": true",
                                       "\"load_in_8bit\": false",
                                       "\"bnb_4bit_quant_type\": \"nf4\"",
                                       "\"bnb_4bit_use_double_quant\": true",
                                       "\"bnb_4bit_compute_dtype\": \"bfloat16\"",
                                       "\"bnb_4bit_quant_storage\": \"uint8\"",
                                       "\"llm_int8_threshold\": 6.0",
                                       "\"b\"",
                                       "\"lm_head\""};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) case_has(text, part[i]);
    l[0] = int8("a", 8, 64);
    text = case_block(bnb, l, 2, arena);
    case_has(text, "\"load_in_8bit\": true");
    cr_assert(!strstr(text, "bnb_4bit"), "%s", text);
}

Test(bitsandbytes, reads_the_scheme)
{
    qz_scheme s;
    check_ok(case_scheme(bnb, "\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"nf4\"", &s));
    cr_assert(s.format == QZ_FORMAT_NF4 && s.flat == 64 && !s.double_quant);
    check_ok(case_scheme(bnb, "\"load_in_4bit\":true,\"bnb_4bit_use_double_quant\":true", &s));
    cr_assert(s.format == QZ_FORMAT_FP4 && s.double_quant);
    check_ok(case_scheme(bnb, "\"load_in_8bit\":true,\"load_in_4bit\":false", &s));
    cr_assert(s.format == QZ_FORMAT_INT8 && s.narrow && s.piece_rows == 1 && s.piece_cols == 0);
    check_fails(QZ_FORMAT, "exactly one", case_scheme(bnb, "", &s));
    check_fails(QZ_FORMAT, "exactly one", case_scheme(bnb, "\"load_in_8bit\":true,\"load_in_4bit\":true", &s));
    check_fails(QZ_FORMAT, "load_in_4bit", case_scheme(bnb, "\"load_in_4bit\":1", &s));
    check_fails(QZ_FORMAT, "bnb_4bit_quant_type",
                case_scheme(bnb, "\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"int4\"", &s));
}

/* ---- folders that do not fit ---- */

#define PART(name, type, shape, from, to)                                                                              \
    "\"m." name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static uint8_t data[256]; /* absmax at 0, table at 4, codes at 68, state at 100 */

static qz_status read_4bit(const char *name, const char *absmax, const char *table, const char *codes,
                           const char *state)
{
    char header[900], text[100];
    const char *folder = fixture_folder(name);
    memset(data + 100, ' ', 100);
    memcpy(data + 100, state, strlen(state));
    snprintf(text, sizeof text, "[%d]", 100);
    snprintf(header, sizeof header, "{%s,%s,%s,%s}", absmax, table, codes,
             PART("weight.quant_state.bitsandbytes__nf4", "U8", "[100]", 100, 200));
    fixture_text(folder, "config.json",
                 "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}}");
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, 200);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_is_quantized(c, "m"));
    float out[64];
    qz_status status = qz_ckpt_read_weight(c, "m", 4, 16, out, arena);
    if (status == QZ_OK) cr_assert(out[0] == 2 && out[1] == -2 && out[63] == -2);
    qz_ckpt_close(c);
    return status;
}

Test(bitsandbytes, reading_checks_every_part)
{
    const char *absmax = PART("weight.absmax", "F32", "[1]", 0, 4),
               *table = PART("weight.quant_map", "F32", "[16]", 4, 68),
               *codes = PART("weight", "U8", "[32,1]", 68, 100),
               *state = "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float16\",\"shape\":[4,16]}";
    float values[17] = {2};
    for (int i = 0; i < 16; i++) values[i + 1] = qz_codebook_value(i, QZ_FORMAT_NF4);
    memcpy(data, values, sizeof values);
    memset(data + 68, 0xf0, 32);
    check_ok(read_4bit("good", absmax, table, codes, state));
    check_fails(QZ_FORMAT, "\"m.weight.absmax\" has the type U8; F32 is expected",
                read_4bit("a", PART("weight.absmax", "U8", "[4]", 0, 4), table, codes, state));
    check_fails(QZ_SHAPE, "\"m.weight\" has the shape [16, 2]; [32, 1] is expected",
                read_4bit("b", absmax, table, PART("weight", "U8", "[16,2]", 68, 100), state));
    check_fails(QZ_SHAPE, "says the shape [16, 4]; [4, 16] is expected",
                read_4bit("c", absmax, table, codes,
                          "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float16\",\"shape\":[16,4]}"));
    check_fails(QZ_FORMAT, "quant_state.bitsandbytes__nf4\": line 1",
                read_4bit("d", absmax, table, codes, "{\"quant_type\":"));
    check_fails(QZ_FORMAT, "\"m.weight.quant_map\" is missing",
                read_4bit("e", absmax, PART("other", "F32", "[16]", 4, 68), codes, state));
    check_fails(QZ_UNSUPPORTED, "the table of fp4 has",
                read_4bit("f", absmax, table, codes,
                          "{\"quant_type\":\"fp4\",\"blocksize\":64,\"dtype\":\"float16\",\"shape\":[4,16]}"));
    data[2] = 0x80;
    data[3] = 0x7f;
    check_fails(QZ_NUMERIC, "holds an infinity", read_4bit("g", absmax, table, codes, state));
}

Test(bitsandbytes, int8_in_another_layout_is_refused)
{
    const char *folder = fixture_folder("m");
    const uint8_t bytes[9] = {0, 0, 0x80, 0x3f, 1, 2, 3, 4, 1};
    fixture_text(folder, "config.json",
                 "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}}");
    fixture_file(fixture_in(folder, "model.safetensors"),
                 "{" PART("SCB", "F32", "[1]", 0, 4) "," PART("weight", "I8", "[1,4]", 4,
                                                              8) "," PART("weight_format", "U8", "[]", 8, 9) "}",
                 bytes, sizeof bytes);
    qz_ckpt *c;
    float out[4];
    check_ok(qz_ckpt_open(&c, folder));
    check_fails(QZ_UNSUPPORTED, "\"m.weight_format\" is 1", qz_ckpt_read_weight(c, "m", 1, 4, out, arena));
    qz_ckpt_close(c);
}

/* ---- plans ---- */

Test(bitsandbytes, expresses_each_kind)
{
    qz_export_linear l[2] = {linear("a", 8, 128, nf4), linear("b", 8, 100, nf4)};
    cr_assert(l[0].scheme.piece_cols == 64 && l[0].scheme.flat == 0 && l[1].scheme.flat == 64);
    check_ok(case_express(bnb, l, 2));
    l[1].scheme.double_quant = true;
    check_fails(QZ_UNSUPPORTED, "a and b have different formats", case_express(bnb, l, 2));
    l[0].scheme.double_quant = true;
    check_ok(case_express(bnb, l, 2));
    l[0] = int8("a", 8, 128);
    check_ok(case_express(bnb, l, 1));
}

Test(bitsandbytes, declines_what_readers_do_not_take)
{
    qz_scheme scheme = nf4;
    scheme.piece_cols = 128;
    qz_export_linear l = linear("m", 8, 128, scheme);
    check_fails(QZ_UNSUPPORTED, "m: found nf4 group 128; bitsandbytes has a scale for each 64 weights",
                case_express(bnb, &l, 1));
    l = linear("m", 8, 128,
               (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1, .piece_cols = 64, .symmetric = true});
    check_fails(QZ_UNSUPPORTED, "LLM.int8() is symmetric with one scale an output", case_express(bnb, &l, 1));
    l = linear("m", 8, 128, (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1});
    check_fails(QZ_UNSUPPORTED, "LLM.int8() is symmetric", case_express(bnb, &l, 1));
    l = linear("m", 8, 128, (qz_scheme){.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 64});
    check_fails(QZ_UNSUPPORTED, "bitsandbytes holds nf4, fp4 and int8", case_express(bnb, &l, 1));
    l = linear("lm_head", 8, 128, nf4);
    l.layer = -1;
    check_fails(QZ_UNSUPPORTED, "lm_head lies outside", case_express(bnb, &l, 1));
    l.quantized = false;
    check_fails(QZ_UNSUPPORTED, "no linear is quantized", case_express(bnb, &l, 1));
    l = linear("m", 8, 128, nf4);
    l.activation = (qz_act_scheme){.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8};
    cr_assert(case_express(bnb, &l, 1) == QZ_UNSUPPORTED);
    l = linear("m", 8, 128, nf4);
    l.ordered = true;
    check_fails(QZ_UNSUPPORTED, "order", case_express(bnb, &l, 1));
}
