/* Integer grids: value = (code - zero) * scale with code in 0 .. 2^bits - 1.
 *
 * One piece (a group, a row, a tensor) goes through three steps, each written once and used by solvers, fake-quant,
 * exporters and tests:
 *     range   lo = min(w, 0), hi = max(w, 0)                              qz_range_of
 *     grid    scale, zero from the range                                   qz_grid_of
 *     codes   rint(w / scale) + zero, clamped                              qz_grid_encode
 * The scale is rounded to the type it will be stored in before the zero and any code is chosen.
 * Definitions for the corners: an all-zero piece has scale 2^-23 (or the smallest normal number of a stored type that
 * cannot hold it) and codes equal to the zero; -0 is 0; a scale that underflows its stored type becomes that type's
 * smallest normal number. NaN and infinities never come here (weights are checked when they are read). */
#ifndef QZ_NUMERIC_INTGRID_H
#define QZ_NUMERIC_INTGRID_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/format.h"
#include "numeric/minifloat.h"

typedef struct qz_grid {
    float scale;
    int zero; /* a code; 2^(bits-1) when symmetric */
    int top;  /* largest code, 2^bits - 1 */
} qz_grid;

/* Symmetric: scale = 2 max(-lo, hi) / top. Asymmetric: scale = (hi - lo) / top, zero = clamp(rint(-lo / scale)).
 * `lo` <= 0 <= `hi` (AutoAWQ lets a range leave out 0; ours always contains it). */
QZ_HD qz_grid qz_grid_of(float lo, float hi, int bits, int symmetric, qz_dtype scale_type, qz_zero_rule rule);
QZ_HD int qz_grid_encode(float w, qz_grid g, qz_zero_rule rule);
QZ_HD float qz_grid_decode(int code, qz_grid g); /* one fp32 product */

/* ---- bodies ---- */

/* rint for |x| < 2^22, by two additions: vectorizes without SSE 4.1. */
QZ_HD float qz_rint_small(float x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

QZ_HD float qz_clamp(float x, float low, float high)
{
    const float y = x < low ? low : x;
    return y > high ? high : y;
}

/* The nearest number of the type that a scale is stored in; overflow gives infinity, underflow 0. */
QZ_HD float qz_scale_store(float scale, qz_dtype type)
{
    if (type == QZ_F16) return qz_f16_decode(qz_f16_encode(scale));
    if (type == QZ_BF16) return qz_bf16_decode(qz_bf16_encode(scale));
    return scale;
}

/* The scale as stored: `positive` says that the piece is not all zero. */
QZ_HD float qz_scale_round(float scale, int positive, qz_dtype type)
{
    const float least = type == QZ_F16 ? 6.103515625e-05f : 1.17549435e-38f;
    const float most = type == QZ_F16 ? 65504.0f : type == QZ_BF16 ? 3.38953139e38f : 3.40282347e38f;
    const float stored = qz_scale_store(positive ? scale : 1.1920928955078125e-07f, type);
    if (stored == 0.0f) return least;
    return stored > most ? most : stored;
}

QZ_HD int qz_grid_zero(float lo, float scale, int top, qz_zero_rule rule)
{
    const float whole = (float)top, half = (float)((top + 1) / 2);
    if (rule == QZ_ROUND_VALUE) return (int)qz_rint_small(qz_clamp(-lo / scale, 0.0f, whole));
    /* compressed-tensors works on signed codes, and the sum is rounded to fp32 there */
    return (int)(qz_rint_small(qz_clamp(-half - lo / scale, -half, whole - half)) + half);
}

QZ_HD qz_grid qz_grid_of(float lo, float hi, int bits, int symmetric, qz_dtype scale_type, qz_zero_rule rule)
{
    const int top = (1 << bits) - 1;
    const float most = -lo > hi ? -lo : hi;
    const float width = hi - lo;
    qz_grid g;
    float scale = width / (float)top;
    if (width > 3.40282347e38f) scale = hi / (float)top - lo / (float)top;
    if (symmetric) scale = most / (0.5f * (float)top);
    g.top = top;
    g.scale = qz_scale_round(scale, most > 0.0f, scale_type);
    g.zero = symmetric ? (top + 1) / 2 : qz_grid_zero(lo, g.scale, top, rule);
    return g;
}

QZ_HD int qz_grid_encode(float w, qz_grid g, qz_zero_rule rule)
{
    const float ratio = w / g.scale, top = (float)g.top, zero = (float)g.zero, half = (float)((g.top + 1) / 2);
    if (rule == QZ_ROUND_VALUE) return (int)(qz_rint_small(qz_clamp(ratio, -zero, top - zero)) + zero);
    return (int)(qz_rint_small(qz_clamp(ratio + (zero - half), -half, top - half)) + half);
}

QZ_HD float qz_grid_decode(int code, qz_grid g)
{
    return (float)(code - g.zero) * g.scale;
}

#endif
