/* Widening plain tensors: values, shapes, types, NaN and infinities, unaligned data. */
#include <math.h>

#include "base/arena.h"
#include "base/parallel.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

static qz_arena *scratch;

static qz_ckpt *model(const char *name, const char *header, const void *data, size_t size)
{
    const char *folder = fixture_folder(name);
    fixture_text(folder, "config.json", "{}");
    fixture_file(fixture_in(folder, "model.safetensors"), header, data, size);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    return c;
}

static void start(void)
{
    check_ok(qz_arena_new(&scratch, "scratch"));
}

static void stop(void)
{
    qz_arena_free(scratch);
}

TestSuite(weights, .init = start, .fini = stop);

Test(weights, widens_the_three_types)
{
    static const struct {
        const char *type;
        uint8_t bytes[8];
        size_t size;
    } cases[] = {{"F32", {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0}, 8}, /* 1, -2.5 */
                 {"BF16", {0x80, 0x3f, 0x20, 0xc0}, 4},
                 {"F16", {0x00, 0x3c, 0x00, 0xc1}, 4}};
    for (size_t i = 0; i < 3; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"m.weight\":{\"dtype\":\"%s\",\"shape\":[1,2],\"data_offsets\":[0,%zu]}}",
                 cases[i].type, cases[i].size);
        qz_ckpt *c = model(cases[i].type, header, cases[i].bytes, cases[i].size);
        float x[2] = {0};
        check_ok(qz_ckpt_read_weight(c, "m", 1, 2, x, scratch));
        cr_assert(x[0] == 1 && x[1] == -2.5f);
        x[0] = 0;
        check_ok(qz_ckpt_read_plain(c, "m.weight", 2, (int64_t[]){1, 2}, x));
        cr_assert(x[0] == 1);
        cr_assert(qz_arena_used(scratch) == 0);
        qz_ckpt_close(c);
    }
}

/* The header's length decides where the data begin; UBSan sees an access that is not aligned. */
Test(weights, unaligned_data_of_old_writers)
{
    for (int pad = 0; pad < 8; pad++) {
        char header[200], name[20];
        snprintf(name, sizeof name, "m%d", pad);
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                 "\"h\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}%.*s",
                 pad, "        ");
        qz_ckpt *c = model(name, header, (uint16_t[]){0, 0x3fc0, 0, 0xc040, 0x3fc0, 0xc040}, 12);
        float x[2];
        check_ok(qz_ckpt_read_plain(c, "w", 1, (int64_t[]){2}, x));
        cr_assert(x[0] == 1.5f && x[1] == -3);
        check_ok(qz_ckpt_read_plain(c, "h", 1, (int64_t[]){2}, x));
        cr_assert(x[0] == 1.5f && x[1] == -3);
        qz_ckpt_close(c);
    }
}

Test(weights, missing_wrong_type_wrong_shape)
{
    qz_ckpt *c = model("m",
                       "{\"m.weight\":{\"dtype\":\"I32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                       "\"w.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]}}",
                       (int32_t[]){1, 2, 3, 4}, 16);
    float x[2];
    check_fails(QZ_FORMAT, "\"k.weight\" is missing", qz_ckpt_read_weight(c, "k", 2, 1, x, scratch));
    check_fails(QZ_FORMAT, "type I32; F32, F16 or BF16 is expected", qz_ckpt_read_weight(c, "m", 2, 1, x, scratch));
    check_fails(QZ_SHAPE, "\"w.weight\" has the shape [2, 1]; [1, 2] is expected",
                qz_ckpt_read_weight(c, "w", 1, 2, x, scratch));
    check_fails(QZ_SHAPE, "[2, 1]; [2] is expected", qz_ckpt_read_plain(c, "w.weight", 1, (int64_t[]){2}, x));
    qz_qtensor q;
    check_fails(QZ_ARG, "\"w\" is not stored quantized", qz_ckpt_read_qtensor(c, "w", 2, 1, &q, scratch));
    qz_ckpt_close(c);
}

/* A (rows, 1000) matrix of bf16 with `bits` at `at`. */
static qz_ckpt *spoiled(const char *name, int rows, size_t at, uint16_t bits, size_t at2)
{
    size_t count = (size_t)rows * 1000;
    uint16_t *x = calloc(count, 2);
    x[at] = bits;
    x[at2] = bits;
    char header[200];
    snprintf(header, sizeof header, "{\"m.weight\":{\"dtype\":\"BF16\",\"shape\":[%d,1000],\"data_offsets\":[0,%zu]}}",
             rows, 2 * count);
    qz_ckpt *c = model(name, header, x, 2 * count);
    free(x);
    return c;
}

Test(weights, not_finite_names_tensor_and_index)
{
    enum { ROWS = 900 };
    float *out = malloc((size_t)ROWS * 1000 * sizeof *out);
    static const struct {
        const char *name;
        size_t at, at2;
        uint16_t bits;
        const char *part;
    } cases[] = {{"first", 0, 0, 0x7fc0, "\"m.weight\" holds NaN at [0, 0]"},
                 {"last", ROWS * 1000 - 1, ROWS * 1000 - 1, 0x7f80, "an infinity at [899, 999]"},
                 {"negative", 123456, 123456, 0xff80, "an infinity at [123, 456]"},
                 {"signaling", 4096, 4096, 0x7f81, "NaN at [4, 96]"},
                 {"smallest index wins", 700123, 300007, 0x7fc0, "NaN at [300, 7]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int threads = 1; threads <= 4; threads += 3) {
            char name[40];
            snprintf(name, sizeof name, "%zu-%d", i, threads);
            qz_threads_set(threads);
            qz_ckpt *c = spoiled(name, ROWS, cases[i].at, cases[i].bits, cases[i].at2);
            check_fails(QZ_NUMERIC, cases[i].part, qz_ckpt_read_weight(c, "m", ROWS, 1000, out, scratch));
            qz_ckpt_close(c);
        }
    qz_ckpt *c = spoiled("largest finite", ROWS, 5, 0x7f7f, 6);
    check_ok(qz_ckpt_read_weight(c, "m", ROWS, 1000, out, scratch));
    cr_assert(isfinite(out[5]) && out[5] > 3e38f);
    qz_ckpt_close(c);
    free(out);
}

Test(weights, parts_of_a_plain_linear)
{
    qz_ckpt *c = model("m", "{\"m.weight\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", "", 0);
    cr_assert(qz_ckpt_is_part_of(c, "m.weight", "m") && qz_ckpt_is_part_of(c, "m.bias", "m"));
    cr_assert(!qz_ckpt_is_part_of(c, "m.scales", "m") && !qz_ckpt_is_part_of(c, "mm.weight", "m"));
    cr_assert(!qz_ckpt_is_part_of(c, "m.weight.x", "m") && !qz_ckpt_is_part_of(c, "m", "m"));
    cr_assert(qz_ckpt_find_part(c, "m", "weight") != NULL && qz_ckpt_find_part(c, "m", "bias") == NULL);
    char longer[2000];
    memset(longer, 'm', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    cr_assert(qz_ckpt_find_part(c, longer, "weight") == NULL);
    qz_ckpt_close(c);
}
