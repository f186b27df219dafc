/* Frequencies and rotation tables of every kind in golden/ops/rope_tables against transformers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "models/rope.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct tables {
    qz_json *json;
    qz_safetensors *data;
    qz_arena *arena;
    int64_t head_dim;
} tables;

static const qz_stored *find(const tables *t, const char *kind, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", kind, *kind ? "." : "", what);
    const qz_stored *s = qz_safetensors_find(t->data, name);
    cr_assert(s != NULL, "rope_tables.safetensors has no %s", name);
    return s;
}

static double value(const qz_stored *s, int64_t i)
{
    float f;
    double d;
    if (s->view.dtype == QZ_F64) return memcpy(&d, (const char *)s->view.data + i * 8, 8), d;
    return memcpy(&f, (const char *)s->view.data + i * 4, 4), f;
}

static int64_t position(const tables *t, int64_t row)
{
    int64_t p;
    memcpy(&p, (const char *)find(t, "", "positions")->view.data + row * 8, 8);
    return p;
}

/* {"rope_parameters": {...}} with the members of `kind`. */
static void config_text(const qz_json_node *kind, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "{\"rope_parameters\": {");
    for (const qz_json_node *m = qz_json_first(kind); m; m = qz_json_next(m)) {
        char value[80];
        snprintf(value, sizeof value, "%.17g", qz_json_is(m, QZ_JSON_NUMBER) ? qz_json_double(m) : 0);
        if (qz_json_is(m, QZ_JSON_STRING)) snprintf(value, sizeof value, "\"%s\"", qz_json_text(m));
        used += (size_t)snprintf(out + used, size - used, "%s\"%s\": %s", m == qz_json_first(kind) ? "" : ", ",
                                 qz_json_key(m), value);
        cr_assert(used + 4 < size);
    }
    snprintf(out + used, size - used, "}}");
}

static qz_rope rope_of(const qz_json_node *kind)
{
    char text[1000];
    const qz_family family = {0};
    qz_model_config c = {.context = 1 << 20};
    qz_json *doc;
    config_text(kind, text, sizeof text);
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    check_ok(qz_config_rope(&c, qz_json_root(doc), &family, NULL));
    qz_json_close(doc);
    return c.rope;
}

static void check_frequencies(const tables *t, const char *kind, const float *inv_freq)
{
    const qz_stored *theirs = find(t, kind, "inv_freq");
    for (int64_t i = 0; i < t->head_dim / 2; i++) {
        double v = value(theirs, i);
        cr_assert(fabs(inv_freq[i] - v) <= TOL_ROPE_FREQUENCY * v, "%s: inv_freq[%d] is %.9g, theirs %.9g", kind,
                  (int)i, inv_freq[i], v);
    }
}

/* Row `row` of the fixture is one of our table's rows, that of its position. */
static void check_rows(const tables *t, const char *kind, const char *what, const float *ours, double scale)
{
    char exact[16];
    snprintf(exact, sizeof exact, "%s64", what);
    const qz_stored *theirs = find(t, kind, what), *theirs64 = find(t, kind, exact);
    int64_t half = t->head_dim / 2;
    for (int64_t row = 0; row < theirs->view.shape[0]; row++) {
        int64_t p = position(t, row);
        double tolerance = scale * (TOL_ROPE_TABLE + TOL_ROPE_ANGLE * (double)p);
        for (int64_t i = 0; i < half; i++) {
            double v = ours[p * half + i];
            cr_assert(fabs(v - value(theirs64, row * half + i)) <= tolerance, "%s: %s64[%d, %d]", kind, what, (int)p,
                      (int)i);
            cr_assert(fabs(v - value(theirs, row * half + i)) <= tolerance, "%s: %s[%d, %d] is %.9g, theirs %.9g", kind,
                      what, (int)p, (int)i, v, value(theirs, row * half + i));
        }
    }
}

static void check_kind(const tables *t, const qz_json_node *kind)
{
    const char *name = qz_json_key(kind);
    qz_rope rope = rope_of(kind);
    int64_t length = 1, half = t->head_dim / 2;
    for (int64_t row = 0; row < find(t, "", "positions")->view.shape[0]; row++)
        if (position(t, row) >= length) length = position(t, row) + 1;
    float *inv_freq = qz_arena_alloc(t->arena, (size_t)half * 4);
    float *cos_table = qz_arena_alloc(t->arena, (size_t)(length * half) * 4);
    float *sin_table = qz_arena_alloc(t->arena, (size_t)(length * half) * 4);
    double scale;
    check_ok(qz_json_number(qz_json_get(kind, "attention_scaling"), "attention_scaling", 0, 100, &scale));
    cr_assert_float_eq(rope.attention_factor, scale, 1e-12, "%s", name);
    qz_rope_frequencies(inv_freq, &rope, t->head_dim);
    check_frequencies(t, name, inv_freq);
    qz_rope_tables(cos_table, sin_table, &rope, inv_freq, length, t->head_dim);
    check_rows(t, name, "cos", cos_table, scale);
    check_rows(t, name, "sin", sin_table, scale);
}

Test(golden_rope, tables_of_every_kind)
{
    tables t;
    char *text;
    size_t size;
    int kinds = 0;
    check_ok(qz_arena_new(&t.arena, "test"));
    check_ok(qz_file_read(&text, &size, golden_path("ops/rope_tables.json"), 1 << 20, t.arena));
    check_ok(qz_json_parse(&t.json, text, size));
    check_ok(qz_safetensors_open(&t.data, golden_path("ops/rope_tables.safetensors")));
    const qz_json_node *root = qz_json_root(t.json);
    check_ok(qz_json_int(qz_json_get(root, "head_dim"), "head_dim", 2, 4096, &t.head_dim));
    for (const qz_json_node *k = qz_json_first(qz_json_get(root, "kinds")); k; k = qz_json_next(k), kinds++)
        check_kind(&t, k);
    cr_assert(kinds > 0);
    qz_json_close(t.json);
    qz_safetensors_close(t.data);
    qz_arena_free(t.arena);
}
