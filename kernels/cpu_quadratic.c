/* out_n = d_n^T G d_n from the lower triangle of G alone, at half the work of D G:
 *     d^T G d = 2 sum_j (D_{>j} G_{>j,j} + D_j L_j) . D_j
 * for blocks j of columns, where D_{>j} are the columns right of block j and L_j is the diagonal block's lower triangle
 * with its diagonal halved. Rows of D are cut into tiles; products are fp32, sums of products with D_j fp64, block
 * after block. */
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

/* ROWS x COLS and SIDE x SIDE floats: 256 KiB of stack. */
enum { ROWS = 192, LEAST = 48, WANTED = 4, COLS = 256, SIDE = 128, LANES = 16 };

/* L_j */
static void half_diagonal(float *out, qz_tile g, int64_t cols)
{
    for (int64_t i = 0; i < cols; i++) {
        memset(out + i * SIDE, 0, SIDE * sizeof *out);
        memcpy(out + i * SIDE, g.data + i * g.stride, (size_t)i * sizeof *out);
        out[i * SIDE + i] = 0.5f * g.data[i * g.stride + i];
    }
}

QZ_WIDE static double dot(const float *a, const float *b, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int64_t l = 0; l < LANES; l++) lane[l] += (double)a[i + l] * b[i + l];
    }
    for (; i < count; i++) sum += (double)a[i] * b[i];
    for (int64_t l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

/* y (rows, cols) = D_{>=j} L for the columns [j, j + cols), where L is G from there on with the upper triangle 0 and
 * the diagonal halved. */
static void block_product(qz_tile y, qz_tile d, qz_tile g, int64_t rows, int64_t cols, int64_t size)
{
    float diagonal[SIDE * SIDE];
    const qz_tile l = {diagonal, SIDE};
    for (int64_t i = 0; i < cols; i += SIDE) {
        const int64_t n = qz_min(SIDE, cols - i), below = i + n;
        half_diagonal(diagonal, qz_tile_at(g, i, i), n);
        qz_blas_nn(rows, n, n, qz_tile_at(d, 0, i), l, 0, qz_tile_at(y, 0, i));
        if (below < cols)
            qz_blas_nn(rows, n, cols - below, qz_tile_at(d, 0, below), qz_tile_at(g, below, i), 1, qz_tile_at(y, 0, i));
    }
    if (cols < size) qz_blas_nn(rows, cols, size - cols, qz_tile_at(d, 0, cols), qz_tile_at(g, cols, 0), 1, y);
}

static void quadratic_rows(double *out, qz_tile d, qz_tile g, int64_t rows, int64_t size)
{
    float product[ROWS * COLS];
    memset(out, 0, (size_t)rows * sizeof *out);
    for (int64_t j = 0; j < size; j += COLS) {
        const int64_t cols = qz_min(COLS, size - j);
        block_product((qz_tile){product, COLS}, qz_tile_at(d, 0, j), qz_tile_at(g, j, j), rows, cols, size - j);
        for (int64_t n = 0; n < rows; n++) out[n] += 2 * dot(product + n * COLS, d.data + n * d.stride + j, cols);
    }
}

qz_status qz_cpu_quadratic_form(const qz_tensor *out, const qz_tensor *d, const qz_tensor *g)
{
    const int64_t rows = d->shape[0], size = d->shape[1], side = qz_tile_side(rows, ROWS, LEAST, WANTED);
    const qz_tile dt = {qz_f32(d), d->stride[0]}, gt = {qz_f32(g), g->stride[0]};
    QZ_PARALLEL_FOR for (int64_t n = 0; n < rows; n += side)
    {
        quadratic_rows(qz_f64(out) + n, qz_tile_at(dt, n, 0), gt, qz_min(side, rows - n), size);
    }
    return QZ_OK;
}
