/* c (m, n) (+)= a b with the elements of both factors rounded to BF16 first (to the nearest, ties to even) and sums in
 * fp32: the precision of bf16 training on tensors that are kept in fp32. */
#ifndef QZ_KERNELS_CPU_GEMM_BF16_H
#define QZ_KERNELS_CPU_GEMM_BF16_H

#include <stdbool.h>

#include "kernels/cpu_blas.h"

/* A factor, of which element (i, p) belongs to row (left) or column (right) i of the result and is summed over p:
 * data[i * stride + p], or, `across`, data[p * stride + i]. */
typedef struct qz_factor {
    const float *data;
    int64_t stride;
    bool across;
} qz_factor;

typedef struct qz_gemm {
    int64_t m, n, k;
    qz_factor a, b;
    qz_tile c;
    bool add;
} qz_gemm;

/* Who multiplies the rounded blocks. Sums differ in their order, and for pairs in how they are rounded. */
typedef enum qz_gemm_path {
    QZ_GEMM_BLAS,   /* OpenBLAS, on any processor */
    QZ_GEMM_SINGLE, /* AVX-512 */
    QZ_GEMM_PAIRS,  /* AVX512_BF16 */
} qz_gemm_path;

bool qz_gemm_has(qz_gemm_path path);
/* The fastest here; it depends on the processor alone. */
qz_gemm_path qz_gemm_best(void);
/* In parallel; tiles and the order of sums depend on the shape and the path alone. */
void qz_gemm_bf16(const qz_gemm *g, qz_gemm_path path);

#endif
