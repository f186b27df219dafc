/* One piece of a quantized matrix: range -> its scale and zero; the grid that these two are; codes of a run of weights
 * that shares it. */
#ifndef QZ_QUANT_PIECE_H
#define QZ_QUANT_PIECE_H

#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/tensor.h"

/* Scale and zero for values in [lo, hi], lo <= 0 <= hi. */
static inline void qz_piece_fit(qz_qtensor *q, int64_t piece, float lo, float hi)
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

/* The values that the nearest codes stand for. */
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
