/* Lower triangle of g += x^T x: square tiles of g in parallel, each going through the tokens in chunks of fixed size.
 * Within a chunk sums are fp32, as the product of the tile makes them. */
#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"

enum { SIDE = 512, LEAST = 128, WANTED = 4, TOKENS = 512 };

/* Row and column of the i-th tile of a lower triangle: (0,0) (1,0) (1,1) (2,0) ... */
static void tile_of(int64_t i, int64_t *row, int64_t *col)
{
    for (*row = 0; i > *row; ++*row) i -= *row + 1;
    *col = i;
}

static void gram_tile(qz_tile g, qz_tile x, int64_t tokens, int64_t rows, int64_t cols, int64_t row, int64_t col)
{
    const qz_tile out = qz_tile_at(g, row, col);
    for (int64_t t = 0; t < tokens; t += TOKENS) {
        const int64_t count = qz_min(TOKENS, tokens - t);
        if (row == col)
            qz_blas_syrk(rows, count, qz_tile_at(x, t, row), out);
        else
            qz_blas_tn(rows, cols, count, qz_tile_at(x, t, row), qz_tile_at(x, t, col), out);
    }
}

qz_status qz_cpu_gram(const qz_tensor *g, const qz_tensor *x)
{
    const int64_t size = x->shape[1], side = qz_tile_side(size, SIDE, LEAST, WANTED), blocks = qz_ceil_div(size, side);
    const qz_tile out = {qz_f32(g), g->stride[0]}, in = {qz_f32(x), x->stride[0]};
    QZ_PARALLEL_FOR for (int64_t i = 0; i < blocks * (blocks + 1) / 2; i++)
    {
        int64_t row, col;
        tile_of(i, &row, &col);
        row *= side;
        col *= side;
        gram_tile(out, in, x->shape[0], qz_min(side, size - row), qz_min(side, size - col), row, col);
    }
    return QZ_OK;
}
