/* Forward values of golden/ops (torch, float64) on every backend of the host. A file is known by how its name begins;
 * shapes come from its tensors and parameters from its metadata. Files of later operations are listed as skipped. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "checkpoints/checkpoints.h"
#include "kernels/kernels.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fixture {
    const char *name;
    qz_safetensors *file;
    qz_arena *arena;
    const qz_backend *backend;
} fixture;

static const qz_stored *stored(const fixture *f, const char *name)
{
    const qz_stored *s = qz_safetensors_find(f->file, name);
    cr_assert(s != NULL, "%s has no tensor %s", f->name, name);
    return s;
}

static double parameter(const fixture *f, const char *name, double otherwise)
{
    const char *text = qz_safetensors_metadata(f->file, name);
    return text ? atof(text) : otherwise;
}

/* A contiguous f32 copy. */
static qz_tensor input(const fixture *f, const char *name)
{
    qz_tensor t = stored(f, name)->view;
    cr_assert(t.dtype == QZ_F32, "%s: %s", f->name, name);
    const size_t bytes = (size_t)qz_tensor_count(&t) * sizeof(float);
    void *data = qz_arena_alloc(f->arena, bytes);
    cr_assert(data != NULL);
    memcpy(data, t.data, bytes);
    t.data = data;
    return t;
}

static int32_t *indices(const fixture *f, const char *name)
{
    const qz_tensor t = stored(f, name)->view;
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
static qz_tensor flat(qz_tensor t)
{
    const int64_t cols = t.shape[t.ndim - 1];
    return qz_tensor_2d(t.data, t.dtype, qz_tensor_count(&t) / cols, cols);
}

/* Zeros in the shape of the expected result. */
static qz_tensor output(const fixture *f)
{
    qz_tensor t = stored(f, "y")->view;
    t.dtype = QZ_F32;
    t.data = qz_arena_calloc(f->arena, (size_t)qz_tensor_count(&t) * sizeof(float));
    cr_assert(t.data != NULL);
    return t;
}

static void check_result(const fixture *f, const qz_tensor *y)
{
    const qz_tensor want = stored(f, "y")->view;
    double largest = 0, worst = 0;
    cr_assert(want.dtype == QZ_F64 && qz_tensor_count(&want) == qz_tensor_count(y));
    for (int64_t i = 0; i < qz_tensor_count(&want); i++) {
        double value;
        memcpy(&value, (const char *)want.data + i * 8, sizeof value);
        largest = fmax(largest, fabs(value));
        worst = fmax(worst, fabs(value - ((float *)y->data)[i]));
    }
    cr_assert(worst <= TOL_OP_F32 * largest, "%s on %s: off by %.3g, largest %.3g", f->name, f->backend->plugin.name,
              worst, largest);
    cr_log_info("%s on %s: %.3g of the largest value", f->name, f->backend->plugin.name, worst / largest);
}

static void run_rmsnorm(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), x = flat(input(f, "x")), w = input(f, "w");
    const float offset = strncmp(f->name, "rmsnorm_gemma", 13) == 0 ? 1 : 0;
    check_ok(qz_op_rmsnorm(f->backend, &y, &x, &w, (float)parameter(f, "eps", 1e-6), offset));
    check_result(f, &all);
}

static void run_swiglu(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), gate = flat(input(f, "gate")), up = flat(input(f, "up"));
    check_ok(qz_op_swiglu(f->backend, &y, &gate, &up));
    check_result(f, &all);
}

static void run_geglu(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), gate = flat(input(f, "gate")), up = flat(input(f, "up"));
    check_ok(qz_op_geglu(f->backend, &y, &gate, &up));
    check_result(f, &all);
}

static void run_softcap(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), x = flat(input(f, "x"));
    const double cap = parameter(f, "cap", 0);
    cr_assert(cap > 0, "%s has no cap", f->name);
    check_ok(qz_op_softcap(f->backend, &y, &x, (float)cap));
    check_result(f, &all);
}

static void run_linear(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), x = flat(input(f, "x")), w = input(f, "w"), b = {0};
    const bool bias = qz_safetensors_find(f->file, "b") != NULL;
    if (bias) b = input(f, "b");
    check_ok(qz_op_linear(f->backend, &y, &x, &w, bias ? &b : NULL, false));
    check_result(f, &all);
}

static void run_embedding(const fixture *f)
{
    qz_tensor all = output(f), y = flat(all), w = input(f, "w");
    check_ok(qz_op_embedding(f->backend, &y, &w, indices(f, "ids")));
    check_result(f, &all);
}

/* (B, H, T, D) seen as (B, T, H, D) */
static qz_tensor by_token(qz_tensor t)
{
    qz_tensor out = t;
    cr_assert(t.ndim == 4);
    for (int i = 0; i < 2; i++) {
        out.shape[1 + i] = t.shape[2 - i];
        out.stride[1 + i] = t.stride[2 - i];
    }
    return out;
}

static void run_sdpa(const fixture *f)
{
    qz_tensor all = output(f), y = by_token(all);
    qz_tensor q = by_token(input(f, "q")), k = by_token(input(f, "k")), v = by_token(input(f, "v"));
    const double scale = parameter(f, "scale", 1 / sqrt((double)q.shape[3]));
    const qz_attention how = {
        .scale = (float)scale, .window = (int64_t)parameter(f, "window", 0), .softcap = (float)parameter(f, "cap", 0)};
    check_ok(qz_op_attention(f->backend, &y, NULL, &q, &k, &v, &how));
    check_result(f, &all);
}

static void run_rope(const fixture *f)
{
    qz_tensor x = input(f, "x"), heads = by_token(x);
    const int64_t tokens = heads.shape[1], half = heads.shape[3] / 2;
    const int first = (int)parameter(f, "positions", 0); /* "0..8" */
    float *cosines = qz_arena_array(f->arena, float, (size_t)(tokens * half));
    float *sines = qz_arena_array(f->arena, float, (size_t)(tokens * half));
    int32_t *rows = qz_arena_array(f->arena, int32_t, (size_t)tokens);
    for (int64_t i = 0; i < tokens * half; i++) {
        const double angle =
            (double)(first + i / half) * pow(parameter(f, "theta", 1e4), -(double)(i % half) / (double)half);
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
        rows[i / half] = (int32_t)(i / half);
    }
    qz_tensor c = qz_tensor_2d(cosines, QZ_F32, tokens, half), s = qz_tensor_2d(sines, QZ_F32, tokens, half);
    for (int64_t b = 0; b < heads.shape[0]; b++) {
        qz_tensor one = qz_tensor_3d((float *)x.data + b * heads.stride[0], QZ_F32, tokens, heads.shape[2], 2 * half);
        one.stride[0] = heads.stride[1];
        one.stride[1] = heads.stride[2];
        check_ok(qz_op_rope(f->backend, &one, &c, &s, rows, false));
    }
    check_result(f, &x);
}

static const struct {
    const char *begins;
    void (*run)(const fixture *f);
} operations[] = {{"rmsnorm", run_rmsnorm},  {"swiglu", run_swiglu},   {"linear", run_linear},
                  {"geglu_tanh", run_geglu}, {"softcap", run_softcap}, {"embedding", run_embedding},
                  {"sdpa", run_sdpa},        {"rope_apply", run_rope}};

static void run_file(fixture *f, const char *path, void (*run)(const fixture *f))
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
static bool visit(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "ops/%s", name);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strncmp(name, operations[i].begins, strlen(operations[i].begins)) != 0) continue;
        fixture f = {.name = path + 4};
        run_file(&f, golden_path(path), operations[i].run);
        return true;
    }
    printf("skipped: ops/%s (no forward operation of kernels/)\n", name);
    return false;
}

Test(kernels_golden, forward_values)
{
    DIR *folder = opendir(golden_path("ops"));
    int done = 0;
    cr_assert(folder != NULL, "%s", golden_path("ops"));
    for (struct dirent *e; (e = readdir(folder)) != NULL;) {
        const char *end = strrchr(e->d_name, '.');
        if (end && strcmp(end, ".safetensors") == 0) done += visit(e->d_name);
    }
    closedir(folder);
    cr_assert(done > 0, "no fixture in %s", golden_path("ops"));
}
