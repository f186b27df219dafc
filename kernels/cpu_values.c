/* Values on grids in loops that vectorize, one for each kind of format, and where gradients pass through them. */
#include "kernels/cpu_values.h"

#include <math.h>

#include "kernels/cpu_wide.h"
#include "numeric/actgrid.h"
#include "numeric/piece.h"

enum { LANES = 16 };

QZ_WIDE static void round_value(float *out, const float *w, int64_t count, qz_grid g, float scale)
{
    const qz_grid to = {.scale = scale, .zero = g.zero};
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(qz_grid_encode(w[i], g, QZ_ROUND_VALUE), to);
}

QZ_WIDE static void round_sum(float *out, const float *w, int64_t count, qz_grid g, float scale)
{
    const qz_grid to = {.scale = scale, .zero = g.zero};
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(qz_grid_encode(w[i], g, QZ_ROUND_SUM), to);
}

QZ_WIDE static void round_e4m3(float *out, const float *w, int64_t count, float by, float scale)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++)
        out[i] = qz_float_decode(qz_float_encode(w[i], by, QZ_FORMAT_FP8_E4M3), scale, QZ_FORMAT_FP8_E4M3);
}

QZ_WIDE static void round_e5m2(float *out, const float *w, int64_t count, float by, float scale)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++)
        out[i] = qz_float_decode(qz_float_encode(w[i], by, QZ_FORMAT_FP8_E5M2), scale, QZ_FORMAT_FP8_E5M2);
}

/* qz_codebook_decode of qz_codebook_encode without a table look-up, which would not vectorize: a select for each
 * midpoint. An infinite divisor stands for a scale of 0, and gives a ratio of 0. */
static inline float nearest(float ratio, qz_format format)
{
    float value = qz_codebook_value(qz_codebook_code(0, format), format);
    QZ_UNROLL
    for (int i = 0; i < 15; i++)
        value = qz_select(ratio > qz_codebook_middle(i, format),
                          qz_codebook_value(qz_codebook_code(i + 1, format), format), value);
    return value;
}

QZ_WIDE static void round_nf4(float *out, const float *w, int64_t count, float by, float scale)
{
    const float divisor = by == 0 ? INFINITY : by;
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) out[i] = nearest(w[i] / divisor, QZ_FORMAT_NF4) * scale;
}

QZ_WIDE static void round_fp4(float *out, const float *w, int64_t count, float by, float scale)
{
    const float divisor = by == 0 ? INFINITY : by;
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) out[i] = nearest(w[i] / divisor, QZ_FORMAT_FP4) * scale;
}

void qz_values_run(float *out, const float *w, int64_t count, const qz_qtensor *q, int64_t piece, float scale)
{
    switch (q->scheme.format) {
    case QZ_FORMAT_FP8_E4M3:
        round_e4m3(out, w, count, q->scales[piece], scale);
        return;
    case QZ_FORMAT_FP8_E5M2:
        round_e5m2(out, w, count, q->scales[piece], scale);
        return;
    case QZ_FORMAT_NF4:
        round_nf4(out, w, count, q->scales[piece], scale);
        return;
    case QZ_FORMAT_FP4:
        round_fp4(out, w, count, q->scales[piece], scale);
        return;
    default:
        break;
    }
    if (q->scheme.zero_rule == QZ_ROUND_VALUE)
        round_value(out, w, count, qz_piece_grid(q, piece), scale);
    else
        round_sum(out, w, count, qz_piece_grid(q, piece), scale);
}

QZ_WIDE static void round_int8(float *y, const float *x, int64_t count, float scale, float zero)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) y[i] = qz_act_round_int8(x[i], scale, zero);
}

QZ_WIDE static void relative_int8(float *y, const float *x, int64_t count, float scale, float zero)
{
    for (int64_t i = 0; i < count; i++) y[i] = qz_rint_small(qz_clamp(x[i] / scale + zero, -128.0f, 127.0f)) - zero;
}

void qz_values_activation(float *y, const float *x, int64_t count, qz_act_values v, qz_format format)
{
    if (format == QZ_FORMAT_FP8_E4M3)
        round_e4m3(y, x, count, v.scale, v.scale);
    else if (format == QZ_FORMAT_FP8_E5M2)
        round_e5m2(y, x, count, v.scale, v.scale);
    else
        round_int8(y, x, count, v.scale, (float)v.zero);
}

void qz_values_activation_relative(float *out, const float *x, int64_t count, qz_act_values v, qz_format format)
{
    if (format == QZ_FORMAT_FP8_E4M3)
        round_e4m3(out, x, count, v.scale, 1);
    else if (format == QZ_FORMAT_FP8_E5M2)
        round_e5m2(out, x, count, v.scale, 1);
    else
        relative_int8(out, x, count, v.scale, (float)v.zero);
}

QZ_WIDE void qz_values_range(float *lo, float *hi, const float *x, int64_t count)
{
    qz_range_of(lo, hi, x, count);
}

/* The next number above a finite one, and below it. */
static float above(float x)
{
    const uint32_t bits = qz_bits_from_float(x);
    if (x == 0) return qz_float_from_bits(1);
    return qz_float_from_bits(x > 0 ? bits + 1 : bits - 1);
}

static float below(float x)
{
    return -above(-x);
}

/* Codes least .. top after rounding to the nearest, ties to even: half a step beyond an even bound still rounds to it.
 */
static void widen_whole(qz_gate *g, int least, int top)
{
    g->low = (float)least - 0.5f;
    g->high = (float)top + 0.5f;
    if (least & 1) g->low = above(g->low);
    if (top & 1) g->high = below(g->high);
}

static void set_bounds(qz_gate *g, float low, float high, qz_ste rule)
{
    if (rule == QZ_STE_PASS) {
        g->low = -INFINITY;
        g->high = INFINITY;
    } else if (rule == QZ_STE_LSQ) {
        g->low = above(low);
        g->high = below(high);
    }
}

static qz_gate gate_of_whole(float scale, float shift, int low, int high, qz_ste rule)
{
    qz_gate g = {.scale = scale, .shift = shift};
    widen_whole(&g, low, high);
    set_bounds(&g, (float)low, (float)high, rule);
    return g;
}

static qz_gate gate_of_fp8(float scale, qz_format format, qz_ste rule)
{
    const bool e5m2 = format == QZ_FORMAT_FP8_E5M2;
    const float largest = (float)qz_format_of(format)->largest;
    qz_gate g = {.scale = scale, .high = e5m2 ? below(61440) : 464}; /* qz_float_fits */
    g.low = -g.high;
    set_bounds(&g, -largest, largest, rule);
    return g;
}

qz_gate qz_gate_of(const qz_qtensor *q, int64_t piece, qz_ste rule)
{
    const qz_format_kind kind = qz_format_of(q->scheme.format)->kind;
    const float scale = q->scales[piece];
    if (kind == QZ_KIND_FLOAT) return gate_of_fp8(scale, q->scheme.format, rule);
    if (kind == QZ_KIND_CODEBOOK) {
        qz_gate g = {.scale = scale == 0 ? 1 : scale, .low = -1, .high = 1};
        set_bounds(&g, -1, 1, scale == 0 ? QZ_STE_PASS : rule);
        return g;
    }
    const qz_grid g = qz_piece_grid(q, piece);
    const int middle = (g.top + 1) / 2;
    if (q->scheme.zero_rule == QZ_ROUND_VALUE) return gate_of_whole(scale, 0, g.least - g.zero, g.top - g.zero, rule);
    return gate_of_whole(scale, (float)(g.zero - middle), g.least - middle, g.top - middle, rule);
}

qz_gate qz_gate_of_activation(qz_act_values v, qz_format format, qz_ste rule)
{
    if (!qz_act_is_int(format)) return gate_of_fp8(v.scale, format, rule);
    return gate_of_whole(v.scale, (float)v.zero, -128, 127, rule);
}

/* What one element adds. Bounds as ratios are what the strict gate lies between. */
static inline void add_element(double *scale, double *outside, float dy, float x, float value, qz_gate g, float low,
                               float high)
{
    const float ratio = x / g.scale + g.shift;
    const int inside = (ratio >= g.low) & (ratio <= g.high);
    const float bound = qz_select(ratio <= low, low, high);
    const float by = qz_select(inside, (value + g.shift) - ratio, bound - g.shift);
    *scale += (double)dy * (double)by;
    *outside += (double)qz_select(inside, 0, dy);
}

QZ_WIDE static void add_sums(double *sums, const float *dy, const float *x, const float *value, int64_t count,
                             qz_gate g, float low, float high)
{
    double scale[LANES] = {0}, outside[LANES] = {0};
    const int64_t whole = count - count % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int64_t j = 0; j < LANES; j++)
            add_element(&scale[j], &outside[j], dy[i + j], x[i + j], value[i + j], g, low, high);
    for (int64_t i = whole; i < count; i++)
        add_element(&scale[i - whole], &outside[i - whole], dy[i], x[i], value[i], g, low, high);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            scale[j] += scale[j + half];
            outside[j] += outside[j + half];
        }
    }
    sums[0] += scale[0];
    sums[1] += outside[0];
}

void qz_values_add_sums(double sums[2], const float *dy, const float *x, const float *value, int64_t count,
                        qz_gate strict)
{
    add_sums(sums, dy, x, value, count, strict, below(strict.low), above(strict.high));
}
