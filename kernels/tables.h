/* Declarations that the files of this folder share: the slots of `ref` and `cpu`, host memory, and views by rows.
 * Nothing outside kernels/ includes this. */
#ifndef QZ_KERNELS_TABLES_H
#define QZ_KERNELS_TABLES_H

#include "kernels/kernels.h"

#define QZ_OP(name, args) qz_status qz_ref_##name args;
#include "kernels/ops.def"
#undef QZ_OP

#define QZ_OP(name, args) qz_status qz_cpu_##name args;
#include "kernels/ops.def"
#undef QZ_OP

#define QZ_BACKEND(name) extern const qz_backend qz_backend_##name;
#include "kernels/backends.def"
#undef QZ_BACKEND

qz_status qz_host_memory_new(void **out, size_t bytes);
void qz_host_memory_free(void *p);
qz_status qz_host_copy(void *to, const void *from, size_t bytes);
qz_status qz_host_synchronize(void);

/* A view as rows: 1-D is one row, 2-D may have a row stride, more dimensions are contiguous (checked in ops.c). */
typedef struct qz_rows {
    int64_t rows, cols, stride;
} qz_rows;

static inline qz_rows qz_rows_of(const qz_tensor *x)
{
    int64_t cols = x->shape[x->ndim - 1];
    return (qz_rows){qz_tensor_count(x) / cols, cols, x->ndim == 2 ? x->stride[0] : cols};
}

/* Columns [first, first + count) of a matrix, or elements of a vector; f32. */
static inline qz_tensor qz_columns_of(const qz_tensor *x, int64_t first, int64_t count)
{
    qz_tensor out = *x;
    out.data = qz_f32(x) + first;
    out.shape[x->ndim - 1] = count;
    return out;
}

static inline double *qz_f64(const qz_tensor *x)
{
    return x->data;
}

#endif
