/* Training through a quantizer: ranges, values of the nearest codes, gradients. Rows are independent where nothing is
 * summed; what belongs to a piece is found by one thread, or, where pieces are few, in parts that depend on the shape
 * alone and are put together in their order. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_values.h"
#include "kernels/cpu_wide.h"
#include "numeric/piece.h"

enum { BUFFER = 256, SLOTS = 256, NUMBERS = 2 };

/* ---- what is found of each piece ---- */

/* Of the elements of a piece that were looked at: two numbers, 0 before the first. */
typedef struct part {
    int64_t piece;
    double number[NUMBERS];
} part;

typedef struct work {
    qz_qtensor *fitted; /* of fit_ranges */
    const qz_qtensor *q;
    const qz_tensor *w, *dy, *dscales, *doffsets;
    float grad_scale;
    /* Columns [left, right) of a row, which lie in one piece. */
    void (*look)(part *p, const struct work *k, int64_t row, int64_t left, int64_t right);
    void (*keep)(const part *parts, int64_t count, const struct work *k);
} work;

/* The rows [row, row + rows), which share their pieces, for pieces [first, last) of them. */
static void do_band(const work *k, int64_t row, int64_t rows, int64_t first, int64_t last)
{
    part parts[SLOTS] = {0};
    for (int64_t i = first; i < last; i++) parts[i - first].piece = i;
    for (int64_t n = row; n < row + rows; n++) {
        for (int64_t c = 0, end; c < k->q->cols; c = end) {
            int64_t piece;
            end = qz_piece_run(&piece, k->q, n, c);
            if (piece >= first && piece < last) k->look(parts + (piece - first), k, n, c, end);
        }
    }
    for (int64_t i = first; i < last; i++) k->keep(parts + (i - first), 1, k);
}

static void do_bands(const work *k)
{
    const qz_scheme *s = &k->q->scheme;
    const int64_t height = s->piece_rows ? s->piece_rows : k->q->rows, cols = qz_scheme_scale_cols(s, k->q->cols);
    const int64_t bands = qz_scheme_scale_rows(s, k->q->rows), each = qz_ceil_div(QZ_PIECE, height * k->q->cols);
    QZ_PARALLEL_FOR for (int64_t some = 0; some < bands; some += each)
    {
        for (int64_t band = some; band < qz_min(some + each, bands); band++) {
            const int64_t row = band * height, first = band * cols;
            for (int64_t i = 0; i < cols; i += SLOTS)
                do_band(k, row, qz_min(height, k->q->rows - row), first + i, first + qz_min(i + SLOTS, cols));
        }
    }
}

/* Runs of the matrix row by row, several at a time. */
static void do_flat(const work *k, int64_t pieces)
{
    const int64_t flat = k->q->scheme.flat, cols = k->q->cols, all = k->q->rows * cols;
    const int64_t each = qz_ceil_div(QZ_PIECE, flat);
    QZ_PARALLEL_FOR for (int64_t first = 0; first < pieces; first += each)
    {
        for (int64_t i = first; i < qz_min(first + each, pieces); i++) {
            part p = {.piece = i};
            for (int64_t at = i * flat, end; at < qz_min((i + 1) * flat, all); at = end) {
                const int64_t row = at / cols;
                end = qz_min(qz_min((row + 1) * cols, (i + 1) * flat), all);
                k->look(&p, k, row, at - row * cols, end - row * cols);
            }
            k->keep(&p, 1, k);
        }
    }
}

/* Few pieces as high as many rows: their rows in parts. */
static void do_few(const work *k, int64_t pieces)
{
    const qz_scheme *s = &k->q->scheme;
    const int64_t height = s->piece_rows ? s->piece_rows : k->q->rows,
                  width = s->piece_cols ? s->piece_cols : k->q->cols;
    const int64_t parts = SLOTS / pieces, cols = qz_scheme_scale_cols(s, k->q->cols), step = qz_ceil_div(height, parts);
    part slots[SLOTS];
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces * parts; i++)
    {
        part p = {.piece = i / parts};
        const int64_t row = p.piece / cols * height, left = p.piece % cols * width;
        const int64_t end = qz_min(row + height, k->q->rows), first = qz_min(row + i % parts * step, end);
        for (int64_t n = first; n < qz_min(first + step, end); n++)
            k->look(&p, k, n, left, qz_min(left + width, k->q->cols));
        slots[i] = p;
    }
    for (int64_t i = 0; i < pieces; i++) k->keep(slots + i * parts, parts, k);
}

static void do_pieces(const work *k)
{
    const int64_t pieces = qz_scheme_pieces(&k->q->scheme, k->q->rows, k->q->cols);
    if (k->q->scheme.flat)
        do_flat(k, pieces);
    else if (pieces <= SLOTS / 4 && !k->q->permutation)
        do_few(k, pieces);
    else
        do_bands(k);
}

/* ---- ranges ---- */

static void look_range(part *p, const work *k, int64_t row, int64_t left, int64_t right)
{
    float low, high;
    qz_values_range(&low, &high, qz_f32(k->w) + row * k->w->stride[0] + left, right - left);
    p->number[0] = (double)low < p->number[0] ? (double)low : p->number[0];
    p->number[1] = (double)high > p->number[1] ? (double)high : p->number[1];
}

static void keep_range(const part *parts, int64_t count, const work *k)
{
    double low = 0, high = 0;
    for (int64_t i = 0; i < count; i++) {
        low = parts[i].number[0] < low ? parts[i].number[0] : low;
        high = parts[i].number[1] > high ? parts[i].number[1] : high;
    }
    qz_piece_fit(k->fitted, parts->piece, (float)low, (float)high);
}

qz_status qz_cpu_fit_ranges(qz_qtensor *q, const qz_tensor *w)
{
    do_pieces(&(work){.fitted = q, .q = q, .w = w, .look = look_range, .keep = keep_range});
    if (q->scheme.double_quant) qz_qtensor_encode_scales(q);
    return QZ_OK;
}

/* ---- values ---- */

/* The scale of values: with double quantization from a table of the dynamic map. */
static float scale_of(const qz_qtensor *q, int64_t piece, const float map[256])
{
    if (!q->scheme.double_quant) return q->scales[piece];
    return map[q->scale_codes[piece]] * q->second_scales[piece / QZ_DOUBLE_BLOCK] + q->scale_offset;
}

static void round_row(float *y, const float *w, const qz_qtensor *q, int64_t n, const float map[256])
{
    for (int64_t k = 0, end; k < q->cols; k = end) {
        int64_t piece;
        end = qz_piece_run(&piece, q, n, k);
        qz_values_run(y + k, w + k, end - k, q, piece, scale_of(q, piece, map));
    }
}

qz_status qz_cpu_fake_quant(const qz_tensor *y, const qz_tensor *w, const qz_qtensor *q)
{
    const int64_t each = qz_ceil_div(QZ_PIECE, q->cols);
    float map[256];
    for (int i = 0; q->scheme.double_quant && i < 256; i++) map[i] = qz_dynamic_decode(i);
    QZ_PARALLEL_FOR for (int64_t first = 0; first < q->rows; first += each)
    {
        for (int64_t n = first; n < qz_min(first + each, q->rows); n++)
            round_row(qz_f32(y) + n * y->stride[0], qz_f32(w) + n * w->stride[0], q, n, map);
    }
    return QZ_OK;
}

/* ---- gradients of weights and of their grids ---- */

QZ_WIDE static void gate_run(float *dw, const float *dy, const float *w, int64_t count, qz_gate g)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) {
        const float ratio = w[i] / g.scale + g.shift;
        dw[i] = qz_select((ratio >= g.low) & (ratio <= g.high), dy[i], 0);
    }
}

static void add_run(double *sums, const float *dy, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    float value[BUFFER];
    const qz_gate strict = qz_gate_of(q, piece, QZ_STE_LSQ);
    if (q->scales[piece] == 0) return; /* the values are 0 and stay it */
    for (int64_t at = 0; at < count; at += BUFFER) {
        const int64_t some = qz_min(BUFFER, count - at);
        qz_values_run(value, w + at, some, q, piece, 1);
        qz_values_add_sums(sums, dy + at, w + at, value, some, strict);
    }
}

static void look_sums(part *p, const work *k, int64_t row, int64_t left, int64_t right)
{
    add_run(p->number, qz_f32(k->dy) + row * k->dy->stride[0] + left, qz_f32(k->w) + row * k->w->stride[0] + left,
            right - left, k->q, p->piece);
}

static void keep_sums(const part *parts, int64_t count, const work *k)
{
    const int64_t piece = parts->piece;
    double scale = 0, outside = 0;
    for (int64_t i = 0; i < count; i++) {
        scale += parts[i].number[0];
        outside += parts[i].number[1];
    }
    if (k->dscales) qz_f32(k->dscales)[piece] += (float)(k->grad_scale * scale);
    if (k->doffsets) qz_f32(k->doffsets)[piece] += (float)(k->grad_scale * -outside * k->q->scales[piece]);
}

static void gate_row(float *dw, const float *dy, const float *w, const qz_qtensor *q, int64_t n, qz_ste rule)
{
    for (int64_t k = 0, end; k < q->cols; k = end) {
        int64_t piece;
        end = qz_piece_run(&piece, q, n, k);
        gate_run(dw + k, dy + k, w + k, end - k, qz_gate_of(q, piece, rule));
    }
}

qz_status qz_cpu_fake_quant_grad(const qz_tensor *dw, const qz_tensor *dscales, const qz_tensor *doffsets,
                                 const qz_tensor *dy, const qz_tensor *w, const qz_qtensor *q, qz_ste rule,
                                 float grad_scale)
{
    const work k = {.q = q,
                    .w = w,
                    .dy = dy,
                    .dscales = dscales,
                    .doffsets = doffsets,
                    .grad_scale = grad_scale,
                    .look = look_sums,
                    .keep = keep_sums};
    const int64_t each = qz_ceil_div(QZ_PIECE, q->cols);
    if (dscales || doffsets) do_pieces(&k);
    if (!dw) return QZ_OK;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < q->rows; first += each)
    {
        for (int64_t n = first; n < qz_min(first + each, q->rows); n++)
            gate_row(qz_f32(dw) + n * dw->stride[0], qz_f32(dy) + n * dy->stride[0], qz_f32(w) + n * w->stride[0], q, n,
                     rule);
    }
    return QZ_OK;
}
