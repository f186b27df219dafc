/* A quantized matrix as it lies in memory between uses: its codes side by side, 4.127 bits a weight for NF4 with double
 * quantization (4 of code, 8 / 64 of the scale's code, 32 / (64 * 256) of the second scale). What QLoRA keeps of a
 * frozen matrix (Dettmers et al. 2023, section 3). Nothing but code -> value is possible with it.
 *
 * A row begins a byte. Codes of 2 bits lie four to a byte, those of 3 and 4 bits two, others one; the first in the low
 * bits. */
#ifndef QZ_NUMERIC_PACKED_H
#define QZ_NUMERIC_PACKED_H

#include "numeric/tensor.h"

typedef struct qz_packed {
    qz_qtensor q;   /* no codes; with double quantization no scales, only their codes and second scales */
    uint8_t *words; /* (N, qz_packed_row_bytes) */
    qz_tensor
        plain;     /* in place of all this: a matrix of plain numbers of any type, as it is stored; data NULL: codes */
    int64_t first; /* a window: q.rows rows from this one on */
} qz_packed;

/* Bits that a code takes: 2, 4 or 8. */
int qz_packed_bits(qz_format format);
int64_t qz_packed_row_bytes(qz_format format, int64_t k);
/* All of an (N, K) matrix, for plans. */
uint64_t qz_packed_bytes(const qz_scheme *scheme, int64_t n, int64_t k);

/* Copies of everything in `arena`. With double quantization the scales must have been quantized
 * (qz_qtensor_quantize_scales). */
QZ_NODISCARD qz_status qz_packed_from(qz_packed *out, const qz_qtensor *q, qz_arena *arena);
/* A matrix that is not quantized, seen in the same way: `plain` (N, K) F32, F16 or BF16, which must outlive it. */
qz_packed qz_packed_plain(const qz_tensor *plain);
/* Rows [first, first + rows) of another. */
qz_packed qz_packed_window(const qz_packed *p, int64_t first, int64_t rows);
/* `count` codes from (row, col) on, `col` a multiple of 4. */
void qz_packed_codes(uint8_t *codes, const qz_packed *p, int64_t row, int64_t col, int64_t count);
/* Rows [first, first + count) as fp32 into out (count, K), as qz_qtensor_dequantize gives them. */
void qz_packed_rows(float *out, const qz_packed *p, int64_t first, int64_t count);

#endif
