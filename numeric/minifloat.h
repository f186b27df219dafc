/* 16- and 8-bit floating point <-> fp32, by integer operations and correctly rounded IEEE operations only.
 *
 * Rounding is to nearest, ties to even. Names: qz_<format>_decode(bits) -> float, qz_<format>_encode(float) -> bits.
 * The fp8 formats come in two flavours: _encode saturates at the largest finite value (vLLM, compressed-tensors),
 * _encode_ieee overflows as torch's cast does (e4m3: saturates too in torch >= 2.14; e5m2: infinity).
 * NaN encodes to the format's NaN with the input's sign.
 *
 * Sources: IEEE 754-2019 (binary16), OCP 8-bit Floating Point Specification 1.0. */
#ifndef QZ_NUMERIC_MINIFLOAT_H
#define QZ_NUMERIC_MINIFLOAT_H

#include <stdint.h>
#include <string.h>

#include "base/hd.h"

QZ_HD float qz_bf16_decode(uint16_t bits);
QZ_HD uint16_t qz_bf16_encode(float x);
QZ_HD float qz_f16_decode(uint16_t bits);
QZ_HD uint16_t qz_f16_encode(float x);
QZ_HD float qz_e4m3_decode(uint8_t bits);
QZ_HD uint8_t qz_e4m3_encode(float x);
QZ_HD uint8_t qz_e4m3_encode_ieee(float x);
QZ_HD float qz_e5m2_decode(uint8_t bits);
QZ_HD uint8_t qz_e5m2_encode(float x);
QZ_HD uint8_t qz_e5m2_encode_ieee(float x);

/* ---- bodies ---- */

QZ_HD uint32_t qz_float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

QZ_HD float qz_bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Exponent and mantissa of a magnitude `a` (fp32 bits without sign) in a format of that mantissa and bias. Both ways
 * are computed and one is selected, so that loops vectorize. Subnormal results come from adding the number whose last
 * place is the format's smallest step: the addition rounds to nearest even. Normal results that overflow carry into
 * the exponent; the caller limits `a`. */
QZ_HD uint32_t qz_mini_round(uint32_t a, int mantissa, int bias)
{
    const int shift = 23 - mantissa;
    const uint32_t magic = (uint32_t)(151 - bias - mantissa) << 23;
    const uint32_t small = qz_float_bits(qz_bits_float(a) + qz_bits_float(magic)) - magic;
    const uint32_t half = (1u << (shift - 1)) - 1u;
    const uint32_t normal = (a - ((uint32_t)(127 - bias) << 23) + half + ((a >> shift) & 1u)) >> shift;
    return a < ((uint32_t)(128 - bias) << 23) ? small : normal;
}

/* The fp32 bits of exponent and mantissa `o` (already at bit 23 - mantissa), finite. */
QZ_HD uint32_t qz_mini_widen(uint32_t o, int bias)
{
    const uint32_t least = (uint32_t)(128 - bias) << 23; /* the smallest normal number */
    const uint32_t small = qz_float_bits(qz_bits_float(o + least) - qz_bits_float(least));
    return o < (1u << 23) ? small : o + ((uint32_t)(127 - bias) << 23);
}

QZ_HD float qz_bf16_decode(uint16_t bits)
{
    return qz_bits_float((uint32_t)bits << 16);
}

QZ_HD uint16_t qz_bf16_encode(float x)
{
    const uint32_t u = qz_float_bits(x);
    const uint32_t nan = (u >> 16) | 0x40u;
    const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

QZ_HD float qz_f16_decode(uint16_t bits)
{
    const uint32_t o = (uint32_t)(bits & 0x7FFFu) << 13;
    const uint32_t special = o + (224u << 23); /* exponent 31 becomes 255 */
    const uint32_t a = o >= (31u << 23) ? special : qz_mini_widen(o, 15);
    return qz_bits_float(a | (uint32_t)(bits & 0x8000u) << 16);
}

QZ_HD uint16_t qz_f16_encode(float x)
{
    const uint32_t u = qz_float_bits(x), a = u & 0x7FFFFFFFu;
    const uint32_t special = a > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t h = a >= (143u << 23) ? special : qz_mini_round(a, 10, 15); /* 143 << 23 is 65536 */
    return (uint16_t)(h | (u >> 16 & 0x8000u));
}

QZ_HD float qz_e4m3_decode(uint8_t bits)
{
    const uint32_t o = (uint32_t)(bits & 0x7Fu) << 20;
    const uint32_t a = (bits & 0x7Fu) == 0x7Fu ? 0x7FC00000u : qz_mini_widen(o, 7);
    return qz_bits_float(a | (uint32_t)(bits & 0x80u) << 24);
}

QZ_HD uint8_t qz_e4m3_encode(float x)
{
    const uint32_t u = qz_float_bits(x), a = u & 0x7FFFFFFFu;
    const uint32_t limited = a > 0x43E00000u ? 0x43E00000u : a; /* 448 */
    const uint32_t e = a > 0x7F800000u ? 0x7Fu : qz_mini_round(limited, 3, 7);
    return (uint8_t)(e | (u >> 24 & 0x80u));
}

QZ_HD uint8_t qz_e4m3_encode_ieee(float x)
{
    return qz_e4m3_encode(x);
}

QZ_HD float qz_e5m2_decode(uint8_t bits)
{
    const uint32_t o = (uint32_t)(bits & 0x7Fu) << 21;
    const uint32_t special = o + (224u << 23);
    const uint32_t a = o >= (31u << 23) ? special : qz_mini_widen(o, 15);
    return qz_bits_float(a | (uint32_t)(bits & 0x80u) << 24);
}

QZ_HD uint8_t qz_e5m2_encode(float x)
{
    const uint32_t u = qz_float_bits(x), a = u & 0x7FFFFFFFu;
    const uint32_t limited = a > 0x47600000u ? 0x47600000u : a; /* 57344 */
    const uint32_t e = a > 0x7F800000u ? 0x7Fu : qz_mini_round(limited, 2, 15);
    return (uint8_t)(e | (u >> 24 & 0x80u));
}

QZ_HD uint8_t qz_e5m2_encode_ieee(float x)
{
    const uint32_t u = qz_float_bits(x), a = u & 0x7FFFFFFFu;
    const uint32_t special = a > 0x7F800000u ? 0x7Fu : 0x7Cu;
    const uint32_t e = a >= (143u << 23) ? special : qz_mini_round(a, 2, 15);
    return (uint8_t)(e | (u >> 24 & 0x80u));
}

#endif
