/* Random matrices -> folder -> the same matrices; the same bytes twice and for any number of threads; a spoiled file is
 * refused or read within its bounds. Runs over every container that writes. */
#include <stdio.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "checkpoints/checkpoints.h"
#include "numeric/intgrid.h"
#include "numeric/minifloat.h"
#include "testing/safetensors_fixture.h"

enum { LINEARS = 7, LAYERS = 2, KV_HEADS = 3 };

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
    qz_dtype plain;
    qz_export_linear linear[LINEARS];
    char name[LINEARS][40];
    qz_qtensor q[LINEARS];
    qz_act_values act[LINEARS];
    uint16_t bias[LINEARS][256];
    uint16_t norm[64];
    qz_kv_scheme kv;
    float key[LAYERS][KV_HEADS], value[LAYERS][KV_HEADS];
} model;

/* A positive number of the type, small enough that its multiples by a code are numbers of F16's range. A BF16 number is
 * one of F16 too, as in containers that store only those. */
static float random_number(qz_dtype type, qz_rng *r)
{
    if (type == QZ_F16) return qz_f16_decode((uint16_t)(1 + qz_rng_below(r, 0x3bff)));
    if (type == QZ_BF16) return qz_bf16_decode((uint16_t)(0x3880 + qz_rng_below(r, 0x0700)));
    return (float)(1 + qz_rng_below(r, 1 << 30)) / 1073741827.0f;
}

static qz_scheme random_scheme(qz_rng *r)
{
    static const int64_t piece[][2] = {{1, 32}, {1, 64}, {1, 128}, {1, 0}, {0, 0}, {128, 128}};
    static const qz_dtype type[] = {QZ_F16, QZ_BF16, QZ_F32};
    static const qz_format often[] = {QZ_FORMAT_INT4, QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3};
    uint32_t p = qz_rng_below(r, 6);
    qz_format format = (qz_format)qz_rng_below(r, QZ_FORMAT_COUNT);
    if (qz_rng_below(r, 2) || qz_format_of(format)->kind == QZ_KIND_PLAIN) format = often[qz_rng_below(r, 3)];
    qz_format_kind kind = qz_format_of(format)->kind;
    return (qz_scheme){.format = format,
                       .piece_rows = piece[p][0],
                       .piece_cols = piece[p][1],
                       .symmetric = qz_rng_below(r, 2),
                       .scale_type = type[qz_rng_below(r, 3)],
                       .double_quant = kind == QZ_KIND_CODEBOOK && qz_rng_below(r, 2)};
}

static qz_act_scheme random_activation(qz_format weights, qz_rng *r)
{
    bool floating = qz_format_of(weights)->kind == QZ_KIND_FLOAT;
    qz_act_scheme a = {.mode = (qz_act_mode)qz_rng_below(r, 4),
                       .format = floating ? QZ_FORMAT_FP8_E4M3 : QZ_FORMAT_INT8,
                       .symmetric = qz_rng_below(r, 2)};
    if (qz_rng_below(r, 4) == 0) a.format = QZ_FORMAT_FP8_E5M2;
    if (a.mode == QZ_ACT_GROUP) a.group = 128;
    return a;
}

static void random_matrix(qz_qtensor *q, const qz_export_linear *l, qz_rng *r)
{
    check_ok(qz_qtensor_alloc(q, &l->scheme, l->n, l->k, arena));
    uint32_t bits = (uint32_t)qz_format_of(l->scheme.format)->bits;
    bool floating = qz_format_of(l->scheme.format)->kind == QZ_KIND_FLOAT;
    int64_t pieces = qz_scheme_pieces(&l->scheme, l->n, l->k);
    uint32_t least = (uint32_t)l->scheme.least_zero, lowest = l->scheme.narrow;
    for (int64_t i = 0; i < l->n * l->k; i++) {
        q->codes[i] = (uint8_t)(lowest + qz_rng_below(r, (1u << bits) - lowest));
        if (floating && (q->codes[i] & 0x7f) >= 0x7c) q->codes[i] &= 0x83; /* no NaN, no infinity */
    }
    for (int64_t i = 0; i < pieces; i++) {
        q->scales[i] = random_number(l->scheme.scale_type, r);
        if (l->scheme.narrow) q->scales[i] = qz_grid_narrow_scale(q->scales[i], (int)bits);
    }
    if (l->scheme.double_quant) qz_qtensor_quantize_scales(q);
    for (int64_t i = 0; q->zeros && i < pieces; i++)
        q->zeros[i] = (uint8_t)(least + qz_rng_below(r, (1u << bits) - least));
    if (!l->ordered) return;
    q->permutation = qz_arena_array(arena, int32_t, (size_t)l->k);
    for (int64_t k = 0; k < l->k; k++)
        q->permutation[k] = (int32_t)qz_rng_below(r, (uint32_t)qz_scheme_scale_cols(&l->scheme, l->k));
}

static qz_export_plan plan_of(const model *m)
{
    static const char *const attention[LAYERS] = {"model.layers.0.self_attn", "model.layers.1.self_attn"};
    return (qz_export_plan){.linear = m->linear,
                            .linears = LINEARS,
                            .plain_type = m->plain,
                            .kv = m->kv,
                            .attention = attention,
                            .layers = LAYERS,
                            .kv_heads = KV_HEADS};
}

/* A scheme for a linear of a given size: one that the container holds, if a few hundred draws find one. */
static void draw_scheme(qz_export_linear *l, const qz_container *container, qz_dtype plain, qz_rng *r)
{
    const qz_export_plan alone = {.linear = l, .linears = 1, .plain_type = plain};
    for (int tries = 0; tries < 300; tries++) {
        l->scheme = random_scheme(r);
        l->activation = random_activation(l->scheme.format, r);
        l->ordered = qz_rng_below(r, 4) == 0;
        if (container->settle) container->settle(l, plain);
        if (container->can_express(&alone) == QZ_OK) return;
    }
}

/* Any scheme for any linear; the first three are a set that servers fuse. */
static void draw(model *m, const qz_container *container, qz_rng *r)
{
    bool one_scheme = qz_rng_below(r, 3), whole = qz_rng_below(r, 2), ragged = qz_rng_below(r, 3) == 0;
    for (int i = 0; i < LINEARS; i++) {
        qz_export_linear *l = &m->linear[i], *before = l - (i > 0);
        int64_t unit = whole ? 32 : 8;
        snprintf(m->name[i], sizeof m->name[i], "model.layers.0.linear%d", i);
        *l = (qz_export_linear){.module = m->name[i],
                                .n = unit * (int64_t)(1 + qz_rng_below(r, whole ? 7 : 30)),
                                .k = ragged ? 3 + (int64_t)qz_rng_below(r, 400)
                                            : 128 * (int64_t)(1 + qz_rng_below(r, 4)),
                                .has_bias = i == 2,
                                .quantized = true,
                                .fused = i < 3 ? 0 : -1,
                                .fused_as = i < 3 ? "model.layers.0.fused" : NULL};
        if (i > 0 && (one_scheme || i < 3)) {
            l->scheme = before->scheme;
            l->activation = before->activation;
            l->ordered = before->ordered;
            if (container->settle) container->settle(l, m->plain);
        } else {
            draw_scheme(l, container, m->plain, r);
        }
        if (i > 3 && qz_rng_below(r, 8) == 0) l->quantized = false;
    }
    m->kv = (qz_kv_scheme){.wanted = qz_rng_below(r, 3) == 0,
                           .format = qz_rng_below(r, 2) ? QZ_FORMAT_FP8_E4M3 : QZ_FORMAT_INT8,
                           .per_head = qz_rng_below(r, 2)};
}

/* Draws until the container can hold it. */
static model *random_model(uint64_t seed, const qz_container *container)
{
    model *m = qz_arena_calloc(arena, sizeof *m);
    qz_rng r;
    qz_rng_seed(&r, seed, 0);
    qz_export_plan plan;
    int tries = 0;
    m->plain = container->holds && qz_rng_below(&r, 2) ? QZ_BF16 : QZ_F16;
    do {
        draw(m, container, &r);
        plan = plan_of(m);
        cr_assert(++tries < 100000, "%s holds nothing of what was drawn: %s", container->plugin.name,
                  qz_error_message());
    } while (container->can_express(&plan) != QZ_OK);
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        if (l->quantized) random_matrix(&m->q[i], l, &r);
        if (l->activation.mode == QZ_ACT_TENSOR) m->act[i].scale = random_number(QZ_F32, &r);
        if (l->activation.mode == QZ_ACT_TENSOR && l->activation.format == QZ_FORMAT_INT8 && !l->activation.symmetric)
            m->act[i].zero = (int)qz_rng_below(&r, 256) - 128;
        for (int j = 0; j < 256; j++) m->bias[i][j] = (uint16_t)qz_rng_below(&r, 0x7c00);
    }
    for (int j = 0; j < 64; j++) m->norm[j] = (uint16_t)qz_rng_below(&r, 0x7c00);
    for (int i = 0; i < LAYERS; i++)
        for (int h = 0; h < KV_HEADS; h++) {
            bool same = !m->kv.per_head && h > 0;
            m->key[i][h] = same ? m->key[i][0] : random_number(QZ_F32, &r);
            m->value[i][h] = same ? m->value[i][0] : random_number(QZ_F32, &r);
        }
    return m;
}

static void declare(qz_shards *s, const model *m, const qz_container *container)
{
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        if (!l->quantized) continue;
        check_ok(container->declare_linear(s, l));
        char bias[60];
        snprintf(bias, sizeof bias, "%s.bias", l->module);
        if (l->has_bias) check_ok(qz_shards_declare(s, l->module, bias, QZ_F16, 1, &l->n));
    }
    check_ok(qz_shards_declare(s, "model.norm", "model.norm.weight", QZ_F16, 1, (int64_t[]){64}));
    qz_export_plan plan = plan_of(m);
    for (int i = 0; i < LAYERS && m->kv.wanted; i++) check_ok(container->declare_kv(s, &plan, i));
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
        if (!l->quantized) continue;
        check_ok(container->write_linear(s, l, &m->q[i], &m->act[i], arena));
        char bias[60];
        snprintf(bias, sizeof bias, "%s.bias", l->module);
        if (l->has_bias) check_ok(qz_shards_write(s, bias, m->bias[i], (size_t)l->n * 2));
    }
    for (int i = 0; i < LAYERS && m->kv.wanted; i++)
        check_ok(container->write_kv(s, &plan, i, &(qz_kv_values){m->key[i], m->value[i]}));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    char *block;
    check_ok(container->config_block(&block, &plan, arena));
    fixture_text(folder, "config.json",
                 qz_arena_printf(arena, "{\"quantization_config\": %s}", block ? block : "null"));
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

static void check_activation(const qz_ckpt *c, const qz_export_linear *l, const qz_act_values *wanted)
{
    qz_act_scheme scheme;
    qz_act_values values;
    check_ok(qz_ckpt_read_activation(c, l->module, &scheme, &values));
    cr_assert(scheme.mode == l->activation.mode, "%s", l->module);
    if (scheme.mode == QZ_ACT_NONE) return;
    cr_assert(scheme.format == l->activation.format && scheme.group == l->activation.group, "%s", l->module);
    if (scheme.format == QZ_FORMAT_INT8) {
        cr_assert(scheme.symmetric == l->activation.symmetric, "%s", l->module);
        cr_assert(scheme.divisor == qz_ckpt_container(c)->int8_divisor && scheme.divisor > 0);
    }
    cr_assert(values.scale == wanted->scale && values.zero == wanted->zero, "%s", l->module);
}

static void check_kv(const qz_ckpt *c, const model *m)
{
    qz_export_plan plan = plan_of(m);
    for (int i = 0; i < LAYERS; i++) {
        qz_kv_scheme scheme;
        float key[KV_HEADS] = {0}, value[KV_HEADS] = {0};
        check_ok(qz_ckpt_read_kv(c, plan.attention[i], KV_HEADS, &scheme, key, value));
        cr_assert(scheme.wanted == m->kv.wanted);
        if (!scheme.wanted) continue;
        cr_assert(scheme.format == m->kv.format && scheme.per_head == m->kv.per_head);
        for (int h = 0; h < KV_HEADS; h++) cr_assert(key[h] == m->key[i][h] && value[h] == m->value[i][h]);
    }
}

/* Codes, scales, zeros and order; or, where only values are stored, those rounded to the type of plain tensors. */
static void check_matrix(const qz_ckpt *c, const qz_export_linear *l, const qz_qtensor *q)
{
    int64_t count = l->n * l->k;
    float *ours = qz_arena_array(arena, float, (size_t)count), *theirs = qz_arena_array(arena, float, (size_t)count);
    uint16_t *half = qz_arena_array(arena, uint16_t, (size_t)count);
    check_ok(qz_ckpt_read_weight(c, l->module, l->n, l->k, theirs, arena));
    qz_qtensor_dequantize(ours, q, 0, l->n);
    cr_assert(qz_ckpt_is_quantized(c, l->module) == (qz_ckpt_container(c)->holds != NULL));
    if (qz_ckpt_is_quantized(c, l->module)) {
        qz_qtensor back;
        check_ok(qz_ckpt_read_qtensor(c, l->module, l->n, l->k, &back, arena));
        check_ok(qz_qtensor_compare(q, &back));
    } else {
        check_ok(qz_convert(half, QZ_F16, ours, QZ_F32, count));
        check_ok(qz_convert(ours, QZ_F32, half, QZ_F16, count));
    }
    cr_assert(memcmp(ours, theirs, (size_t)count * sizeof *ours) == 0, "%s", l->module);
}

static void check_model(const char *folder, const model *m, const qz_container *container)
{
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_container(c) == container);
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        if (!l->quantized) continue;
        check_activation(c, l, &m->act[i]);
        check_matrix(c, l, &m->q[i]);
        check_one_shard(c, container, l->module);
        const qz_stored *bias = qz_ckpt_find_part(c, l->module, "bias");
        cr_assert((bias != NULL) == l->has_bias);
        if (bias) cr_assert(memcmp(bias->view.data, m->bias[i], bias->bytes) == 0);
    }
    check_kv(c, m);
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
            const model *m = random_model(seed, container);
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
        const model *m = random_model(77, container);
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
    const char *folder = write_model("m", random_model(5, container), container, 0);
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

/* A few bytes of the file changed: of its first `size`. */
static void spoil(const char *path, const uint8_t *whole, size_t length, size_t size, qz_rng *r)
{
    uint8_t *bytes = malloc(length);
    memcpy(bytes, whole, length);
    for (uint32_t n = 1 + qz_rng_below(r, 3); n > 0; n--) {
        static const char likely[] = "0123456789\"{}[],:-.re*()nulltrue";
        uint8_t any = (uint8_t)qz_rng_below(r, 256);
        bytes[qz_rng_below(r, (uint32_t)size)] = qz_rng_below(r, 2) ? any : (uint8_t)likely[qz_rng_below(r, 32)];
    }
    test_write_file(path, bytes, length);
    free(bytes);
}

/* Whatever can be asked of a folder: an answer or an error. */
static void read_everything(const char *folder, const model *m, qz_arena *scratch)
{
    qz_ckpt *c;
    qz_export_plan plan = plan_of(m);
    if (qz_ckpt_open(&c, folder) != QZ_OK) {
        cr_assert(*qz_error_message());
        return;
    }
    for (int i = 0; i < LINEARS; i++) {
        const qz_export_linear *l = &m->linear[i];
        qz_act_scheme scheme;
        qz_act_values values;
        qz_error_clear();
        float *out = qz_arena_array(scratch, float, (size_t)(l->n * l->k));
        qz_status status = qz_ckpt_read_weight(c, l->module, l->n, l->k, out, scratch);
        cr_assert(status == QZ_OK || *qz_error_message());
        status = qz_ckpt_read_activation(c, l->module, &scheme, &values);
        cr_assert(status == QZ_OK || *qz_error_message());
    }
    qz_kv_scheme kv;
    float key[KV_HEADS], value[KV_HEADS];
    qz_status status = qz_ckpt_read_kv(c, plan.attention[0], KV_HEADS, &kv, key, value);
    cr_assert(status == QZ_OK || *qz_error_message());
    qz_ckpt_close(c);
}

/* config.json, the header of the weights and their data, one at a time. */
static void read_spoiled(const char *folder, const model *m, qz_rng *r)
{
    char paths[2][4200];
    qz_map map[2];
    qz_arena *scratch;
    check_ok(qz_arena_new(&scratch, "spoiled"));
    for (int f = 0; f < 2; f++) {
        snprintf(paths[f], sizeof paths[f], "%s/%s", folder, f ? "model.safetensors" : "config.json");
        check_ok(qz_map_open(&map[f], paths[f]));
    }
    uint8_t *whole[2] = {malloc(map[0].size), malloc(map[1].size)};
    size_t length[2] = {map[0].size, map[1].size};
    for (int f = 0; f < 2; f++) {
        memcpy(whole[f], map[f].data, length[f]);
        qz_map_close(&map[f]);
    }
    for (int i = 0; i < 25; i++) {
        int f = (int)qz_rng_below(r, 2);
        bool header = qz_rng_below(r, 2) && length[f] > 3000;
        spoil(paths[f], whole[f], length[f], header ? 3000 : length[f], r);
        read_everything(folder, m, scratch);
        test_write_file(paths[f], whole[f], length[f]);
        qz_arena_reset(scratch);
    }
    free(whole[0]);
    free(whole[1]);
    qz_arena_free(scratch);
}

Test(roundtrip, a_spoiled_folder_is_read_or_refused)
{
    for (size_t i = 0; i < qz_containers()->count; i++) {
        const qz_container *container = qz_container_at(i);
        if (!container->can_express) continue;
        for (uint64_t seed = 1; seed <= 3; seed++) {
            char name[60];
            qz_rng r;
            qz_rng_seed(&r, seed, 1);
            snprintf(name, sizeof name, "%zu-%d", i, (int)seed);
            const model *m = random_model(seed, container);
            const char *folder = qz_arena_strdup(arena, write_model(name, m, container, 0));
            read_spoiled(folder, m, &r);
            qz_arena_reset(arena);
        }
    }
}
