/* Model folders for tests: a golden model copied with one thing changed. */
#ifndef QZ_TESTS_MODEL_FOLDER_H
#define QZ_TESTS_MODEL_FOLDER_H

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "models/models.h"
#include "testing/testing.h"

/* SPOIL: element 6 becomes NaN. OVERFLOW: all elements (F32) become the largest number. */
typedef enum change_kind { KEEP, DROP, RENAME, RETYPE, RESHAPE, SPOIL, OVERFLOW, TWICE } change_kind;

typedef struct change {
    change_kind kind;
    const char *tensor;
    const char *to;    /* RENAME, TWICE: the new or further name */
    qz_dtype type;     /* RETYPE: to this type of the same width */
    const char *key;   /* config.json: this key ... */
    const char *value; /* ... gets this JSON value; NULL removes it */
} change;

static inline void write_one(qz_shards *s, const qz_stored *t, const char *name, const change *c, bool declare)
{
    bool here = c->tensor && strcmp(c->tensor, t->name) == 0;
    qz_tensor v = t->view;
    if (here && c->kind == RETYPE) v.dtype = c->type;
    if (here && c->kind == RESHAPE) v.shape[0]--;
    uint64_t bytes;
    check_ok(qz_dtype_bytes(v.dtype, (uint64_t)qz_tensor_count(&v), &bytes));
    if (declare) {
        check_ok(qz_shards_declare(s, name, name, v.dtype, v.ndim, v.shape));
        return;
    }
    char *data = malloc(bytes);
    memcpy(data, v.data, bytes);
    if (here && c->kind == SPOIL) memset(data + 6 * qz_dtype_bits(v.dtype) / 8, 0xff, qz_dtype_bits(v.dtype) / 8);
    for (uint64_t i = 0; here && c->kind == OVERFLOW && i < bytes / 4; i++) ((float *)data)[i] = FLT_MAX;
    check_ok(qz_shards_write(s, name, data, bytes));
    free(data);
}

static inline void write_tensors(qz_shards *s, const qz_ckpt *source, const change *c, bool declare)
{
    for (size_t i = 0; i < qz_ckpt_count(source); i++) {
        const qz_stored *t = qz_ckpt_at(source, i);
        bool here = c->tensor && strcmp(c->tensor, t->name) == 0;
        if (here && c->kind == DROP) continue;
        write_one(s, t, here && c->kind == RENAME ? c->to : t->name, c, declare);
        if (here && c->kind == TWICE) write_one(s, t, c->to, c, declare);
    }
}

/* A folder like `from` but for `c`; the path lives until the next few calls of test_path. */
static inline const char *changed_model(const char *from, const char *label, change c)
{
    const char *folder = test_path(label);
    qz_ckpt *source;
    qz_shards *s;
    qz_arena *arena;
    char *text;
    cr_assert(mkdir(folder, 0700) == 0);
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_ckpt_open(&source, from));
    text = (char *)qz_ckpt_config_text(source);
    if (c.key) check_ok(qz_json_text_set(&text, text, c.key, c.value, arena));
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", folder);
    test_write_file(path, text, strlen(text));
    check_ok(qz_shards_new(&s, folder, 1 << 30));
    write_tensors(s, source, &c, true);
    check_ok(qz_shards_begin(s));
    write_tensors(s, source, &c, false);
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_ckpt_close(source);
    qz_arena_free(arena);
    return folder;
}

typedef struct opened {
    qz_ckpt *ckpt;
    qz_model *model;
    qz_arena *arena;
} opened;

static inline opened open_with(const char *folder, const qz_backend *backend)
{
    opened o;
    check_ok(qz_arena_new(&o.arena, "test"));
    check_ok(qz_ckpt_open(&o.ckpt, folder));
    check_ok(qz_model_open(&o.model, o.ckpt, backend, NULL));
    return o;
}

static inline const qz_backend *ref_backend(void)
{
    const qz_backend *be;
    check_ok(qz_backend_find(&be, "ref"));
    return be;
}

static inline opened open_model(const char *folder)
{
    return open_with(folder, ref_backend());
}

static inline void close_model(opened *o)
{
    qz_model_close(o->model);
    qz_ckpt_close(o->ckpt);
    qz_arena_free(o->arena);
}

static inline qz_tensor matrix(qz_arena *arena, int64_t rows, int64_t cols)
{
    return qz_tensor_2d(qz_arena_calloc(arena, (size_t)(rows * cols) * sizeof(float)), QZ_F32, rows, cols);
}

#endif
