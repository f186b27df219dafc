/* One piece of a quantized matrix: range -> its scale and zero; the grid that these two are; codes of a run of weights
 * that shares it, and the values of codes.
 *
 * With double quantization codes are chosen with `scales`, and values are made of what the codes of the scales give
 * back (qz_piece_scale), as bitsandbytes does it. */
#ifndef QZ_NUMERIC_PIECE_H
#define QZ_NUMERIC_PIECE_H

#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/tensor.h"

/* Scale and zero for values in [lo, hi], lo <= 0 <= hi. */
static inline void qz_piece_fit(const qz_qtensor *q, int64_t piece, float lo, float hi)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    const float most = -lo > hi ? -lo : hi;
    if (f->kind == QZ_KIND_FLOAT) {
        q->scales[piece] = qz_float_scale(most, s->format, s->scale_type);
        return;
    }
    if (f->kind == QZ_KIND_CODEBOOK) {
        q->scales[piece] = qz_codebook_scale(most, s->scale_type);
        return;
    }
    const qz_grid g = s->narrow      ? qz_grid_narrow(lo, hi, f->bits, s->scale_type)
                      : s->symmetric ? qz_grid_of(lo, hi, f->bits, 1, s->scale_type, s->zero_rule)
                                     : qz_grid_above(lo, hi, f->bits, s->least_zero, s->scale_type, s->zero_rule);
    q->scales[piece] = g.scale;
    if (q->zeros) q->zeros[piece] = (uint8_t)g.zero;
}

/* The piece of element (row, col), and the column behind the last one of this row that lies in it without a gap:
 * qz_scheme_run, and it knows permutations. */
static inline int64_t qz_piece_run(int64_t *piece, const qz_qtensor *q, int64_t row, int64_t col)
{
    const qz_scheme *s = &q->scheme;
    if (!q->permutation) return qz_scheme_run(piece, s, q->cols, row, col);
    int64_t end = col + 1;
    while (end < q->cols && q->permutation[end] == q->permutation[col]) end++;
    *piece = (s->piece_rows ? row / s->piece_rows : 0) * qz_scheme_scale_cols(s, q->cols) + q->permutation[col];
    return end;
}

/* The scale that values of the piece are made with: with double quantization that of its code, if there are codes. */
static inline float qz_piece_scale(const qz_qtensor *q, int64_t piece)
{
    if (!q->scheme.double_quant || !q->scale_codes) return q->scales[piece];
    return qz_double_decode(q->scale_codes[piece], q->second_scales[piece / QZ_DOUBLE_BLOCK], q->scale_offset);
}

/* For integer formats. */
static inline qz_grid qz_piece_grid(const qz_qtensor *q, int64_t piece)
{
    const int bits = qz_format_of(q->scheme.format)->bits;
    return (qz_grid){q->scales[piece], q->zeros ? q->zeros[piece] : 1 << (bits - 1), (1 << bits) - 1, q->scheme.narrow};
}

/* The nearest codes. */
static inline void qz_piece_encode(uint8_t *codes, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_kind kind = qz_format_of(s->format)->kind;
    const float scale = q->scales[piece];
    if (kind == QZ_KIND_INTEGER) {
        const qz_grid g = qz_piece_grid(q, piece);
        for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)qz_grid_encode(w[i], g, s->zero_rule);
    } else if (kind == QZ_KIND_CODEBOOK) {
        for (int64_t i = 0; i < count; i++) codes[i] = qz_codebook_encode(w[i], scale, s->format);
    } else {
        for (int64_t i = 0; i < count; i++) codes[i] = qz_float_encode(w[i], scale, s->format);
    }
}

/* What a code counts before the scale: for integers without their zero. */
static inline float qz_code_value(int code, qz_format format)
{
    switch (qz_format_of(format)->kind) {
    case QZ_KIND_INTEGER:
        return (float)code;
    case QZ_KIND_CODEBOOK:
        return qz_codebook_value(code, format);
    default:
        return qz_float_decode((uint8_t)code, 1, format);
    }
}

/* The values of codes. */
static inline void qz_piece_decode(float *out, const uint8_t *codes, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_format format = q->scheme.format;
    const qz_format_info *f = qz_format_of(format);
    const float scale = qz_piece_scale(q, piece);
    if (f->kind == QZ_KIND_INTEGER) {
        const qz_grid g = {.scale = scale, .zero = q->zeros ? q->zeros[piece] : 1 << (f->bits - 1)};
        for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(codes[i], g);
    } else if (f->kind == QZ_KIND_CODEBOOK) {
        for (int64_t i = 0; i < count; i++) out[i] = qz_codebook_decode(codes[i], scale, format);
    } else {
        for (int64_t i = 0; i < count; i++) out[i] = qz_float_decode(codes[i], scale, format);
    }
}

/* The values that the nearest codes stand for; without double quantization. */
static inline void qz_piece_round(float *out, const float *w, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_kind kind = qz_format_of(s->format)->kind;
    const qz_format format = s->format;
    const float scale = q->scales[piece];
    if (kind == QZ_KIND_INTEGER) {
        const qz_grid g = qz_piece_grid(q, piece);
        for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(qz_grid_encode(w[i], g, s->zero_rule), g);
    } else if (kind == QZ_KIND_CODEBOOK) {
        for (int64_t i = 0; i < count; i++)
            out[i] = qz_codebook_decode(qz_codebook_encode(w[i], scale, format), scale, format);
    } else {
        for (int64_t i = 0; i < count; i++)
            out[i] = qz_float_decode(qz_float_encode(w[i], scale, format), scale, format);
    }
}

#endif
