/* Gradients of the RMS norm. Rows are taken in blocks that a cache holds: first the two numbers of each row, then the
 * weight's gradient by blocks of columns with the rows in order, then the rows themselves. With g = dy (w + offset) and
 * r = 1 / sqrt(mean x^2 + eps): dx = r (g - x r^2 mean(g x)). */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

/* ELEMENTS and ROWS of a block at most; COLS of the weight together. */
enum { ELEMENTS = 1 << 18, ROWS = 1024, COLS = 256, LEAST = 32, WANTED = 8 };

/* A block of rows, and r and r^3 mean(g x) of each. */
typedef struct block {
    const qz_tensor *dx, *dy, *x;
    const float *w;
    float eps, offset;
    bool accumulate;
    int64_t first, count, each; /* rows; those of one piece of work */
    float scale[ROWS], shrink[ROWS];
} block;

static const float *row_at(const qz_tensor *x, int64_t t)
{
    return qz_f32(x) + t * x->stride[0];
}

static void measure(block *b)
{
    const int64_t cols = b->x->shape[1];
    QZ_PARALLEL_FOR for (int64_t at = 0; at < b->count; at += b->each)
    {
        for (int64_t i = at; i < qz_min(at + b->each, b->count); i++) {
            const float *x = row_at(b->x, b->first + i), *dy = row_at(b->dy, b->first + i);
            const double r = 1 / sqrt(qz_reduce_squares(x, cols) / (double)cols + b->eps);
            const double mean = qz_reduce_weighted(dy, b->w, b->offset, x, cols) / (double)cols;
            b->scale[i] = (float)r;
            b->shrink[i] = (float)(r * r * r * mean);
        }
    }
}

QZ_WIDE static void add_products(double *sum, const float *dy, const float *x, float scale, int64_t count)
{
    for (int64_t i = 0; i < count; i++) sum[i] += (double)dy[i] * x[i] * scale;
}

static void weight_grad(const block *b, float *dw)
{
    const int64_t cols = b->x->shape[1], side = qz_tile_side(cols, COLS, LEAST, WANTED);
    QZ_PARALLEL_FOR for (int64_t c = 0; c < cols; c += side)
    {
        double sum[COLS] = {0};
        const int64_t count = qz_min(side, cols - c);
        for (int64_t i = 0; i < b->count; i++)
            add_products(sum, row_at(b->dy, b->first + i) + c, row_at(b->x, b->first + i) + c, b->scale[i], count);
        for (int64_t i = 0; i < count; i++) dw[c + i] = (float)(dw[c + i] + sum[i]);
    }
}

/* dx = keep dx + ..., where keep is 0 or 1; dx may hold anything when it is 0. */
QZ_WIDE static void grad_row(float *dx, const float *dy, const float *x, const float *w, float offset, float scale,
                             float shrink, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * (w[i] + offset) * scale - x[i] * shrink;
}

QZ_WIDE static void add_grad_row(float *dx, const float *dy, const float *x, const float *w, float offset, float scale,
                                 float shrink, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) dx[i] += dy[i] * (w[i] + offset) * scale - x[i] * shrink;
}

static void input_grad(const block *b)
{
    const int64_t cols = b->x->shape[1];
    QZ_PARALLEL_FOR for (int64_t at = 0; at < b->count; at += b->each)
    {
        for (int64_t i = at; i < qz_min(at + b->each, b->count); i++) {
            float *dx = qz_f32(b->dx) + (b->first + i) * b->dx->stride[0];
            (b->accumulate ? add_grad_row : grad_row)(dx, row_at(b->dy, b->first + i), row_at(b->x, b->first + i), b->w,
                                                      b->offset, b->scale[i], b->shrink[i], cols);
        }
    }
}

qz_status qz_cpu_rmsnorm_grad(const qz_tensor *dx, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x,
                              const qz_tensor *w, float eps, float weight_offset, bool accumulate)
{
    const int64_t rows = x->shape[0], cols = x->shape[1];
    const int64_t most = cols < ELEMENTS / ROWS ? ROWS : cols < ELEMENTS ? ELEMENTS / cols : 1;
    block b = {.dx = dx, .dy = dy, .x = x, .w = qz_f32(w), .eps = eps, .offset = weight_offset};
    b.accumulate = accumulate;
    b.each = cols < QZ_PIECE ? QZ_PIECE / cols : 1;
    for (b.first = 0; b.first < rows; b.first += most) {
        b.count = qz_min(most, rows - b.first);
        measure(&b);
        if (dw) weight_grad(&b, qz_f32(dw));
        input_grad(&b);
    }
    return QZ_OK;
}
