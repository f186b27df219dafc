/* Codes -> words: the only way in which an exporter may touch codes. Orders are those of docs and FORMATS.md; every
 * function has its inverse here and a round-trip test. */
#ifndef QZ_NUMERIC_PACK_H
#define QZ_NUMERIC_PACK_H

#include <stdint.h>

#include "base/hd.h"

/* AWQ GEMM: 8 four-bit codes of neighbouring output columns in one word; nibble i holds column {0,2,4,6,1,3,5,7}[i]. */
QZ_HD uint32_t qz_pack_awq(const uint8_t code[8]);
QZ_HD void qz_unpack_awq(uint8_t code[8], uint32_t word);
/* `count` = 32 / bits codes, first in the low bits (bits 2, 4, 8). */
QZ_HD uint32_t qz_pack_low_first(const uint8_t *code, int bits);
QZ_HD void qz_unpack_low_first(uint8_t *code, uint32_t word, int bits);

/* ---- bodies ---- */

/* The bit of column j's nibble: column j is nibble {0,4,1,5,2,6,3,7}[j]. */
QZ_HD int qz_awq_shift(int j)
{
    return 4 * (j / 2 + (j & 1) * 4);
}

QZ_HD uint32_t qz_pack_awq(const uint8_t code[8])
{
    uint32_t word = 0;
    for (int j = 0; j < 8; j++) word |= (uint32_t)(code[j] & 15u) << qz_awq_shift(j);
    return word;
}

QZ_HD void qz_unpack_awq(uint8_t code[8], uint32_t word)
{
    for (int j = 0; j < 8; j++) code[j] = (uint8_t)(word >> qz_awq_shift(j) & 15u);
}

QZ_HD uint32_t qz_pack_low_first(const uint8_t *code, int bits)
{
    const uint32_t mask = (1u << bits) - 1u;
    uint32_t word = 0;
    for (int i = 0; i < 32 / bits; i++) word |= (code[i] & mask) << (i * bits);
    return word;
}

QZ_HD void qz_unpack_low_first(uint8_t *code, uint32_t word, int bits)
{
    const uint32_t mask = (1u << bits) - 1u;
    for (int i = 0; i < 32 / bits; i++) code[i] = (uint8_t)(word >> (i * bits) & mask);
}

#endif
