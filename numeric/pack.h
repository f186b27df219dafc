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

/* Bodies: the numeric helper fills them in here. */

#endif
