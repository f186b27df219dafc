/* Random matrices -> folder -> the same matrices; the same bytes twice and for any number of threads; a spoiled file is
 * refused or read within its bounds. Runs over every container that writes. */
#include <stdio.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "checkpoints/checkpoints.h"
#include "numeric/minifloat.h"
#include "testing/safetensors_fixture.h"

enum { LINEARS = 7 };

static qz_arena *arena;

static void start(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void stop(void)
{
    qz_arena_free(arena);
}

TestSuite(roundtrip, .init = start, .fini = stop);

typedef struct model {
    qz_export_linear linear[LINEARS];
    char name[LINEARS][40];
    qz_qtensor q[LINEARS];
    uint16_t bias[LINEARS][256];
    uint16_t norm[64];
} model;

static qz_scheme random_scheme(qz_rng *r)
{
    static const int64_t group[] = {32, 64, 128, 0};
    return (qz_scheme){.format = QZ_FORMAT_INT4,
                       .piece_rows = 1,
                       .piece_cols = group[qz_rng_below(r, 4)],
                       .symmetric = qz_rng_below(r, 2),
                       .scale_type = QZ_F16};
}

static void random_matrix(qz_qtensor *q, const qz_export_linear *l, qz_rng *r)
{
    check_ok(qz_qtensor_alloc(q, &l->scheme, l->n, l->k, arena));
    int64_t pieces = l->n * qz_scheme_scale_cols(&l->scheme, l->k);
    for (int64_t i = 0; i < l->n * l->k; i++) q->codes[i] = (uint8_t)qz_rng_below(r, 16);
    for (int64_t i = 0; i < pieces; i++) q->scales[i] = qz_f16_decode((uint16_t)(1 + qz_rng_below(r, 0x7bff)));
    for (int64_t i = 0; q->zeros && i < pieces; i++) q->zeros[i] = (uint8_t)qz_rng_below(r, 16);
}

static model *random_model(uint64_t seed)
{
    model *m = qz_arena_calloc(arena, sizeof *m);
    qz_rng r;
    qz_rng_seed(&r, seed, 0);
    qz_scheme scheme = random_scheme(&r);
    for (int i = 0; i < LINEARS; i++) {
        snprintf(m->name[i], sizeof m->name[i], "model.layers.0.linear%d", i);
        m->linear[i] = (qz_export_linear){.module = m->name[i],
                                          .n = 8 * (int64_t)(1 + qz_rng_below(&r, 30)),
                                          .k = 128 * (int64_t)(1 + qz_rng_below(&r, 4)),
                                          .has_bias = i == 2,
                                          .quantized = true,
                                          .scheme = scheme,
                                          .fused = i < 3 ? 0 : -1};
        random_matrix(&m->q[i], &m->linear[i], &r);
        for (int j = 0; j < 256; j++) m->bias[i][j] = (uint16_t)qz_rng_below(&r, 0x7c00);
    }
    for (int j = 0; j < 64; j++) m->norm[j] = (uint16_t)qz_rng_below(&r, 0x7c00);
    return m;
}

static qz_export_plan plan_of(const model *m)
{
    return (qz_export_plan){.linear = m->linear, .linears = LINEARS, .plain_type = QZ_F16};
}

static void declare(qz_shards *s, const model *m, const qz_container *container)
{
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        check_ok(container->declare_linear(s, l));
        char bias[60];
        snprintf(bias, sizeof bias, "%s.bias", l->module);
        if (l->has_bias) check_ok(qz_shards_declare(s, l->module, bias, QZ_F16, 1, &l->n));
    }
    check_ok(qz_shards_declare(s, "model.norm", "model.norm.weight", QZ_F16, 1, (int64_t[]){64}));
}

static const char *write_model(const char *name, const model *m, const qz_container *container, uint64_t limit)
{
    const char *folder = fixture_folder(name);
    qz_export_plan plan = plan_of(m);
    qz_shards *s;
    check_ok(container->can_express(&plan));
    check_ok(qz_shards_new(&s, folder, limit));
    declare(s, m, container);
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write(s, "model.norm.weight", m->norm, sizeof m->norm));
    for (int i = LINEARS - 1; i >= 0; i--) {
        const qz_export_linear *l = &m->linear[i];
        check_ok(container->write_linear(s, l, &m->q[i], NULL, arena));
        char bias[60];
        snprintf(bias, sizeof bias, "%s.bias", l->module);
        if (l->has_bias) check_ok(qz_shards_write(s, bias, m->bias[i], (size_t)l->n * 2));
    }
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    char *block;
    check_ok(container->config_block(&block, &plan, arena));
    fixture_text(folder, "config.json", qz_arena_printf(arena, "{\"quantization_config\": %s}", block));
    return folder;
}

static void check_one_shard(const qz_ckpt *c, const qz_container *container, const char *module)
{
    const char *file = NULL;
    for (const char *const *s = container->suffixes; *s; s++) {
        const qz_stored *t = qz_ckpt_find_part(c, module, *s);
        if (t && file) cr_assert_str_eq(t->file, file);
        if (t) file = t->file;
    }
    cr_assert(file != NULL);
}

static void check_model(const char *folder, const model *m, const qz_container *container)
{
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_container(c) == container);
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        qz_qtensor back;
        check_ok(qz_ckpt_read_qtensor(c, l->module, l->n, l->k, &back, arena));
        check_ok(qz_qtensor_compare(&m->q[i], &back));
        float *ours = qz_arena_array(arena, float, (size_t)(l->n * l->k)),
              *theirs = qz_arena_array(arena, float, (size_t)(l->n * l->k));
        check_ok(qz_ckpt_read_weight(c, l->module, l->n, l->k, theirs, arena));
        qz_qtensor_dequantize(ours, &m->q[i], 0, l->n);
        cr_assert(memcmp(ours, theirs, (size_t)(l->n * l->k) * sizeof *ours) == 0, "%s", l->module);
        check_one_shard(c, container, l->module);
        const qz_stored *bias = qz_ckpt_find_part(c, l->module, "bias");
        cr_assert((bias != NULL) == l->has_bias);
        if (bias) cr_assert(memcmp(bias->view.data, m->bias[i], bias->bytes) == 0);
    }
    float norm[64];
    check_ok(qz_ckpt_read_plain(c, "model.norm.weight", 1, (int64_t[]){64}, norm));
    for (int j = 0; j < 64; j++) cr_assert(norm[j] == qz_f16_decode(m->norm[j]));
    qz_ckpt_close(c);
}

/* Names and contents of all files. */
static char *fingerprint(const char *folder)
{
    char **name, *text = qz_arena_strdup(arena, "");
    size_t count;
    check_ok(qz_folder_list(&name, &count, folder, arena));
    for (size_t i = 0; i < count; i++) {
        char hash[QZ_HASH_TEXT];
        check_ok(qz_hash_file(hash, fixture_in(folder, name[i])));
        text = qz_arena_printf(arena, "%s%s %s\n", text, name[i], hash);
    }
    return text;
}

Test(roundtrip, every_container_gives_back_what_was_written)
{
    for (size_t i = 0; i < qz_containers()->count; i++) {
        const qz_container *container = qz_container_at(i);
        if (!container->can_express) continue;
        for (uint64_t seed = 1; seed <= 12; seed++) {
            char name[60];
            const model *m = random_model(seed);
            snprintf(name, sizeof name, "%zu-%d-whole", i, (int)seed);
            check_model(write_model(name, m, container, 0), m, container);
            snprintf(name, sizeof name, "%zu-%d-shards", i, (int)seed);
            check_model(write_model(name, m, container, 20000), m, container);
            qz_arena_reset(arena);
        }
    }
}

Test(roundtrip, same_bytes_twice_and_for_any_number_of_threads)
{
    for (size_t i = 0; i < qz_containers()->count; i++) {
        const qz_container *container = qz_container_at(i);
        if (!container->can_express) continue;
        const model *m = random_model(77);
        char name[60];
        char *first = NULL;
        for (int threads = 1; threads <= 8; threads *= 2) {
            qz_threads_set(threads);
            snprintf(name, sizeof name, "%zu-%d", i, threads);
            char *print = fingerprint(write_model(name, m, container, 30000));
            if (first) cr_assert_str_eq(print, first);
            first = print;
        }
        cr_assert(strstr(first, "model.safetensors.index.json") != NULL);
    }
}

/* ---- spoiled files ---- */

static void check_bounds(const uint8_t *bytes, size_t size)
{
    qz_safetensors *st;
    if (qz_safetensors_parse(&st, bytes, size, "spoiled") != QZ_OK) {
        cr_assert(*qz_error_message());
        return;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < qz_safetensors_count(st); i++) {
        const qz_stored *t = qz_safetensors_at(st, i);
        cr_assert(t->offset <= size && t->bytes <= size - t->offset);
        sum += t->bytes;
    }
    cr_assert(sum <= size);
    qz_safetensors_close(st);
}

Test(roundtrip, spoiled_files_never_leave_their_bounds)
{
    const qz_container *container;
    check_ok(qz_container_find(&container, "awq"));
    const char *folder = write_model("m", random_model(5), container, 0);
    qz_map map;
    check_ok(qz_map_open(&map, fixture_in(folder, "model.safetensors")));
    size_t size = map.size < 6000 ? map.size : 6000;
    uint8_t *bytes = malloc(map.size);
    qz_rng r;
    qz_rng_seed(&r, 9, 0);
    for (int i = 0; i < 2000; i++) {
        memcpy(bytes, map.data, map.size);
        for (uint32_t n = 1 + qz_rng_below(&r, 4); n > 0; n--)
            bytes[qz_rng_below(&r, (uint32_t)size)] = (uint8_t)qz_rng_below(&r, 256);
        check_bounds(bytes, qz_rng_below(&r, 4) ? map.size : qz_rng_below(&r, (uint32_t)map.size));
    }
    qz_map_close(&map);
    free(bytes);
}
