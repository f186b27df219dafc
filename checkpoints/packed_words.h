/* Matrices of codes <-> matrices of 32-bit words, each line of codes one dense stream (numeric/pack.h): what GPTQ and
 * compressed-tensors share. Both sides are described by steps, so that a matrix may be stored transposed. */
#ifndef QZ_CHECKPOINTS_PACKED_WORDS_H
#define QZ_CHECKPOINTS_PACKED_WORDS_H

#include <stdint.h>

typedef struct qz_packing {
    int bits;
    int64_t lines, count;         /* streams, and codes in each */
    int64_t code_line, code_step; /* distance of lines, and of neighbours in a line, in codes */
    int64_t word_line, word_step; /* the same in words */
} qz_packing;

/* Words of a line of `count` codes; the last one is filled up with zeros. */
int64_t qz_packing_words(int64_t count, int bits);
void qz_packing_pack(uint32_t *words, const uint8_t *codes, const qz_packing *p);
/* `words` need not be aligned: it lies in a mapped file. */
void qz_packing_unpack(uint8_t *codes, const void *words, const qz_packing *p);

#endif
