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

/* Bodies: the numeric helper fills them in here. */

#endif
