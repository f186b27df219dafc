/* Products with a packed matrix: a tile of its rows becomes fp32 in the caller's workspace, then one dense product. A
 * byte is one to four codes, so their values come from a table of 256 entries; one pass over the row subtracts zeros
 * and multiplies by scales. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/piece.h"

enum { BYTES = 256, MOST = 4 };

/* Values of the codes in a byte, before zero and scale; and of the codes of scales. */
typedef struct tables {
    int each; /* codes in a byte */
    float value[BYTES * MOST];
    float map[BYTES];
} tables;

static void fill_tables(tables *t, const qz_scheme *s)
{
    const int bits = qz_packed_bits(s->format);
    t->each = 8 / bits;
    for (int i = 0; i < BYTES * t->each; i++) {
        const int code = i / t->each >> (i % t->each * bits) & ((1 << bits) - 1);
        t->value[i] = qz_code_value(code, s->format);
    }
    for (int i = 0; s->double_quant && i < BYTES; i++) t->map[i] = qz_dynamic_decode(i);
}

static void look_up1(float *out, const uint8_t *bytes, int64_t count, const float *value)
{
    for (int64_t i = 0; i < count; i++) out[i] = value[bytes[i]];
}

static void look_up2(float *out, const uint8_t *bytes, int64_t count, const float *value)
{
    for (int64_t i = 0; i < count; i++) memcpy(out + 2 * i, value + 2 * bytes[i], 2 * sizeof *out);
}

static void look_up4(float *out, const uint8_t *bytes, int64_t count, const float *value)
{
    for (int64_t i = 0; i < count; i++) memcpy(out + 4 * i, value + 4 * bytes[i], 4 * sizeof *out);
}

static void look_up(float *out, const uint8_t *bytes, int64_t count, const tables *t)
{
    const int64_t whole = count / t->each;
    if (t->each == 1)
        look_up1(out, bytes, whole, t->value);
    else if (t->each == 2)
        look_up2(out, bytes, whole, t->value);
    else
        look_up4(out, bytes, whole, t->value);
    for (int64_t i = whole * t->each; i < count; i++) out[i] = t->value[bytes[whole] * t->each + i % t->each];
}

QZ_WIDE static void scale_run(float *x, int64_t count, float zero, float scale)
{
    for (int64_t i = 0; i < count; i++) x[i] = (x[i] - zero) * scale;
}

QZ_WIDE static void multiply_run(float *x, int64_t count, float scale)
{
    for (int64_t i = 0; i < count; i++) x[i] *= scale;
}

static void dequantize_row(float *out, const qz_packed *p, int64_t n, const tables *t)
{
    const qz_qtensor *q = &p->q;
    const qz_format_info *f = qz_format_of(q->scheme.format);
    look_up(out, p->words + n * qz_packed_row_bytes(q->scheme.format, q->cols), q->cols, t);
    for (int64_t k = 0, end; k < q->cols; k = end) {
        int64_t piece;
        end = qz_piece_run(&piece, q, n, k);
        const float scale =
            q->scheme.double_quant
                ? t->map[q->scale_codes[piece]] * q->second_scales[piece / QZ_DOUBLE_BLOCK] + q->scale_offset
                : q->scales[piece];
        if (f->kind == QZ_KIND_INTEGER)
            scale_run(out + k, end - k, q->zeros ? (float)q->zeros[piece] : (float)(1 << (f->bits - 1)), scale);
        else /* no zero is subtracted: -0 keeps its sign */
            multiply_run(out + k, end - k, scale);
    }
}

/* Rows of w from `first` on, as many as the workspace has room for. */
static qz_tensor rows_in_room(const qz_packed *w, int64_t first, const qz_tensor *room, const tables *t)
{
    const int64_t count = qz_min(room->shape[0], w->q.rows - first), each = qz_ceil_div(QZ_PIECE, w->q.cols);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < count; i += each)
    {
        for (int64_t r = i; r < qz_min(i + each, count); r++) {
            float *row = qz_f32(room) + r * room->stride[0];
            if (w->plain.data)
                qz_packed_rows(row, w, first + r, 1);
            else
                dequantize_row(row, w, w->first + first + r, t);
        }
    }
    return qz_tensor_rows(room, 0, count);
}

qz_status qz_cpu_linear_packed(const qz_tensor *y, const qz_tensor *x, const qz_packed *w, const qz_tensor *bias,
                               bool accumulate, const qz_tensor *room)
{
    tables t;
    fill_tables(&t, &w->q.scheme);
    for (int64_t n = 0; n < w->q.rows; n += room->shape[0]) {
        const qz_tensor rows = rows_in_room(w, n, room, &t), part = qz_columns_of(y, n, rows.shape[0]);
        const qz_tensor added = bias ? qz_columns_of(bias, n, rows.shape[0]) : (qz_tensor){0};
        QZ_TRY(qz_cpu_linear(&part, x, &rows, bias ? &added : NULL, accumulate));
    }
    return QZ_OK;
}

qz_status qz_cpu_linear_packed_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_packed *w, bool accumulate,
                                      const qz_tensor *room)
{
    tables t;
    fill_tables(&t, &w->q.scheme);
    for (int64_t n = 0; n < w->q.rows; n += room->shape[0]) {
        const qz_tensor rows = rows_in_room(w, n, room, &t), part = qz_columns_of(dy, n, rows.shape[0]);
        QZ_TRY(qz_cpu_linear_grad_x(dx, &part, &rows, accumulate || n > 0));
    }
    return QZ_OK;
}
