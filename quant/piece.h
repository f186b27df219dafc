/* One piece of a quantized matrix: range -> its scale and zero; the grid that these two are. */
#ifndef QZ_QUANT_PIECE_H
#define QZ_QUANT_PIECE_H

#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/tensor.h"

/* Scale and zero for values in [lo, hi], lo <= 0 <= hi. */
static inline void qz_piece_fit(qz_qtensor *q, int64_t piece, float lo, float hi)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    if (f->kind == QZ_KIND_FLOAT) {
        q->scales[piece] = qz_float_scale(-lo > hi ? -lo : hi, s->format, s->scale_type);
        return;
    }
    const qz_grid g = qz_grid_of(lo, hi, f->bits, s->symmetric, s->scale_type, s->zero_rule);
    q->scales[piece] = g.scale;
    if (q->zeros) q->zeros[piece] = (uint8_t)g.zero;
}

/* For integer formats. */
static inline qz_grid qz_piece_grid(const qz_qtensor *q, int64_t piece)
{
    const int bits = qz_format_of(q->scheme.format)->bits;
    return (qz_grid){q->scales[piece], q->zeros ? q->zeros[piece] : 1 << (bits - 1), (1 << bits) - 1};
}

#endif
