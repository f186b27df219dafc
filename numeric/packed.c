/* Codes side by side, and back to values. */
#include "numeric/packed.h"

#include <assert.h>
#include <string.h>

#include "numeric/piece.h"

int qz_packed_bits(qz_format format)
{
    const int bits = qz_format_of(format)->bits;
    return bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
}

int64_t qz_packed_row_bytes(qz_format format, int64_t k)
{
    const int64_t each = 8 / qz_packed_bits(format);
    return (k + each - 1) / each;
}

static uint64_t second_count(uint64_t pieces)
{
    return (pieces + QZ_DOUBLE_BLOCK - 1) / QZ_DOUBLE_BLOCK;
}

uint64_t qz_packed_bytes(const qz_scheme *scheme, int64_t n, int64_t k)
{
    const uint64_t pieces = (uint64_t)qz_scheme_pieces(scheme, n, k);
    const uint64_t codes = (uint64_t)(n * qz_packed_row_bytes(scheme->format, k));
    if (scheme->double_quant) return codes + pieces + second_count(pieces) * sizeof(float);
    return codes + pieces * (sizeof(float) + qz_scheme_has_zeros(scheme));
}

static void pack_row(uint8_t *out, const uint8_t *codes, int64_t count, int bits)
{
    const int each = 8 / bits;
    memset(out, 0, (size_t)((count + each - 1) / each));
    for (int64_t i = 0; i < count; i++) out[i / each] |= (uint8_t)(codes[i] << (i % each * bits));
}

/* NULL of NULL; *full when the arena has no more. */
static void *copy(const void *from, size_t bytes, qz_arena *arena, bool *full)
{
    void *to = from ? qz_arena_alloc(arena, bytes) : NULL;
    if (to) memcpy(to, from, bytes);
    if (from && !to) *full = true;
    return to;
}

qz_status qz_packed_from(qz_packed *out, const qz_qtensor *q, qz_arena *arena)
{
    const size_t pieces = (size_t)qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    const int64_t row = qz_packed_row_bytes(q->scheme.format, q->cols);
    const bool doubled = q->scheme.double_quant && q->scale_codes;
    bool full = false;
    *out = (qz_packed){.q = *q};
    qz_qtensor *to = &out->q;
    to->codes = NULL;
    to->scheme.double_quant = doubled;
    to->minima = to->codebook = NULL;
    to->scales = copy(doubled ? NULL : q->scales, pieces * sizeof(float), arena, &full);
    to->zeros = copy(q->zeros, pieces, arena, &full);
    to->permutation = copy(q->permutation, (size_t)q->cols * sizeof(int32_t), arena, &full);
    to->scale_codes = copy(doubled ? q->scale_codes : NULL, pieces, arena, &full);
    to->second_scales = copy(doubled ? q->second_scales : NULL, second_count(pieces) * sizeof(float), arena, &full);
    out->words = qz_arena_array(arena, uint8_t, (size_t)(q->rows * row));
    if (full || !out->words) return qz_arena_failed(arena);
    for (int64_t n = 0; n < q->rows; n++)
        pack_row(out->words + n * row, q->codes + n * q->cols, q->cols, qz_packed_bits(q->scheme.format));
    return QZ_OK;
}

qz_packed qz_packed_plain(const qz_tensor *plain)
{
    return (qz_packed){.q = {.rows = plain->shape[0], .cols = plain->shape[1]}, .plain = *plain};
}

qz_packed qz_packed_window(const qz_packed *p, int64_t first, int64_t rows)
{
    qz_packed w = *p;
    assert(first >= 0 && first + rows <= p->q.rows);
    w.first += first;
    w.q.rows = rows;
    return w;
}

void qz_packed_codes(uint8_t *codes, const qz_packed *p, int64_t row, int64_t col, int64_t count)
{
    const int bits = qz_packed_bits(p->q.scheme.format), each = 8 / bits;
    const uint8_t *words =
        p->words + (p->first + row) * qz_packed_row_bytes(p->q.scheme.format, p->q.cols) + col / each;
    assert(col % each == 0);
    for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(words[i / each] >> (i % each * bits) & ((1 << bits) - 1));
}

static void widen_row(float *out, const qz_packed *p, int64_t n)
{
    const size_t size = (size_t)qz_dtype_bits(p->plain.dtype) / 8;
    const char *row = (const char *)p->plain.data + (size_t)((p->first + n) * p->plain.stride[0]) * size;
    qz_status status = qz_convert(out, QZ_F32, row, p->plain.dtype, p->q.cols);
    assert(status == QZ_OK); /* between plain types */
    (void)status;
}

static void decode_row(float *out, const qz_packed *p, int64_t n)
{
    enum { STEP = 256 };
    uint8_t codes[STEP];
    for (int64_t at = 0; at < p->q.cols; at += STEP) {
        const int64_t last = at + STEP < p->q.cols ? at + STEP : p->q.cols;
        qz_packed_codes(codes, p, n, at, last - at);
        for (int64_t k = at, end; k < last; k = end) {
            int64_t piece;
            end = qz_piece_run(&piece, &p->q, p->first + n, k);
            end = end < last ? end : last;
            qz_piece_decode(out + k, codes + (k - at), end - k, &p->q, piece);
        }
    }
}

void qz_packed_rows(float *out, const qz_packed *p, int64_t first, int64_t count)
{
    assert(first >= 0 && count >= 0 && first + count <= p->q.rows);
    for (int64_t i = 0; i < count; i++) {
        if (p->plain.data)
            widen_row(out + i * p->q.cols, p, first + i);
        else
            decode_row(out + i * p->q.cols, p, first + i);
    }
}
