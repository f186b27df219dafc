/* Fake quantization of activations with a bit for each element that says whether its gradient passes, that gradient,
 * and the one by a static scale. Pieces of work begin at a row whose first bit begins a byte. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_values.h"
#include "kernels/cpu_wide.h"
#include "numeric/actgrid.h"

enum { BUFFER = 256, PARTS = 256, BYTE = 8 };

/* Rows of one piece of work, a multiple of 8. */
static int64_t rows_each(int64_t cols)
{
    return qz_ceil_div(QZ_PIECE, cols * BYTE) * BYTE;
}

QZ_WIDE static void passing(uint8_t *passes, const float *x, int64_t count, qz_gate g)
{
    for (int64_t i = 0; i < count; i++) {
        const float ratio = x[i] / g.scale + g.shift;
        passes[i] = (uint8_t)((ratio >= g.low) & (ratio <= g.high));
    }
}

/* `count` bits from bit `at` on, of which none is set yet. */
static void set_bits(uint8_t *mask, int64_t at, const uint8_t *bits, int64_t count)
{
    int64_t i = 0;
    for (; i < count && (at + i) % BYTE; i++) mask[(at + i) / BYTE] |= (uint8_t)(bits[i] << ((at + i) % BYTE));
    for (; i + BYTE <= count; i += BYTE) {
        uint64_t eight;
        memcpy(&eight, bits + i, sizeof eight);
        mask[(at + i) / BYTE] = (uint8_t)(eight * 0x0102040810204080u >> 56); /* byte j becomes bit j */
    }
    for (; i < count; i++) mask[(at + i) / BYTE] |= (uint8_t)(bits[i] << ((at + i) % BYTE));
}

static void mask_run(uint8_t *mask, int64_t at, const float *x, int64_t count, qz_gate g)
{
    uint8_t bits[BUFFER];
    for (int64_t i = 0; i < count; i += BUFFER) {
        const int64_t some = qz_min(BUFFER, count - i);
        passing(bits, x + i, some, g);
        set_bits(mask, at + i, bits, some);
    }
}

static void quantize_row(float *y, uint8_t *mask, int64_t at, const float *x, int64_t cols, const qz_act_scheme *s,
                         const qz_act_values *fixed)
{
    const int64_t piece = s->mode == QZ_ACT_GROUP ? s->group : cols;
    for (int64_t k = 0; k < cols; k += piece) {
        const int64_t count = qz_min(piece, cols - k);
        qz_act_values v;
        float lo, hi;
        if (s->mode == QZ_ACT_TENSOR) {
            v = *fixed;
        } else {
            qz_values_range(&lo, &hi, x + k, count);
            v = qz_act_values_of(lo, hi, *s);
        }
        if (mask) mask_run(mask, at + k, x + k, count, qz_gate_of_activation(v, s->format, QZ_STE_CLIP));
        qz_values_activation(y + k, x + k, count, v, s->format);
    }
}

qz_status qz_cpu_fake_quant_activations(const qz_tensor *y, const qz_tensor *mask, const qz_tensor *x,
                                        const qz_act_scheme *scheme, const qz_act_values *values)
{
    const int64_t rows = x->shape[0], cols = x->shape[1], each = rows_each(cols);
    uint8_t *bits = mask ? mask->data : NULL;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        const int64_t last = qz_min(first + each, rows), from = first * cols / BYTE;
        if (bits) memset(bits + from, 0, (size_t)(qz_ceil_div(last * cols, BYTE) - from));
        for (int64_t t = first; t < last; t++)
            quantize_row(qz_f32(y) + t * y->stride[0], bits, t * cols, qz_f32(x) + t * x->stride[0], cols, scheme,
                         values);
    }
    return QZ_OK;
}

/* Elements of which the first has the lowest bit of mask[0]; count a multiple of 8. */
QZ_WIDE static void select_run(float *dx, const float *dy, const uint8_t *mask, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) dx[i] = qz_select(mask[i / BYTE] >> (i % BYTE) & 1, dy[i], 0);
}

static void select_row(float *dx, const float *dy, const uint8_t *mask, int64_t at, int64_t cols)
{
    int64_t i = 0;
    for (; i < cols && (at + i) % BYTE; i++) dx[i] = mask[(at + i) / BYTE] >> ((at + i) % BYTE) & 1 ? dy[i] : 0;
    const int64_t whole = (cols - i) / BYTE * BYTE;
    select_run(dx + i, dy + i, mask + (at + i) / BYTE, whole);
    for (i += whole; i < cols; i++) dx[i] = mask[(at + i) / BYTE] >> ((at + i) % BYTE) & 1 ? dy[i] : 0;
}

qz_status qz_cpu_mask_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *mask)
{
    const int64_t rows = dx->shape[0], cols = dx->shape[1], each = rows_each(cols);
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        for (int64_t t = first; t < qz_min(first + each, rows); t++)
            select_row(qz_f32(dx) + t * dx->stride[0], qz_f32(dy) + t * dy->stride[0], mask->data, t * cols, cols);
    }
    return QZ_OK;
}

/* Rows [first, last); adds to sums. */
static void add_rows(double *sums, const qz_tensor *dy, const qz_tensor *x, int64_t first, int64_t last,
                     qz_act_values v, qz_format format)
{
    float value[BUFFER];
    const qz_gate strict = qz_gate_of_activation(v, format, QZ_STE_LSQ);
    for (int64_t t = first; t < last; t++) {
        const float *in = qz_f32(x) + t * x->stride[0], *d = qz_f32(dy) + t * dy->stride[0];
        for (int64_t k = 0; k < x->shape[1]; k += BUFFER) {
            const int64_t some = qz_min(BUFFER, x->shape[1] - k);
            qz_values_activation_relative(value, in + k, some, v, format);
            qz_values_add_sums(sums, d + k, in + k, value, some, strict);
        }
    }
}

qz_status qz_cpu_activation_scale_grad(double *dscale, const qz_tensor *dy, const qz_tensor *x,
                                       const qz_act_scheme *scheme, const qz_act_values *values, float grad_scale)
{
    const int64_t rows = x->shape[0], each = qz_ceil_div(rows, PARTS);
    double sums[PARTS][2] = {{0}}, sum = 0;
    QZ_PARALLEL_FOR for (int64_t i = 0; i < PARTS; i++)
    {
        add_rows(sums[i], dy, x, qz_min(i * each, rows), qz_min((i + 1) * each, rows), *values, scheme->format);
    }
    for (int i = 0; i < PARTS; i++) sum += sums[i][0];
    *dscale += grad_scale * sum;
    return QZ_OK;
}
