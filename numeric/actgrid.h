/* Rounding of activations and of cached keys and values, as the servers do it at run time: value -> code -> value.
 *
 *     int8 symmetric    scale = amax / divisor (127: vLLM's kernels; 127.5: compressed-tensors), zero = 0
 *     int8 asymmetric   scale = (hi - lo) / 255, zero = clamp(rint(-128 - lo / scale)), 0 within [lo, hi]
 *                       code = rint(clamp(x / scale + zero, -128, 127)), value = (code - zero) * scale
 *     fp8               scale = amax / 448 (e4m3), / 57344 (e5m2); code = nearest of x / scale, saturating
 *
 * Least scales, so that a row of zeros has one. int8: 0 becomes 2^-23 (compressed-tensors, calculate_qparams; vLLM's
 * csrc/quantization/w8a8/int8/scaled_quant.cu has none, its codes are 0 too). fp8 per token: 1 / (largest * 512) (vLLM,
 * input_quant_fp8.py, _FP8_MIN_SCALING_FACTOR); fp8 per group: 1e-10 / largest (vLLM, per_token_group_quant_fp8, eps).
 * Servers multiply by the scale's reciprocal here and there; we divide, which differs in ties of the last bit only.
 * NaN stays NaN. */
#ifndef QZ_NUMERIC_ACTGRID_H
#define QZ_NUMERIC_ACTGRID_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"

/* The largest finite value of an fp8 format. */
QZ_HD float qz_act_largest(qz_format format)
{
    return format == QZ_FORMAT_FP8_E5M2 ? 57344.0f : 448.0f;
}

QZ_HD int qz_act_is_int(qz_format format)
{
    return format == QZ_FORMAT_INT8;
}

/* The least scale of an fp8 scheme; 0 where it has none. */
QZ_HD float qz_act_least(qz_format format, qz_act_mode mode)
{
    if (mode == QZ_ACT_TOKEN) return 1.0f / (qz_act_largest(format) * 512.0f);
    return mode == QZ_ACT_GROUP ? 1e-10f / qz_act_largest(format) : 0.0f;
}

/* Scale and zero of the range lo <= 0 <= hi. For symmetric schemes and fp8 the larger side counts. */
QZ_HD qz_act_values qz_act_values_of(float lo, float hi, qz_act_scheme s)
{
    const float most = -lo > hi ? -lo : hi;
    const int whole = qz_act_is_int(s.format);
    const float least = whole ? 0.0f : qz_act_least(s.format, s.mode);
    qz_act_values v;
    float scale = most / (whole ? s.divisor : qz_act_largest(s.format));
    if (whole && !s.symmetric) scale = hi / 255.0f - lo / 255.0f;
    scale = scale < least ? least : scale;
    v.scale = scale == 0.0f ? 1.1920928955078125e-07f : scale;
    v.zero = 0;
    if (whole && !s.symmetric) v.zero = (int)qz_rint_small(qz_clamp(-128.0f - lo / v.scale, -128.0f, 127.0f));
    return v;
}

/* One value through int8; `zero` is a whole number. */
QZ_HD float qz_act_round_int8(float x, float scale, float zero)
{
    return (qz_rint_small(qz_clamp(x / scale + zero, -128.0f, 127.0f)) - zero) * scale;
}

/* One value through e4m3 or e5m2. */
QZ_HD float qz_act_round_fp8(float x, float scale, qz_format format)
{
    return qz_float_decode(qz_float_encode(x, scale, format), scale, format);
}

QZ_HD float qz_act_round(float x, qz_act_values v, qz_format format)
{
    if (qz_act_is_int(format)) return qz_act_round_int8(x, v.scale, (float)v.zero);
    return qz_act_round_fp8(x, v.scale, format);
}

#endif
