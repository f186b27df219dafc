/* Training through a quantizer, plainly: the functions of numeric/ on one value after another, sums in double. */
#include "kernels/tables.h"
#include "numeric/actgrid.h"
#include "numeric/piece.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows [*first, *last) that the piece has elements in. */
static void rows_of_piece(int64_t *first, int64_t *last, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    if (s->flat) {
        *first = piece * s->flat / q->cols;
        *last = least(((piece + 1) * s->flat - 1) / q->cols + 1, q->rows);
        return;
    }
    const int64_t height = s->piece_rows ? s->piece_rows : q->rows;
    *first = piece / qz_scheme_scale_cols(s, q->cols) * height;
    *last = least(*first + height, q->rows);
}

static void fit_piece(qz_qtensor *q, const qz_tensor *w, int64_t piece)
{
    int64_t first, last, here;
    float low = 0, high = 0;
    rows_of_piece(&first, &last, q, piece);
    for (int64_t n = first; n < last; n++) {
        for (int64_t k = 0, end; k < q->cols; k = end) {
            float lo, hi;
            end = qz_piece_run(&here, q, n, k);
            if (here != piece) continue;
            qz_range_of(&lo, &hi, qz_f32(w) + n * w->stride[0] + k, end - k);
            low = lo < low ? lo : low;
            high = hi > high ? hi : high;
        }
    }
    qz_piece_fit(q, piece, low, high);
}

qz_status qz_ref_fit_ranges(qz_qtensor *q, const qz_tensor *w)
{
    for (int64_t i = 0; i < qz_scheme_pieces(&q->scheme, q->rows, q->cols); i++) fit_piece(q, w, i);
    if (q->scheme.double_quant) qz_qtensor_encode_scales(q);
    return QZ_OK;
}

qz_status qz_ref_fake_quant(const qz_tensor *y, const qz_tensor *w, const qz_qtensor *q)
{
    for (int64_t n = 0; n < q->rows; n++) {
        for (int64_t k = 0, end; k < q->cols; k = end) {
            int64_t piece;
            end = qz_piece_run(&piece, q, n, k);
            for (int64_t i = k; i < end; i++) {
                uint8_t code;
                qz_piece_encode(&code, qz_f32(w) + n * w->stride[0] + i, 1, q, piece);
                qz_piece_decode(qz_f32(y) + n * y->stride[0] + i, &code, 1, q, piece);
            }
        }
    }
    return QZ_OK;
}

/* One value on its grid, in units of the scale and relative to the zero. */
typedef struct place {
    double v, value, low, high; /* before rounding, after it, the bounds */
    bool fits;                  /* rounds to a code of the format without a clamp */
} place;

static place place_integer(float w, qz_grid g, qz_zero_rule rule)
{
    const float ratio = qz_grid_ratio(w, g, rule),
                shift = rule == QZ_ROUND_VALUE ? (float)g.zero : (float)(g.top + 1) / 2;
    place p = {.low = g.least - g.zero, .high = g.top - g.zero, .value = qz_grid_encode(w, g, rule) - g.zero};
    const float code = qz_rint_small(ratio) + shift;
    p.v = (double)ratio + shift - g.zero;
    p.fits = code >= (float)g.least && code <= (float)g.top;
    return p;
}

static place place_float(float w, float scale, qz_format format)
{
    const float ratio = w / scale, largest = (float)qz_format_of(format)->largest;
    place p = {.v = ratio, .low = -(double)largest, .high = largest, .fits = qz_float_fits(ratio, format)};
    p.value = qz_float_decode(qz_float_encode(w, scale, format), 1, format);
    return p;
}

static place place_codebook(float w, float scale, qz_format format)
{
    const float ratio = scale == 0 ? 0 : w / scale;
    place p = {.v = ratio, .low = -1, .high = 1, .fits = ratio >= -1 && ratio <= 1};
    p.value = qz_codebook_value(qz_codebook_encode(w, scale, format), format);
    return p;
}

static place place_of(float w, const qz_qtensor *q, int64_t piece)
{
    const qz_format format = q->scheme.format;
    switch (qz_format_of(format)->kind) {
    case QZ_KIND_INTEGER:
        return place_integer(w, qz_piece_grid(q, piece), q->scheme.zero_rule);
    case QZ_KIND_FLOAT:
        return place_float(w, q->scales[piece], format);
    default:
        return place_codebook(w, q->scales[piece], format);
    }
}

static bool inside(const place *p)
{
    return p->v > p->low && p->v < p->high;
}

static bool passes(const place *p, qz_ste rule)
{
    return rule == QZ_STE_PASS || (rule == QZ_STE_CLIP ? p->fits : inside(p));
}

/* The derivative by the scale. */
static double by_scale(const place *p)
{
    return inside(p) ? p->value - p->v : p->v <= p->low ? p->low : p->high;
}

static void grad_piece(const qz_tensor *dscales, const qz_tensor *doffsets, const qz_tensor *dy, const qz_tensor *w,
                       const qz_qtensor *q, int64_t piece, float grad_scale)
{
    double scale = 0, offset = 0;
    int64_t first, last, here;
    rows_of_piece(&first, &last, q, piece);
    for (int64_t n = first; n < last; n++) {
        for (int64_t k = 0; k < q->cols; k++) {
            qz_piece_run(&here, q, n, k);
            if (here != piece) continue;
            const place p = place_of(qz_f32(w)[n * w->stride[0] + k], q, piece);
            const double d = qz_f32(dy)[n * dy->stride[0] + k];
            scale += d * by_scale(&p);
            offset -= inside(&p) ? 0 : d * q->scales[piece];
        }
    }
    if (dscales) qz_f32(dscales)[piece] += (float)(grad_scale * scale);
    if (doffsets) qz_f32(doffsets)[piece] += (float)(grad_scale * offset);
}

qz_status qz_ref_fake_quant_grad(const qz_tensor *dw, const qz_tensor *dscales, const qz_tensor *doffsets,
                                 const qz_tensor *dy, const qz_tensor *w, const qz_qtensor *q, qz_ste rule,
                                 float grad_scale)
{
    for (int64_t i = 0; (dscales || doffsets) && i < qz_scheme_pieces(&q->scheme, q->rows, q->cols); i++)
        grad_piece(dscales, doffsets, dy, w, q, i, grad_scale);
    for (int64_t i = 0; dw && i < q->rows * q->cols; i++) {
        const int64_t n = i / q->cols, k = i % q->cols;
        int64_t piece;
        qz_piece_run(&piece, q, n, k);
        const place p = place_of(qz_f32(w)[n * w->stride[0] + k], q, piece);
        qz_f32(dw)[n * dw->stride[0] + k] = passes(&p, rule) ? qz_f32(dy)[n * dy->stride[0] + k] : 0;
    }
    return QZ_OK;
}

static place place_activation(float x, qz_act_values v, qz_format format)
{
    if (!qz_act_is_int(format)) return place_float(x, v.scale, format);
    const float code = x / v.scale + (float)v.zero, rounded = qz_rint_small(code);
    return (place){.v = (double)code - v.zero,
                   .value = qz_rint_small(qz_clamp(code, -128, 127)) - (float)v.zero,
                   .low = -128 - v.zero,
                   .high = 127 - v.zero,
                   .fits = rounded >= -128 && rounded <= 127};
}

/* The bits of `count` elements that share a scale, the first of them bit `at`. */
static void fill_bits(uint8_t *mask, int64_t at, const float *x, int64_t count, const qz_act_scheme *s,
                      const qz_act_values *fixed)
{
    float lo, hi;
    qz_range_of(&lo, &hi, x, count);
    const qz_act_values v = s->mode == QZ_ACT_TENSOR ? *fixed : qz_act_values_of(lo, hi, *s);
    for (int64_t i = 0; i < count; i++) {
        const place p = place_activation(x[i], v, s->format);
        if (p.fits) mask[(at + i) / 8] |= (uint8_t)(1u << ((at + i) % 8));
    }
}

qz_status qz_ref_fake_quant_activations(const qz_tensor *y, const qz_tensor *mask, const qz_tensor *x,
                                        const qz_act_scheme *scheme, const qz_act_values *values)
{
    const int64_t cols = x->shape[1], piece = scheme->mode == QZ_ACT_GROUP ? scheme->group : cols;
    if (mask) memset(mask->data, 0, (size_t)((qz_tensor_count(x) + 7) / 8));
    for (int64_t t = 0; mask && t < x->shape[0]; t++) {
        for (int64_t k = 0; k < cols; k += piece)
            fill_bits(mask->data, t * cols + k, qz_f32(x) + t * x->stride[0] + k, least(piece, cols - k), scheme,
                      values);
    }
    return qz_ref_round_activations(y, x, scheme, values);
}

qz_status qz_ref_mask_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *mask)
{
    const int64_t cols = dx->shape[1];
    for (int64_t i = 0; i < dx->shape[0] * cols; i++) {
        const bool on = ((const uint8_t *)mask->data)[i / 8] >> (i % 8) & 1;
        qz_f32(dx)[i / cols * dx->stride[0] + i % cols] = on ? qz_f32(dy)[i / cols * dy->stride[0] + i % cols] : 0;
    }
    return QZ_OK;
}

qz_status qz_ref_activation_scale_grad(double *dscale, const qz_tensor *dy, const qz_tensor *x,
                                       const qz_act_scheme *scheme, const qz_act_values *values, float grad_scale)
{
    const int64_t cols = x->shape[1];
    double sum = 0;
    for (int64_t i = 0; i < x->shape[0] * cols; i++) {
        const place p = place_activation(qz_f32(x)[i / cols * x->stride[0] + i % cols], *values, scheme->format);
        sum += qz_f32(dy)[i / cols * dy->stride[0] + i % cols] * by_scale(&p);
    }
    *dscale += grad_scale * sum;
    return QZ_OK;
}

/* Rows of w that fit into the workspace, from `first` on, as a matrix there. */
static qz_tensor rows_in_room(const qz_packed *w, int64_t first, const qz_tensor *room)
{
    const int64_t count = least(room->shape[0], w->q.rows - first);
    qz_tensor rows = qz_tensor_rows(room, 0, count);
    for (int64_t i = 0; i < count; i++) qz_packed_rows(qz_f32(room) + i * room->stride[0], w, first + i, 1);
    return rows;
}

qz_status qz_ref_linear_packed(const qz_tensor *y, const qz_tensor *x, const qz_packed *w, const qz_tensor *bias,
                               bool accumulate, const qz_tensor *room)
{
    for (int64_t n = 0; n < w->q.rows; n += room->shape[0]) {
        const qz_tensor rows = rows_in_room(w, n, room), part = qz_columns_of(y, n, rows.shape[0]);
        const qz_tensor added = bias ? qz_columns_of(bias, n, rows.shape[0]) : (qz_tensor){0};
        QZ_TRY(qz_ref_linear(&part, x, &rows, bias ? &added : NULL, accumulate));
    }
    return QZ_OK;
}

qz_status qz_ref_linear_packed_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_packed *w, bool accumulate,
                                      const qz_tensor *room)
{
    for (int64_t n = 0; n < w->q.rows; n += room->shape[0]) {
        const qz_tensor rows = rows_in_room(w, n, room);
        for (int64_t i = 0; i < dx->shape[0] * dx->shape[1]; i++) {
            const int64_t t = i / dx->shape[1], k = i % dx->shape[1];
            float *out = qz_f32(dx) + t * dx->stride[0] + k;
            double sum = accumulate || n > 0 ? *out : 0;
            for (int64_t r = 0; r < rows.shape[0]; r++)
                sum += (double)qz_f32(dy)[t * dy->stride[0] + n + r] * qz_f32(&rows)[r * rows.stride[0] + k];
            *out = (float)sum;
        }
    }
    return QZ_OK;
}
