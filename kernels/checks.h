/* What the wrappers of ops*.c check of their arguments with, before a backend sees them.
 *
 * A view is checked against a pattern such as "T,K": the first tensor that shows a letter binds it, later ones must
 * agree. Extents are at least 1 and below 2^31, the last dimension is dense, outer strides are at least as long as a
 * row, and data lies on the backend's device. Indices (ids, positions, targets) are checked where the host can read
 * them. Nothing outside kernels/ includes this. */
#ifndef QZ_KERNELS_CHECKS_H
#define QZ_KERNELS_CHECKS_H

#include <float.h>

#include "kernels/tables.h"

enum { QZ_CHECK_LETTERS = 8 };

/* Sets of types. */
#define QZ_CHECK_TYPE(t) (1u << QZ_##t)
#define QZ_CHECK_PLAIN (QZ_CHECK_TYPE(F32) | QZ_CHECK_TYPE(F16) | QZ_CHECK_TYPE(BF16))
#define QZ_CHECK_CONVERTIBLE (QZ_CHECK_PLAIN | QZ_CHECK_TYPE(F8_E4M3) | QZ_CHECK_TYPE(F8_E5M2))

typedef struct qz_check_letter {
    char name[4];
    int64_t extent;
    const char *from;
} qz_check_letter;

typedef struct qz_check {
    const char *op;
    const qz_backend *backend;
    qz_check_letter letters[QZ_CHECK_LETTERS];
    int count;
} qz_check;

/* The beginning of every wrapper: `c`, and the slot is not empty. */
#define QZ_CHECK_BEGIN(name)                                                                                           \
    qz_check c = {.op = #name, .backend = backend};                                                                    \
    if (!backend->name) return qz_check_missing(backend, #name);

/* `pattern` NULL: any shape, but contiguous unless 2-D. */
qz_status qz_check_view(qz_check *c, const char *name, const qz_tensor *x, unsigned types, const char *pattern);
qz_status qz_check_same_shape(const qz_check *c, const qz_tensor *y, const qz_tensor *x);
/* low <= index[i] < limit; negative ones are allowed when low is INT32_MIN. */
qz_status qz_check_indices(const qz_check *c, const char *name, const int32_t *index, int64_t count, int64_t low,
                           int64_t limit, const char *what);
/* Formats that activations and cached heads are rounded to. */
bool qz_check_can_round(qz_format f);
qz_status qz_check_activations(const qz_check *c, const qz_act_scheme *s, const qz_act_values *v);
/* A quantized matrix of the shape of w, with grids. */
qz_status qz_check_grids(const qz_check *c, const qz_qtensor *q, const qz_tensor *w);
qz_status qz_check_missing(const qz_backend *backend, const char *op);

static inline bool qz_check_positive(float x)
{
    return x > 0 && x <= FLT_MAX;
}

#endif
