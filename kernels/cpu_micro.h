/* The innermost product of cpu_gemm_bf16.c: QZ_MICRO_ROWS x QZ_MICRO_COLS sums that stay in registers (Goto and van de
 * Geijn 2008, section 6; Van Zee and van de Geijn 2015). */
#ifndef QZ_KERNELS_CPU_MICRO_H
#define QZ_KERNELS_CPU_MICRO_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu_blas.h"

/* 28 registers of sums, two of b, one of a. */
enum { QZ_MICRO_ROWS = 14, QZ_MICRO_COLS = 32 };

/* Strides of a block of the left factor, fixed so that they are part of the instructions: rows by steps with some
 * elements between them (a power of two would put all rows into few sets of the cache), or steps by rows. */
enum { QZ_MICRO_STEPS = 192, QZ_MICRO_ALONG = QZ_MICRO_STEPS + 16, QZ_MICRO_ACROSS = 64 };

/* c (QZ_MICRO_ROWS, QZ_MICRO_COLS) = a b (+ c when add) over `steps` words of 32 bits. b (steps, QZ_MICRO_COLS) is
 * dense; a[i * QZ_MICRO_ALONG + p] or, `across`, a[p * QZ_MICRO_ACROSS + i]. */
typedef void qz_micro(qz_tile c, bool add, const uint32_t *a, bool across, const uint32_t *b, int64_t steps);

/* A word is an fp32 number; AVX-512. */
qz_micro qz_micro_single;
/* A word is two BF16 numbers, steps 2 p and 2 p + 1; AVX512_BF16. Denormal products count as 0, and the sum of two
 * products is rounded by the instruction's own rules (Intel's manual, VDPBF16PS). */
qz_micro qz_micro_pairs;
bool qz_micro_has_single(void);
bool qz_micro_has_pairs(void);
/* Are the pairs the faster ones? Measured on Intel's family 6, model 207 (Emerald Rapids): one VDPBF16PS of 32 products
 * takes the time of four fused multiply-adds of 16, half their rate. AMD since Zen 4: expected to take the time of one,
 * twice their rate, but not measured here. */
bool qz_micro_likes_pairs(void);

#endif
