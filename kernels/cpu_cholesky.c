/* A = L L^T in place, by square tiles of a fixed size (the right-looking blocked form): for each column of tiles the
 * diagonal tile is factored, the tiles below it are solved with it, and their products leave what is to the right.
 * Tiles are worked on in parallel, each by one call on one thread, so the factor does not depend on their number. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"

enum { SIDE = 256 };

typedef struct tiles {
    qz_tile64 a;
    int64_t size;
} tiles;

static int64_t extent(const tiles *t, int64_t at)
{
    return qz_min(SIDE, t->size - at);
}

/* The first column of the tile without a positive finite pivot, or -1. In a parallel region of one piece, where
 * OpenBLAS stays on the calling thread. */
static int64_t factor_diagonal(const tiles *t, int64_t k)
{
    const int64_t n = extent(t, k);
    int64_t failed = -1;
    QZ_PARALLEL_FOR for (int64_t piece = 0; piece < 1; piece++)
    {
        failed = qz_lapack_cholesky(n, qz_tile64_at(t->a, k, k));
    }
    for (int64_t i = 0; failed < 0 && i < n; i++)
        if (!isfinite(t->a.data[(k + i) * (t->a.stride + 1)])) failed = i;
    return failed < 0 ? -1 : k + failed;
}

static void solve_below(const tiles *t, int64_t k)
{
    const int64_t n = extent(t, k);
    QZ_PARALLEL_FOR for (int64_t i = k + SIDE; i < t->size; i += SIDE)
    {
        qz_blas64_solve(extent(t, i), n, qz_tile64_at(t->a, k, k), qz_tile64_at(t->a, i, k));
    }
}

/* Tile i of the triangle right of column k, counted by rows. */
static void update_tile(const tiles *t, int64_t k, int64_t i)
{
    int64_t row = 0;
    for (; i > row; row++) i -= row + 1;
    row = k + SIDE * (row + 1);
    const int64_t col = k + SIDE * (i + 1), n = extent(t, k);
    const qz_tile64 a = qz_tile64_at(t->a, row, k), out = qz_tile64_at(t->a, row, col);
    if (row == col)
        qz_blas64_syrk(extent(t, row), n, a, out);
    else
        qz_blas64_nt(extent(t, row), extent(t, col), n, a, qz_tile64_at(t->a, col, k), out);
}

qz_status qz_cpu_cholesky(const qz_tensor *a, int64_t *failed)
{
    const tiles t = {{qz_f64(a), a->stride[0]}, a->shape[0]};
    for (int64_t k = 0; k < t.size; k += SIDE) {
        *failed = factor_diagonal(&t, k);
        if (*failed >= 0) return QZ_OK;
        solve_below(&t, k);
        const int64_t right = qz_ceil_div(t.size - k, SIDE) - 1;
        QZ_PARALLEL_FOR for (int64_t i = 0; i < right * (right + 1) / 2; i++)
        {
            update_tile(&t, k, i);
        }
    }
    return QZ_OK;
}
