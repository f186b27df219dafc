/* Floating-point grids: value = decode(code) * scale with an fp8 code.
 *
 *     scale   amax / largest finite value, as scale.h stores it             qz_float_scale
 *     code    the nearest of w / scale, ties to even, saturating            qz_float_encode
 * as vLLM and compressed-tensors do (OCP 8-bit Floating Point Specification 1.0). -0 keeps its sign. */
#ifndef QZ_NUMERIC_FLOATGRID_H
#define QZ_NUMERIC_FLOATGRID_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/scale.h"

QZ_HD float qz_float_scale(float amax, qz_format format, qz_dtype scale_type)
{
    const float largest = format == QZ_FORMAT_FP8_E5M2 ? 57344.0f : 448.0f;
    return qz_scale_round(amax / largest, amax > 0.0f, scale_type);
}

QZ_HD uint8_t qz_float_encode(float w, float scale, qz_format format)
{
    const float ratio = w / scale;
    return format == QZ_FORMAT_FP8_E5M2 ? qz_e5m2_encode(ratio) : qz_e4m3_encode(ratio);
}

/* Whether w / scale rounds to a number of the format without saturating: the midpoint between the largest number and
 * the one that would follow it goes to the even one of the two. */
QZ_HD int qz_float_fits(float ratio, qz_format format)
{
    const float size = ratio < 0.0f ? -ratio : ratio;
    return format == QZ_FORMAT_FP8_E5M2 ? size < 61440.0f : size <= 464.0f;
}

QZ_HD float qz_float_decode(uint8_t code, float scale, qz_format format)
{
    return (format == QZ_FORMAT_FP8_E5M2 ? qz_e5m2_decode(code) : qz_e4m3_decode(code)) * scale;
}

#endif
