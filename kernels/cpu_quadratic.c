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

/* ROWS x COLS and COLS x COLS floats: 192 KiB of stack. */
enum { ROWS = 256, LEAST = 64, WANTED = 4, COLS = 128, LANES = 16 };

/* L_j */
static void half_diagonal(float *out, qz_tile g, int64_t cols)
{
    for (int64_t i = 0; i < cols; i++) {
        memset(out + i * COLS, 0, COLS * sizeof *out);
        memcpy(out + i * COLS, g.data + i * g.stride, (size_t)i * sizeof *out);
        out[i * COLS + i] = 0.5f * g.data[i * g.stride + i];
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

static void quadratic_rows(double *out, qz_tile d, qz_tile g, int64_t rows, int64_t size)
{
    float product[ROWS * COLS], diagonal[COLS * COLS];
    const qz_tile y = {product, COLS}, l = {diagonal, COLS};
    memset(out, 0, (size_t)rows * sizeof *out);
    for (int64_t j = 0; j < size; j += COLS) {
        const int64_t cols = qz_min(COLS, size - j), right = j + cols;
        half_diagonal(diagonal, qz_tile_at(g, j, j), cols);
        qz_blas_nn(rows, cols, cols, qz_tile_at(d, 0, j), l, 0, y);
        if (right < size) qz_blas_nn(rows, cols, size - right, qz_tile_at(d, 0, right), qz_tile_at(g, right, j), 1, y);
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
