/* Codebooks: a 4-bit code is the index of a value in [-1, 1], a piece has one scale, value = table[code] * scale.
 *
 *     scale   amax of the piece as stored; 0 for an all-zero piece          qz_codebook_scale
 *     code    the nearest table value to w / scale; a tie goes down          qz_codebook_encode
 *
 * NF4: quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", section 3 and appendix E). FP4: bitsandbytes'
 * own, not sorted and not OCP's E2M1. Tables and ties as bitsandbytes 0.50 (backends/default/ops.py) has them; it
 * multiplies by the reciprocal of the scale, we divide, which differs within one ulp of a midpoint. Both zeros of FP4
 * decode to 0; we write code 0.
 *
 * Double quantization (the same paper, section 3): the scales' mean is taken off, and the rest goes through an 8-bit
 * "dynamic map" with one fp32 scale for 256 of them:
 *     scale = map[code] * second + offset, an fp32 product, then an fp32 sum. */
#ifndef QZ_NUMERIC_CODEBOOK_H
#define QZ_NUMERIC_CODEBOOK_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/format.h"
#include "numeric/scale.h"

enum { QZ_DOUBLE_BLOCK = 256 }; /* scales that share a second scale */

QZ_HD float qz_codebook_value(int code, qz_format format);
QZ_HD float qz_codebook_scale(float amax, qz_dtype scale_type);
QZ_HD uint8_t qz_codebook_encode(float w, float scale, qz_format format);
QZ_HD float qz_codebook_decode(uint8_t code, float scale, qz_format format);

/* The dynamic map: 256 values in rising order, -0.993 to 1 with 0 at 127 (Dettmers 2016, arXiv 1511.04561). */
QZ_HD float qz_dynamic_decode(int code);
/* The nearest value; a tie goes down. */
QZ_HD uint8_t qz_dynamic_encode(float x);
/* The same without a sign: 0 at 0 to 1 at 255, each decade with twice as many values (Dettmers et al. 2022, "8-bit
 * optimizers via block-wise quantization", section 2.2). */
QZ_HD float qz_dynamic_unsigned_decode(int code);
QZ_HD uint8_t qz_dynamic_unsigned_encode(float x);
/* A scale from its code. */
QZ_HD float qz_double_decode(uint8_t code, float second, float offset);

/* ---- bodies ---- */

QZ_HD float qz_codebook_value(int code, qz_format format)
{
    const float nf4[16] = {-1.0f,          -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.18477343f,
                           -0.0910500363f, 0.0f,          0.0795802996f, 0.160930201f,  0.246112302f,  0.337915242f,
                           0.440709829f,   0.562617004f,  0.722956836f,  1.0f};
    const float fp4[8] = {0.0f, 0.00520833349f, 0.666666687f, 1.0f, 0.333333343f, 0.5f, 0.166666672f, 0.25f};
    if (format == QZ_FORMAT_NF4) return nf4[code];
    return code > 8 ? -fp4[code - 8] : fp4[code & 7];
}

QZ_HD float qz_codebook_scale(float amax, qz_dtype scale_type)
{
    return amax > 0.0f ? qz_scale_round(amax, 1, scale_type) : 0.0f;
}

/* Midpoint i (of neighbours, in fp32), 0 <= i < 15, in rising order. */
QZ_HD float qz_codebook_middle(int i, qz_format format)
{
    const float nf4[15] = {-0.848096371f, -0.610632896f,  -0.45999527f,  -0.33967942f, -0.234607399f,
                           -0.137911737f, -0.0455250181f, 0.0397901498f, 0.120255247f, 0.203521252f,
                           0.292013764f,  0.389312536f,   0.501663446f,  0.64278692f,  0.861478448f};
    const float fp4[15] = {-0.833333373f, -0.583333373f,   -0.416666687f, -0.291666687f,  -0.208333343f,
                           -0.0859375f,   -0.00260416674f, 0.0f,          0.00260416674f, 0.0859375f,
                           0.208333343f,  0.291666687f,    0.416666687f,  0.583333373f,   0.833333373f};
    return format == QZ_FORMAT_NF4 ? nf4[i] : fp4[i];
}

/* The code that `rank` midpoints are smaller than. */
QZ_HD uint8_t qz_codebook_code(int rank, qz_format format)
{
    const uint8_t fp4[16] = {11, 10, 13, 12, 15, 14, 9, 0, 0, 1, 6, 7, 4, 5, 2, 3}; /* codes by rising value */
    return format == QZ_FORMAT_NF4 ? (uint8_t)rank : fp4[rank];
}

QZ_HD uint8_t qz_codebook_encode(float w, float scale, qz_format format)
{
    const float ratio = scale == 0.0f ? 0.0f : w / scale;
    int rank = 0;
    for (int i = 0; i < 15; i++) rank += ratio > qz_codebook_middle(i, format); /* all compared: loops vectorize */
    return qz_codebook_code(rank, format);
}

QZ_HD float qz_codebook_decode(uint8_t code, float scale, qz_format format)
{
    return qz_codebook_value(code, format) * scale;
}

/* Point q of n + 1 evenly spaced ones on [0.1, 1], with torch.linspace's roundings: counted from the nearer end, the
 * product and the sum rounded once. */
QZ_HD float qz_dynamic_point(int q, int n)
{
    const float step = (1.0f - 0.1f) / (float)n;
    if (q < (n + 1) / 2) return (float)((double)0.1f + (double)step * (double)q);
    return (float)(1.0 - (double)step * (double)(n - q));
}

/* Code 127 + p, 0 < p < 128: with n the largest power of two not above p = n + j, the middle of points j and j + 1,
 * times 10^(log2(n) - 6). Codes below 127 mirror those above. */
QZ_HD float qz_dynamic_decode(int code)
{
    const float ten[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    const int p = code < 127 ? 127 - code : code - 127;
    int n = 1, power = 0;
    if (p == 0) return 0.0f;
    if (p == 128) return 1.0f;
    for (; 2 * n <= p; n *= 2) power++;
    const float middle = (qz_dynamic_point(p - n, n) + qz_dynamic_point(p - n + 1, n)) / 2.0f;
    return code < 127 ? -(ten[power] * middle) : ten[power] * middle;
}

QZ_HD uint8_t qz_dynamic_encode(float x)
{
    int rank = 0;
    for (int step = 128; step > 0; step /= 2) {
        const float low = qz_dynamic_decode(rank + step - 1), high = qz_dynamic_decode(rank + step);
        if (x > (low + high) / 2.0f) rank += step;
    }
    return (uint8_t)rank;
}

/* Code p - 1, 1 < p < 256: as above, but a decade has n = 2, 4 .. 128 values. */
QZ_HD float qz_dynamic_unsigned_decode(int code)
{
    const float ten[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    const int p = code + 1;
    int n = 2, power = 0;
    if (code == 0) return 0.0f;
    if (code == 255) return 1.0f;
    for (; 2 * n <= p; n *= 2) power++;
    return ten[power] * ((qz_dynamic_point(p - n, n) + qz_dynamic_point(p - n + 1, n)) / 2.0f);
}

QZ_HD uint8_t qz_dynamic_unsigned_encode(float x)
{
    int rank = 0;
    for (int step = 128; step > 0; step /= 2) {
        const float low = qz_dynamic_unsigned_decode(rank + step - 1), high = qz_dynamic_unsigned_decode(rank + step);
        if (x > (low + high) / 2.0f) rank += step;
    }
    return (uint8_t)rank;
}

QZ_HD float qz_double_decode(uint8_t code, float second, float offset)
{
    return qz_dynamic_decode(code) * second + offset;
}

#endif
