/* Integer grids: value = (code - zero) * scale with code in 0 .. 2^bits - 1.
 *
 * One piece (a group, a row, a tensor) goes through three steps, each written once and used by solvers, fake-quant,
 * exporters and tests:
 *     range   lo = min(w, 0), hi = max(w, 0)                              qz_range_of
 *     grid    scale, zero from the range                                   qz_grid_of
 *     codes   rint(w / scale) + zero, clamped                              qz_grid_encode
 * A narrow grid is symmetric and leaves out code 0: -(2^(bits-1) - 1) .. 2^(bits-1) - 1 around zero, which is the
 * 8-bit grid of LLM.int8() (Dettmers et al. 2022): scale = amax / 127.
 * The scale is rounded to the type it will be stored in before the zero and any code is chosen.
 * Definitions for the corners: those of the scale are in scale.h; an all-zero piece has codes equal to the zero; -0 is
 * 0. NaN and infinities never come here (weights are checked when they are read). */
#ifndef QZ_NUMERIC_INTGRID_H
#define QZ_NUMERIC_INTGRID_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/format.h"
#include "numeric/scale.h"

typedef struct qz_grid {
    float scale;
    int zero;  /* a code; 2^(bits-1) when symmetric */
    int top;   /* largest code, 2^bits - 1 */
    int least; /* smallest code: 0, or 1 when narrow */
} qz_grid;

/* Smallest and largest of 0 and the values, neither of them -0. */
QZ_HD void qz_range_of(float *lo, float *hi, const float *w, int64_t count);

/* Symmetric: scale = 2 max(-lo, hi) / top. Asymmetric: scale = (hi - lo) / top, zero = clamp(rint(-lo / scale)).
 * `lo` <= 0 <= `hi` (AutoAWQ lets a range leave out 0; ours always contains it). */
QZ_HD qz_grid qz_grid_of(float lo, float hi, int bits, int symmetric, qz_dtype scale_type, qz_zero_rule rule);
/* Asymmetric with a zero of at least `least`: where it would be smaller, the scale grows until the codes above `least`
 * reach hi. */
QZ_HD qz_grid qz_grid_above(float lo, float hi, int bits, int least, qz_dtype scale_type, qz_zero_rule rule);
QZ_HD qz_grid qz_grid_narrow(float lo, float hi, int bits, qz_dtype scale_type);
/* Narrow grids are stored as their largest value: the nearest scale that such a one gives back. */
QZ_HD float qz_grid_narrow_scale(float scale, int bits);
QZ_HD int qz_grid_encode(float w, qz_grid g, qz_zero_rule rule);
QZ_HD float qz_grid_decode(int code, qz_grid g); /* one fp32 product */
/* Where codes are compared with their bounds: w / scale, or that plus the zero of signed codes (QZ_ROUND_SUM). */
QZ_HD float qz_grid_ratio(float w, qz_grid g, qz_zero_rule rule);

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

QZ_HD void qz_range_of(float *lo, float *hi, const float *w, int64_t count)
{
    enum { LANES = 16 }; /* independent minima, so that the loop vectorizes */
    float low[LANES] = {0}, high[LANES] = {0};
    const int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            const float x = w[i + j];
            low[j] = x < low[j] ? x : low[j];
            high[j] = x > high[j] ? x : high[j];
        }
    }
    for (int64_t i = whole; i < count; i++) {
        low[0] = w[i] < low[0] ? w[i] : low[0];
        high[0] = w[i] > high[0] ? w[i] : high[0];
    }
    for (int j = 1; j < LANES; j++) {
        low[0] = low[j] < low[0] ? low[j] : low[0];
        high[0] = high[j] > high[0] ? high[j] : high[0];
    }
    *lo = low[0];
    *hi = high[0];
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
    g.least = 0;
    g.scale = qz_scale_round(scale, most > 0.0f, scale_type);
    g.zero = symmetric ? (top + 1) / 2 : qz_grid_zero(lo, g.scale, top, rule);
    return g;
}

QZ_HD qz_grid qz_grid_above(float lo, float hi, int bits, int least, qz_dtype scale_type, qz_zero_rule rule)
{
    qz_grid g = qz_grid_of(lo, hi, bits, 0, scale_type, rule);
    if (g.zero >= least) return g;
    g.zero = least;
    g.scale = qz_scale_round(hi / (float)(g.top - least), hi > lo, scale_type);
    return g;
}

QZ_HD qz_grid qz_grid_narrow(float lo, float hi, int bits, qz_dtype scale_type)
{
    const float most = -lo > hi ? -lo : hi;
    qz_grid g;
    g.top = (1 << bits) - 1;
    g.least = 1;
    g.zero = (g.top + 1) / 2;
    g.scale = qz_scale_round(most / (float)(g.zero - 1), most > 0.0f, scale_type);
    return g;
}

QZ_HD float qz_grid_narrow_scale(float scale, int bits)
{
    const float most = (float)((1 << (bits - 1)) - 1);
    return scale * most / most;
}

QZ_HD int qz_grid_encode(float w, qz_grid g, qz_zero_rule rule)
{
    const float ratio = w / g.scale, top = (float)g.top, zero = (float)g.zero, half = (float)((g.top + 1) / 2);
    const float least = (float)g.least;
    if (rule == QZ_ROUND_VALUE) return (int)(qz_rint_small(qz_clamp(ratio, least - zero, top - zero)) + zero);
    return (int)(qz_rint_small(qz_clamp(ratio + (zero - half), least - half, top - half)) + half);
}

QZ_HD float qz_grid_ratio(float w, qz_grid g, qz_zero_rule rule)
{
    const float ratio = w / g.scale;
    return rule == QZ_ROUND_VALUE ? ratio : ratio + (float)(g.zero - (g.top + 1) / 2);
}

QZ_HD float qz_grid_decode(int code, qz_grid g)
{
    return (float)(code - g.zero) * g.scale;
}

#endif
