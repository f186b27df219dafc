/* OpenBLAS, called for one tile on the calling thread. Row-major; lda and so on are row strides in elements. */
#ifndef QZ_KERNELS_CPU_BLAS_H
#define QZ_KERNELS_CPU_BLAS_H

#include <stdint.h>

/* A matrix inside another: the first element and the row stride. */
typedef struct qz_tile {
    float *data;
    int64_t stride;
} qz_tile;

/* c (m, n) = a (m, k) b (n, k)^T + beta c */
void qz_blas_nt(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, float beta, qz_tile c);
/* c (m, n) = a (m, k) b (k, n) + beta c */
void qz_blas_nn(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, float beta, qz_tile c);
/* c (m, n) += a (k, m)^T b (k, n) */
void qz_blas_tn(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, qz_tile c);
/* lower triangle of c (n, n) += a (k, n)^T a */
void qz_blas_syrk(int64_t n, int64_t k, qz_tile a, qz_tile c);

/* x (m, n) = x l^-T, l (n, n) unit lower triangular, of which what lies below the diagonal is read */
void qz_blas_unit_solve(int64_t m, int64_t n, qz_tile l, qz_tile x);

/* The same for F64. */
typedef struct qz_tile64 {
    double *data;
    int64_t stride;
} qz_tile64;

/* c (m, n) -= a (m, k) b (n, k)^T */
void qz_blas64_nt(int64_t m, int64_t n, int64_t k, qz_tile64 a, qz_tile64 b, qz_tile64 c);
/* lower triangle of c (n, n) -= a (n, k) a^T */
void qz_blas64_syrk(int64_t n, int64_t k, qz_tile64 a, qz_tile64 c);
/* x (m, n) = x l^-T, l (n, n) lower triangular */
void qz_blas64_solve(int64_t m, int64_t n, qz_tile64 l, qz_tile64 x);
/* lower triangle of a (n, n) = l with a = l l^T; the first column whose pivot is not positive, or -1 */
int64_t qz_lapack_cholesky(int64_t n, qz_tile64 a);

/* Version, options and core in force, as OpenBLAS prints them. */
const char *qz_blas_describe(void);
/* NULL, or a sentence saying that an older core is in force than this processor offers. */
const char *qz_blas_warning(void);
/* The same for a given core and instruction set (0: SSE, 1: AVX, 2: AVX2, 3: AVX-512); for tests. */
const char *qz_blas_core_warning(const char *core, int level);

static inline qz_tile qz_tile_at(qz_tile t, int64_t row, int64_t col)
{
    return (qz_tile){t.data + row * t.stride + col, t.stride};
}

static inline qz_tile64 qz_tile64_at(qz_tile64 t, int64_t row, int64_t col)
{
    return (qz_tile64){t.data + row * t.stride + col, t.stride};
}

#endif
