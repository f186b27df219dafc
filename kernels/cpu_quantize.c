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

/* Of the elements of a piece in rows [first, last): two numbers. */
typedef struct part {
    int64_t piece, first, last;
    double number[NUMBERS];
} part;

typedef struct work {
    qz_qtensor *fitted; /* of fit_ranges */
    const qz_qtensor *q;
    const qz_tensor *w, *dy, *dscales, *doffsets;
    float grad_scale;
    void (*look)(part *p, const struct work *k);
    void (*keep)(const part *parts, int64_t count, const struct work *k);
} work;

/* Rows [first, last) that the piece has elements in. */
static part whole_piece(const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    part p = {.piece = piece};
    if (s->flat) {
        p.first = piece * s->flat / q->cols;
        p.last = qz_min(((piece + 1) * s->flat - 1) / q->cols + 1, q->rows);
        return p;
    }
    const int64_t height = s->piece_rows ? s->piece_rows : q->rows;
    p.first = piece / qz_scheme_scale_cols(s, q->cols) * height;
    p.last = qz_min(p.first + height, q->rows);
    return p;
}

/* Columns [*left, *right) of a row that lie in the piece; not for permutations. */
static void columns_of(int64_t *left, int64_t *right, const qz_qtensor *q, int64_t piece, int64_t row)
{
    const qz_scheme *s = &q->scheme;
    if (s->flat) {
        const int64_t first = piece * s->flat - row * q->cols;
        *left = first > 0 ? first : 0;
        *right = qz_min(first + s->flat, q->cols);
        return;
    }
    const int64_t width = s->piece_cols ? s->piece_cols : q->cols;
    *left = piece % qz_scheme_scale_cols(s, q->cols) * width;
    *right = qz_min(*left + width, q->cols);
}

/* Many pieces: a few thousand elements' worth at a time, each piece as a whole. */
static void do_many(const work *k, int64_t pieces)
{
    const int64_t size = k->q->rows * k->q->cols / pieces, each = size < QZ_PIECE ? QZ_PIECE / (size + 1) + 1 : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < pieces; first += each)
    {
        for (int64_t i = first; i < qz_min(first + each, pieces); i++) {
            part p = whole_piece(k->q, i);
            k->look(&p, k);
            k->keep(&p, 1, k);
        }
    }
}

/* Few pieces: their rows in parts. */
static void do_few(const work *k, int64_t pieces)
{
    const int64_t parts = SLOTS / pieces;
    part slots[SLOTS];
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces * parts; i++)
    {
        part p = whole_piece(k->q, i / parts);
        const int64_t step = qz_ceil_div(p.last - p.first, parts), end = p.last;
        p.first = qz_min(p.first + i % parts * step, end);
        p.last = qz_min(p.first + step, end);
        k->look(&p, k);
        slots[i] = p;
    }
    for (int64_t i = 0; i < pieces; i++) k->keep(slots + i * parts, parts, k);
}

static void do_pieces(const work *k)
{
    const int64_t pieces = qz_scheme_pieces(&k->q->scheme, k->q->rows, k->q->cols);
    if (pieces <= SLOTS / 4)
        do_few(k, pieces);
    else
        do_many(k, pieces);
}

/* ---- ranges ---- */

static void look_range(part *p, const work *k)
{
    float low = 0, high = 0;
    for (int64_t n = p->first; n < p->last; n++) {
        int64_t left, right;
        float lo, hi;
        columns_of(&left, &right, k->q, p->piece, n);
        qz_values_range(&lo, &hi, qz_f32(k->w) + n * k->w->stride[0] + left, right - left);
        low = lo < low ? lo : low;
        high = hi > high ? hi : high;
    }
    p->number[0] = (double)low;
    p->number[1] = (double)high;
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

static void look_sums(part *p, const work *k)
{
    for (int64_t n = p->first; n < p->last; n++) {
        int64_t left, right;
        columns_of(&left, &right, k->q, p->piece, n);
        add_run(p->number, qz_f32(k->dy) + n * k->dy->stride[0] + left, qz_f32(k->w) + n * k->w->stride[0] + left,
                right - left, k->q, p->piece);
    }
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

/* With a permutation a piece has columns here and there: the rows that share scales, for pieces [first, last) of them.
 */
static void add_band(const work *k, int64_t row, int64_t rows, int64_t first, int64_t last)
{
    part parts[SLOTS] = {0};
    for (int64_t n = row; n < row + rows; n++) {
        const float *dy = qz_f32(k->dy) + n * k->dy->stride[0], *w = qz_f32(k->w) + n * k->w->stride[0];
        for (int64_t c = 0, end; c < k->q->cols; c = end) {
            int64_t piece;
            end = qz_piece_run(&piece, k->q, n, c);
            if (piece >= first && piece < last)
                add_run(parts[piece - first].number, dy + c, w + c, end - c, k->q, piece);
        }
    }
    for (int64_t i = first; i < last; i++) {
        parts[i - first].piece = i;
        keep_sums(parts + (i - first), 1, k);
    }
}

static void add_permuted(const work *k)
{
    const qz_scheme *s = &k->q->scheme;
    const int64_t height = s->piece_rows ? s->piece_rows : k->q->rows, cols = qz_scheme_scale_cols(s, k->q->cols);
    QZ_PARALLEL_FOR for (int64_t band = 0; band < qz_scheme_scale_rows(s, k->q->rows); band++)
    {
        const int64_t row = band * height, first = band * cols;
        for (int64_t i = 0; i < cols; i += SLOTS)
            add_band(k, row, qz_min(height, k->q->rows - row), first + i, first + qz_min(i + SLOTS, cols));
    }
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
    if ((dscales || doffsets) && q->permutation) add_permuted(&k);
    if ((dscales || doffsets) && !q->permutation) do_pieces(&k);
    if (!dw) return QZ_OK;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < q->rows; first += each)
    {
        for (int64_t n = first; n < qz_min(first + each, q->rows); n++)
            gate_row(qz_f32(dw) + n * dw->stride[0], qz_f32(dy) + n * dy->stride[0], qz_f32(w) + n * w->stride[0], q, n,
                     rule);
    }
    return QZ_OK;
}
