/* What the cases of kernel_cases.h are written with: one run of an operation with seeded random inputs whose outputs
 * are kept as doubles. Views have rows longer than needed, so strides count. */
#ifndef QZ_TESTING_KERNEL_RUN_H
#define QZ_TESTING_KERNEL_RUN_H

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { KERNEL_DIMS = 6, KERNEL_PAD = 3 };

typedef struct kernel_run {
    const qz_backend *backend;
    const int *dims;
    qz_arena *arena;
    qz_rng rng;
    double *out; /* outputs as doubles, one after another */
    size_t count;
} kernel_run;

typedef struct kernel_case {
    const char *name;
    void (*run)(kernel_run *r);
    double tolerance; /* of the largest magnitude of the result */
    int dims[8][KERNEL_DIMS];
} kernel_case;

static inline float kernel_value(kernel_run *r)
{
    return (float)qz_rng_normal(&r->rng);
}

/* Random rows with KERNEL_PAD elements between them. */
static inline qz_tensor kernel_matrix(kernel_run *r, int64_t rows, int64_t cols)
{
    float *data = qz_arena_array(r->arena, float, (size_t)(rows * (cols + KERNEL_PAD)));
    cr_assert(data != NULL);
    for (int64_t i = 0; i < rows * (cols + KERNEL_PAD); i++) data[i] = kernel_value(r);
    qz_tensor t = qz_tensor_2d(data, QZ_F32, rows, cols);
    t.stride[0] = cols + KERNEL_PAD;
    return t;
}

static inline qz_tensor kernel_vector(kernel_run *r, qz_dtype type, int64_t count)
{
    void *data = qz_arena_calloc(r->arena, (size_t)count * (size_t)(qz_dtype_bits(type) / 8));
    cr_assert(data != NULL);
    for (int64_t i = 0; i < count; i++) {
        if (type == QZ_F32) ((float *)data)[i] = kernel_value(r);
        if (type == QZ_F64) ((double *)data)[i] = kernel_value(r);
    }
    return qz_tensor_1d(data, type, count);
}

/* (A, B, C, D) as a view of (A, B, C * D + pad). */
static inline qz_tensor kernel_heads(kernel_run *r, int64_t a, int64_t b, int64_t c, int64_t d)
{
    qz_tensor m = kernel_matrix(r, a * b, c * d), t = qz_tensor_4d(m.data, QZ_F32, a, b, c, d);
    t.stride[1] = m.stride[0];
    t.stride[0] = b * m.stride[0];
    return t;
}

static inline int32_t *kernel_indices(kernel_run *r, int64_t count, int64_t limit)
{
    int32_t *out = qz_arena_array(r->arena, int32_t, (size_t)count);
    cr_assert(out != NULL);
    for (int64_t i = 0; i < count; i++) out[i] = (int32_t)qz_rng_below(&r->rng, (uint64_t)limit);
    return out;
}

/* A result that is not added to may hold anything before, also what is not a number. */
static inline void kernel_spoil(const qz_tensor *y)
{
    const int64_t cols = y->ndim == 4 ? y->shape[2] * y->shape[3] : y->shape[1];
    const int64_t rows = y->ndim == 4 ? y->shape[0] * y->shape[1] : y->shape[0];
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)y->data)[i / cols * y->stride[y->ndim == 4 ? 1 : 0] + i % cols] = NAN;
}

/* The whole buffer below a matrix view, padding included: what lies between rows must not change either. */
static inline void kernel_keep(kernel_run *r, const qz_tensor *x)
{
    const size_t count = x->ndim == 1 ? (size_t)x->shape[0] : (size_t)(x->shape[0] * x->stride[0]);
    double *out = qz_arena_array(r->arena, double, r->count + count);
    cr_assert(out != NULL);
    if (r->count) memcpy(out, r->out, r->count * sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[r->count + i] = x->dtype == QZ_F64 ? ((double *)x->data)[i] : (double)((float *)x->data)[i];
    r->out = out;
    r->count += count;
}

#endif
