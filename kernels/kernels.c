/* The list of backends, and how fast one of them is. */
#include "kernels/kernels.h"

#include <stdio.h>

#include "base/arena.h"
#include "base/parallel.h"
#include "kernels/tables.h"

static const qz_backend *const backends[] = {
#define QZ_BACKEND(name) &qz_backend_##name,
#include "kernels/backends.def"
#undef QZ_BACKEND
};

static const qz_plugin *const plugins[] = {
#define QZ_BACKEND(name) &qz_backend_##name.plugin,
#include "kernels/backends.def"
#undef QZ_BACKEND
};

enum { BACKENDS = sizeof backends / sizeof *backends };

const qz_plugins *qz_backends(void)
{
    static const qz_plugins list = {"backend", BACKENDS, plugins};
    return &list;
}

const qz_backend *qz_backend_at(size_t i)
{
    return i < BACKENDS ? backends[i] : NULL;
}

/* "ref, cpu" */
static void names_text(char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < BACKENDS && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", backends[i]->plugin.name);
}

qz_status qz_backend_find(const qz_backend **out, const char *name)
{
    char names[128];
    int i = qz_plugins_find(qz_backends(), name);
    if (i < 0) {
        names_text(names, sizeof names);
        return QZ_FAIL(QZ_ARG, "backend %s is not known; there are: %s", name, names);
    }
    if (!backends[i]->available()) return QZ_FAIL(QZ_UNSUPPORTED, "backend %s is not available on this machine", name);
    *out = backends[i];
    return QZ_OK;
}

const qz_backend *qz_backend_best(void)
{
    for (size_t i = BACKENDS; i-- > 1;) {
        if (backends[i]->available()) return backends[i];
    }
    return backends[0];
}

/* The product that is timed, square. */
enum { SIDE = 1024 };

typedef struct square {
    qz_tensor x, w, y;
} square;

static qz_status square_matrix(qz_tensor *out, const qz_backend *backend, const float *values)
{
    void *data;
    size_t bytes = sizeof(float) * SIDE * SIDE;
    QZ_TRY(backend->memory_new(&data, bytes));
    *out = qz_tensor_2d(data, QZ_F32, SIDE, SIDE);
    out->device = backend->device;
    return backend->to_device(data, values, bytes);
}

static qz_status square_new(square *s, const qz_backend *backend)
{
    float *values = qz_malloc(sizeof(float) * SIDE * SIDE);
    if (!values) return QZ_FAIL(QZ_MEMORY, "measuring backend %s: 4 MB of memory are not there", backend->plugin.name);
    for (int i = 0; i < SIDE * SIDE; i++) values[i] = (float)(i % 17 - 8);
    qz_status status = square_matrix(&s->x, backend, values);
    if (status == QZ_OK) status = square_matrix(&s->w, backend, values);
    if (status == QZ_OK) status = square_matrix(&s->y, backend, values);
    qz_free(values);
    return status;
}

static qz_status multiply(const qz_backend *backend, const square *s)
{
    QZ_TRY(qz_op_linear(backend, &s->y, &s->x, &s->w, NULL, false));
    return backend->synchronize();
}

static qz_status square_time(const qz_backend *backend, const square *s, double seconds, double *gflops)
{
    QZ_TRY(multiply(backend, s)); /* wakes threads and clocks */
    double start = qz_seconds(), spent = 0;
    int products = 0;
    for (; products == 0 || spent < seconds; products++) {
        QZ_TRY(multiply(backend, s));
        spent = qz_seconds() - start;
    }
    *gflops = 2e-9 * SIDE * SIDE * SIDE * products / spent;
    return QZ_OK;
}

qz_status qz_backend_measure(const qz_backend *backend, double seconds, double *gflops)
{
    if (!backend->memory_new || !backend->memory_free || !backend->to_device || !backend->synchronize)
        return QZ_FAIL(QZ_UNSUPPORTED, "backend %s lacks memory functions, so it cannot be measured",
                       backend->plugin.name);
    square s = {0};
    qz_status status = square_new(&s, backend);
    if (status == QZ_OK) status = square_time(backend, &s, seconds, gflops);
    backend->memory_free(s.x.data);
    backend->memory_free(s.w.data);
    backend->memory_free(s.y.data);
    return status;
}
