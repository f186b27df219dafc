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
/* GPTQ and compressed-tensors: 32 codes of `bits` bits (1 to 8) as one dense stream in `bits` words; code i is the bits
 * [i bits, (i + 1) bits) of the stream, so codes of 3, 5, 6 and 7 bits straddle words. */
QZ_HD void qz_pack_block(uint32_t *words, const uint8_t code[32], int bits);
QZ_HD void qz_unpack_block(uint8_t code[32], const uint32_t *words, int bits);

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

QZ_HD void qz_pack_block(uint32_t *words, const uint8_t code[32], int bits)
{
    const uint32_t mask = (1u << bits) - 1u;
    uint64_t stream = 0;
    int held = 0;
    for (int i = 0; i < 32; i++) {
        stream |= (uint64_t)(code[i] & mask) << held;
        held += bits;
        if (held >= 32) {
            *words++ = (uint32_t)stream;
            stream >>= 32;
            held -= 32;
        }
    }
}

QZ_HD void qz_unpack_block(uint8_t code[32], const uint32_t *words, int bits)
{
    const uint32_t mask = (1u << bits) - 1u;
    uint64_t stream = 0;
    int held = 0;
    for (int i = 0; i < 32; i++) {
        if (held < bits) {
            stream |= (uint64_t)*words++ << held;
            held += 32;
        }
        code[i] = (uint8_t)(stream & mask);
        stream >>= bits;
        held -= bits;
    }
}

#endif
