/* Arithmetic on views, no policy: a backend is a const table of memory functions and one function per row of ops.def.
 *
 *     const qz_backend *be = qz_backend_best();
 *     qz_tensor y = qz_tensor_2d(ydata, QZ_F32, T, N), x = ..., w = ...;
 *     QZ_TRY(qz_op_linear(be, &y, &x, &w, NULL, false));
 *
 * qz_op_<name>(backend, ...) checks shapes and types, then calls the slot; an empty slot is QZ_UNSUPPORTED naming op
 * and backend, never a silent copy to the host. Kernels do not allocate (fixed buffers on the stack aside, at most
 * 256 KiB a thread). Views have extents of at least 1; rows may be strided (their last dimension is dense).
 *
 * Results do not depend on the number of threads: work is cut into tiles fixed by the shapes, BLAS runs inside a tile
 * on one thread, and reductions are added in a fixed order. */
#ifndef QZ_KERNELS_KERNELS_H
#define QZ_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/plugin.h"
#include "base/status.h"
#include "kernels/triangle.h"
#include "numeric/packed.h"
#include "numeric/tensor.h"

/* Bins of the operation histogram: sign, exponent and 5 bits of mantissa of an F32. */
enum { QZ_HISTOGRAM_BINS = 1 << 14, QZ_HISTOGRAM_SHIFT = 18 };

/* Columns that round_columns takes at most in one call. */
enum { QZ_ROUND_COLUMNS = 128 };

/* What divergence_sums gives of two rows of logits a and b. */
enum {
    QZ_DIVERGENCE_MAX_A, /* max a */
    QZ_DIVERGENCE_TOP_A, /* its place, the first of equals */
    QZ_DIVERGENCE_MAX_B,
    QZ_DIVERGENCE_TOP_B,
    QZ_DIVERGENCE_SUM_A, /* sum exp(a - max a) */
    QZ_DIVERGENCE_SUM_B,
    QZ_DIVERGENCE_WEIGHTED, /* sum exp(a - max a) (a - b) */
    QZ_DIVERGENCE_SUMS
};

/* The grids that round_columns rounds to: column k of row n has scale and zero (row[k], n). */
typedef struct qz_round_grids {
    const qz_scheme *scheme; /* its format, zero_rule and narrow */
    qz_tensor scales;        /* (G, N) */
    qz_tensor zeros;         /* (G, N) U8; without data: those of a symmetric or floating format */
    const int32_t *row;      /* (K) */
} qz_round_grids;

/* Which keys a query sees, and what becomes of a score. */
typedef struct qz_attention {
    float scale, softcap; /* softcap 0: none */
    int64_t window;       /* 0: none */
    const int32_t *first; /* (B, T) or NULL: query t sees no key before first[t], the start of its document; S = T */
} qz_attention;

/* Where a gradient passes through rounding (the straight-through estimator; Bengio et al. 2013). */
typedef enum qz_ste {
    QZ_STE_PASS, /* everywhere */
    QZ_STE_CLIP, /* where the rounded code is one of the format's, its bounds included */
    QZ_STE_LSQ,  /* where the value before rounding is strictly inside the bounds (Esser et al. 2020, eq. 5) */
} qz_ste;

/* Elements that share a scale in the moments of adamw_8bit. */
enum { QZ_MOMENT_BLOCK = 256 };

/* One step of AdamW. */
typedef struct qz_adamw {
    double rate;            /* learning rate of this step */
    double beta1, beta2;    /* of the moments, in [0, 1) */
    double epsilon;         /* beside the root, above 0 */
    double decay;           /* p -= rate * decay * p comes first */
    double gradient_factor; /* g is multiplied by it: clipping, mean over micro-batches */
    int64_t step;           /* 1 for the first: for the correction of the bias */
} qz_adamw;

typedef struct qz_backend {
    qz_plugin plugin;
    bool (*available)(void);
    qz_device device;
    /* Device memory. On the host: malloc-like, memcpy. */
    qz_status (*memory_new)(void **out, size_t bytes);
    void (*memory_free)(void *p);
    qz_status (*to_device)(void *to, const void *from_host, size_t bytes);
    qz_status (*to_host)(void *to_host, const void *from, size_t bytes);
    qz_status (*synchronize)(void);
    /* What is in force, for reports: "OpenBLAS 0.3.21 SkylakeX, AVX-512". */
    const char *(*describe)(void);
    /* NULL, or a sentence to warn with, e.g. that the environment forces an older OpenBLAS core. */
    const char *(*warning)(void);
#define QZ_OP(name, args) qz_status(*name) args;
#include "kernels/ops.def"
#undef QZ_OP
} qz_backend;

/* `backend` is passed in front of the row's arguments. */
#define QZ_UNPAREN(...) __VA_ARGS__
#define QZ_OP(name, args) QZ_NODISCARD qz_status qz_op_##name(const qz_backend *backend, QZ_UNPAREN args);
#include "kernels/ops.def"
#undef QZ_OP

const qz_plugins *qz_backends(void);
const qz_backend *qz_backend_at(size_t i);
/* By name ("cpu"), or NULL; the error names those that exist. */
QZ_NODISCARD qz_status qz_backend_find(const qz_backend **out, const char *name);
/* The fastest that is available here. */
const qz_backend *qz_backend_best(void);

/* GFLOP/s of the backend's fp32 matrix product on this machine, measured for about `seconds`; for plans. */
QZ_NODISCARD qz_status qz_backend_measure(const qz_backend *backend, double seconds, double *gflops);

#endif
