/* Files of golden/ops (torch, float64): inputs as f32, each result r in F64. A file is known by how its name begins;
 * shapes come from its tensors and parameters from its metadata. Every file is run on every backend of the host. */
#ifndef QZ_TESTING_OP_FIXTURE_H
#define QZ_TESTING_OP_FIXTURE_H

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "checkpoints/checkpoints.h"
#include "kernels/kernels.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct op_fixture {
    const char *name;
    qz_safetensors *file;
    qz_arena *arena;
    const qz_backend *backend;
} op_fixture;

static inline const qz_stored *fixture_stored(const op_fixture *f, const char *name)
{
    const qz_stored *s = qz_safetensors_find(f->file, name);
    cr_assert(s != NULL, "%s has no tensor %s", f->name, name);
    return s;
}

static inline double fixture_parameter(const op_fixture *f, const char *name, double otherwise)
{
    const char *text = qz_safetensors_metadata(f->file, name);
    return text ? atof(text) : otherwise;
}

/* A contiguous f32 copy. */
static inline qz_tensor fixture_input(const op_fixture *f, const char *name)
{
    qz_tensor t = fixture_stored(f, name)->view;
    cr_assert(t.dtype == QZ_F32, "%s: %s", f->name, name);
    const size_t bytes = (size_t)qz_tensor_count(&t) * sizeof(float);
    void *data = qz_arena_alloc(f->arena, bytes);
    cr_assert(data != NULL);
    memcpy(data, t.data, bytes);
    t.data = data;
    return t;
}

static inline int32_t *fixture_indices(const op_fixture *f, const char *name)
{
    const qz_tensor t = fixture_stored(f, name)->view;
    cr_assert(t.dtype == QZ_I64, "%s: %s", f->name, name);
    int32_t *out = qz_arena_array(f->arena, int32_t, (size_t)qz_tensor_count(&t));
    for (int64_t i = 0; i < qz_tensor_count(&t); i++) {
        int64_t value;
        memcpy(&value, (const char *)t.data + i * 8, sizeof value);
        out[i] = (int32_t)value;
    }
    return out;
}

/* All dimensions but the last in one. */
static inline qz_tensor fixture_flat(qz_tensor t)
{
    const int64_t cols = t.shape[t.ndim - 1];
    return qz_tensor_2d(t.data, t.dtype, qz_tensor_count(&t) / cols, cols);
}

/* Zeros in the shape of an expected result. */
static inline qz_tensor fixture_output(const op_fixture *f, const char *name)
{
    qz_tensor t = fixture_stored(f, name)->view;
    t.dtype = QZ_F32;
    t.data = qz_arena_calloc(f->arena, (size_t)qz_tensor_count(&t) * sizeof(float));
    cr_assert(t.data != NULL);
    return t;
}

static inline void fixture_check(const op_fixture *f, const char *name, const qz_tensor *y)
{
    const qz_tensor want = fixture_stored(f, name)->view;
    double largest = 0, worst = 0;
    cr_assert(want.dtype == QZ_F64 && qz_tensor_count(&want) == qz_tensor_count(y));
    for (int64_t i = 0; i < qz_tensor_count(&want); i++) {
        double value;
        memcpy(&value, (const char *)want.data + i * 8, sizeof value);
        largest = fmax(largest, fabs(value));
        worst = fmax(worst, fabs(value - ((float *)y->data)[i]));
    }
    cr_assert(worst <= TOL_OP_F32 * largest, "%s on %s, %s: off by %.3g, largest %.3g", f->name,
              f->backend->plugin.name, name, worst, largest);
    cr_log_info("%s on %s, %s: %.3g of the largest value", f->name, f->backend->plugin.name, name, worst / largest);
}

typedef struct fixture_op {
    const char *begins; /* the file's name */
    void (*run)(const op_fixture *f);
} fixture_op;

static inline void fixture_run_file(op_fixture *f, const char *path, void (*run)(const op_fixture *f))
{
    check_ok(qz_safetensors_open(&f->file, path));
    for (size_t b = 0; b < qz_backends()->count; b++) {
        f->backend = qz_backend_at(b);
        if (!f->backend->available() || f->backend->device != QZ_HOST) continue;
        check_ok(qz_arena_new(&f->arena, "golden"));
        run(f);
        qz_arena_free(f->arena);
    }
    qz_safetensors_close(f->file);
}

/* True when the file is one of ours. */
static inline bool fixture_visit(const char *name, const fixture_op *ops, size_t count)
{
    char path[256];
    snprintf(path, sizeof path, "ops/%s", name);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(name, ops[i].begins, strlen(ops[i].begins)) != 0) continue;
        op_fixture f = {.name = path + 4};
        fixture_run_file(&f, golden_path(path), ops[i].run);
        return true;
    }
    printf("skipped: ops/%s (not in the table of this test)\n", name);
    return false;
}

/* All files that an entry of `ops` knows; there is at least one. */
static inline void fixture_run_all(const fixture_op *ops, size_t count)
{
    DIR *folder = opendir(golden_path("ops"));
    int done = 0;
    cr_assert(folder != NULL, "%s", golden_path("ops"));
    for (struct dirent *e; (e = readdir(folder)) != NULL;) {
        const char *end = strrchr(e->d_name, '.');
        if (end && strcmp(end, ".safetensors") == 0) done += fixture_visit(e->d_name, ops, count);
    }
    closedir(folder);
    cr_assert(done > 0, "no fixture in %s", golden_path("ops"));
}

#endif
