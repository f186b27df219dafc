/* Loops over rows that memory bounds: RMS norm, rotary embedding, act(gate) * up, caps, residual sum. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

QZ_WIDE static void scale_row(float *y, const float *x, const float *w, float scale, float offset, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * scale * (w[i] + offset);
}

qz_status qz_cpu_rmsnorm(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, float eps, float weight_offset)
{
    const int64_t rows = x->shape[0], cols = x->shape[1], each = cols < QZ_PIECE ? QZ_PIECE / cols : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        for (int64_t t = first; t < qz_min(first + each, rows); t++) {
            const float *in = qz_f32(x) + t * x->stride[0];
            const double mean = qz_reduce_squares(in, cols) / (double)cols;
            scale_row(qz_f32(y) + t * y->stride[0], in, qz_f32(w), (float)(1 / sqrt(mean + eps)), weight_offset, cols);
        }
    }
    return QZ_OK;
}

/* sign: 1 or -1, that of the angle */
QZ_WIDE static void rotate(float *x, const float *cos, const float *sin, float sign, int64_t half)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * (sign * sin[i]);
        x[i + half] = b * cos[i] + a * (sign * sin[i]);
    }
}

qz_status qz_cpu_rope(const qz_tensor *x, const qz_tensor *cos, const qz_tensor *sin, const int32_t *positions,
                      bool inverse)
{
    const int64_t tokens = x->shape[0], heads = x->shape[1], half = x->shape[2] / 2;
    const int64_t each = heads * half < QZ_PIECE ? QZ_PIECE / (heads * half) : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < tokens; first += each)
    {
        for (int64_t t = first; t < qz_min(first + each, tokens); t++) {
            const float *c = qz_f32(cos) + positions[t] * cos->stride[0];
            const float *s = qz_f32(sin) + positions[t] * sin->stride[0];
            for (int64_t h = 0; h < heads; h++)
                rotate(qz_f32(x) + t * x->stride[0] + h * x->stride[1], c, s, inverse ? -1 : 1, half);
        }
    }
    return QZ_OK;
}

QZ_WIDE static void swiglu_row(float *y, const float *gate, const float *up, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = gate[i] / (1 + qz_fast_exp(-gate[i])) * up[i];
}

/* x / 2 (1 + tanh(u)) = x / (1 + exp(-2 u)), with 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3) */
QZ_WIDE static void geglu_row(float *y, const float *gate, const float *up, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) {
        const float x = gate[i], u2 = 1.5957691216f * (x + 0.044715f * x * x * x);
        y[i] = x / (1 + qz_fast_exp(-u2)) * up[i];
    }
}

static void gate_rows(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up,
                      void (*row)(float *y, const float *gate, const float *up, int64_t count))
{
    const qz_pieces pieces = qz_pieces_of(y->shape[0], y->shape[1]);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t t = p.row; t < p.row + p.rows; t++)
            row(qz_f32(y) + t * y->stride[0] + p.col, qz_f32(gate) + t * gate->stride[0] + p.col,
                qz_f32(up) + t * up->stride[0] + p.col, p.cols);
    }
}

qz_status qz_cpu_swiglu(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    gate_rows(y, gate, up, swiglu_row);
    return QZ_OK;
}

qz_status qz_cpu_geglu(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    gate_rows(y, gate, up, geglu_row);
    return QZ_OK;
}

QZ_WIDE static void softcap_row(float *y, const float *x, float cap, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = cap * qz_fast_tanh(x[i] / cap);
}

QZ_WIDE static void multiply_row(float *y, const float *x, float factor, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * factor;
}

static void number_rows(const qz_tensor *y, const qz_tensor *x, float number,
                        void (*row)(float *y, const float *x, float number, int64_t count))
{
    const qz_pieces pieces = qz_pieces_of(y->shape[0], y->shape[1]);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t t = p.row; t < p.row + p.rows; t++)
            row(qz_f32(y) + t * y->stride[0] + p.col, qz_f32(x) + t * x->stride[0] + p.col, number, p.cols);
    }
}

qz_status qz_cpu_softcap(const qz_tensor *y, const qz_tensor *x, float cap)
{
    number_rows(y, x, cap, softcap_row);
    return QZ_OK;
}

qz_status qz_cpu_scale(const qz_tensor *y, const qz_tensor *x, float factor)
{
    number_rows(y, x, factor, multiply_row);
    return QZ_OK;
}

QZ_WIDE static void add_row(float *y, const float *x, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

qz_status qz_cpu_add(const qz_tensor *y, const qz_tensor *x)
{
    const qz_rows to = qz_rows_of(y), from = qz_rows_of(x);
    const qz_pieces pieces = qz_pieces_of(to.rows, to.cols);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t r = p.row; r < p.row + p.rows; r++)
            add_row(qz_f32(y) + r * to.stride + p.col, qz_f32(x) + r * from.stride + p.col, p.cols);
    }
    return QZ_OK;
}
