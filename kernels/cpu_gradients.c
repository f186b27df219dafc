/* Elementwise loops of a training step that memory bounds: gradients of the gated activations and of the cap, products,
 * sums of columns and of embedding rows, dropout. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "kernels/dropout.h"

/* Everything is read before anything is written, since results may lie on arguments. */
QZ_WIDE static void swiglu_grad_row(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                                    int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) {
        const float d = dy[i], x = gate[i], u = up[i], s = 1 / (1 + qz_fast_exp(-x));
        dgate[i] = d * u * (s * (1 + x * (1 - s)));
        dup[i] = d * (x * s);
    }
}

/* With s = 1 / (1 + exp(-2 u)) as in cpu_elementwise.c: gelu = x s, gelu' = s + x s (1 - s) (2 u)'. Where s (1 - s) is
 * 0, (2 u)' may have overflowed. */
QZ_WIDE static void geglu_grad_row(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                                   int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) {
        const float d = dy[i], x = gate[i], u = up[i], square = x * x;
        const float s = 1 / (1 + qz_fast_exp(-1.5957691216f * (x + 0.044715f * square * x)));
        const float bend = s * (1 - s), slope = 1.5957691216f * (1 + 0.134145f * square);
        dgate[i] = d * u * (s + qz_select(bend == 0, 0, x * bend * slope));
        dup[i] = d * (x * s);
    }
}

static void gated_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                       const qz_tensor *up,
                       void (*row)(float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                                   int64_t count))
{
    const qz_pieces pieces = qz_pieces_of(dy->shape[0], dy->shape[1]);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t t = p.row; t < p.row + p.rows; t++)
            row(qz_f32(dgate) + t * dgate->stride[0] + p.col, qz_f32(dup) + t * dup->stride[0] + p.col,
                qz_f32(dy) + t * dy->stride[0] + p.col, qz_f32(gate) + t * gate->stride[0] + p.col,
                qz_f32(up) + t * up->stride[0] + p.col, p.cols);
    }
}

qz_status qz_cpu_swiglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                             const qz_tensor *up)
{
    gated_grad(dgate, dup, dy, gate, up, swiglu_grad_row);
    return QZ_OK;
}

qz_status qz_cpu_geglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                            const qz_tensor *up)
{
    gated_grad(dgate, dup, dy, gate, up, geglu_grad_row);
    return QZ_OK;
}

/* out from a, b and a number; rows as in qz_rows. */
typedef void pair_row(float *out, const float *a, const float *b, float number, int64_t count);

static void pair_rows(const qz_tensor *out, const qz_tensor *a, const qz_tensor *b, float number, pair_row *row)
{
    const qz_rows to = qz_rows_of(out), left = qz_rows_of(a), right = qz_rows_of(b);
    const qz_pieces pieces = qz_pieces_of(to.rows, to.cols);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t r = p.row; r < p.row + p.rows; r++)
            row(qz_f32(out) + r * to.stride + p.col, qz_f32(a) + r * left.stride + p.col,
                qz_f32(b) + r * right.stride + p.col, number, p.cols);
    }
}

QZ_WIDE static void softcap_grad_row(float *dx, const float *dy, const float *y, float cap, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) {
        const float ratio = y[i] / cap;
        dx[i] = dy[i] * ((1 - ratio) * (1 + ratio));
    }
}

qz_status qz_cpu_softcap_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *y, float cap)
{
    pair_rows(dx, dy, y, cap, softcap_grad_row);
    return QZ_OK;
}

QZ_WIDE static void multiply_row(float *y, const float *a, const float *b, float number, int64_t count)
{
    (void)number;
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = a[i] * b[i];
}

qz_status qz_cpu_multiply(const qz_tensor *y, const qz_tensor *a, const qz_tensor *b)
{
    pair_rows(y, a, b, 0, multiply_row);
    return QZ_OK;
}

QZ_WIDE static void add_scaled_row(float *y, const float *a, const float *x, float factor, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = a[i] + factor * x[i];
}

qz_status qz_cpu_add_scaled(const qz_tensor *y, const qz_tensor *x, float factor)
{
    pair_rows(y, y, x, factor, add_scaled_row);
    return QZ_OK;
}

QZ_WIDE static void dropout_row(float *y, const float *x, float keep, uint64_t start, uint64_t place, int32_t limit,
                                int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++)
        y[i] = qz_select(qz_dropout_keeps(start, place + (uint64_t)i, limit), x[i] / keep, 0);
}

qz_status qz_cpu_dropout(const qz_tensor *y, const qz_tensor *x, float p, uint64_t seed, uint64_t first)
{
    const uint64_t start = qz_dropout_start(seed);
    const qz_pieces pieces = qz_pieces_of(x->shape[0], x->shape[1]);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece at = qz_piece_at(&pieces, i);
        for (int64_t t = at.row; t < at.row + at.rows; t++)
            dropout_row(qz_f32(y) + t * y->stride[0] + at.col, qz_f32(x) + t * x->stride[0] + at.col, 1 - p, start,
                        first + (uint64_t)(t * x->shape[1] + at.col), qz_dropout_limit(p), at.cols);
    }
    return QZ_OK;
}

/* ---- sums over tokens: blocks of columns in parallel, tokens in order ---- */

enum { COLS = 256, LEAST = 32, WANTED = 8 };

QZ_WIDE static void add_to_sums(double *sum, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) sum[i] += x[i];
}

qz_status qz_cpu_column_sums(const qz_tensor *sums, const qz_tensor *x)
{
    const int64_t tokens = x->shape[0], size = x->shape[1], side = qz_tile_side(size, COLS, LEAST, WANTED);
    QZ_PARALLEL_FOR for (int64_t n = 0; n < size; n += side)
    {
        double sum[COLS] = {0};
        const int64_t count = qz_min(side, size - n);
        for (int64_t t = 0; t < tokens; t++) add_to_sums(sum, qz_f32(x) + t * x->stride[0] + n, count);
        for (int64_t i = 0; i < count; i++) qz_f32(sums)[n + i] = (float)(qz_f32(sums)[n + i] + sum[i]);
    }
    return QZ_OK;
}

qz_status qz_cpu_embedding_grad(const qz_tensor *dtable, const qz_tensor *dy, const int32_t *ids, float factor)
{
    const int64_t tokens = dy->shape[0], size = dy->shape[1], side = qz_tile_side(size, COLS, LEAST, WANTED);
    QZ_PARALLEL_FOR for (int64_t c = 0; c < size; c += side)
    {
        for (int64_t t = 0; t < tokens; t++) {
            float *out = qz_f32(dtable) + ids[t] * dtable->stride[0] + c;
            add_scaled_row(out, out, qz_f32(dy) + t * dy->stride[0] + c, factor, qz_min(side, size - c));
        }
    }
    return QZ_OK;
}
