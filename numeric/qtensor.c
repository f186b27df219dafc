/* The neutral quantized matrix: allocation, decoding to fp32, comparison. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "numeric/piece.h"

static qz_status alloc_second(qz_qtensor *q, size_t pieces, qz_arena *arena)
{
    q->scale_codes = qz_arena_array(arena, uint8_t, pieces);
    q->second_scales = qz_arena_array(arena, float, (pieces + QZ_DOUBLE_BLOCK - 1) / QZ_DOUBLE_BLOCK);
    return q->scale_codes && q->second_scales ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_qtensor_alloc(qz_qtensor *out, const qz_scheme *scheme, int64_t n, int64_t k, qz_arena *arena)
{
    const size_t pieces = (size_t)qz_scheme_pieces(scheme, n, k);
    if (qz_format_of(scheme->format)->kind == QZ_KIND_PLAIN)
        return QZ_FAIL(QZ_UNSUPPORTED, "format %s has no codes; a quantized matrix needs an int, fp8 or 4-bit format",
                       qz_format_of(scheme->format)->name);
    *out = (qz_qtensor){.scheme = *scheme, .rows = n, .cols = k};
    out->codes = qz_arena_array(arena, uint8_t, (size_t)n * (size_t)k);
    out->scales = qz_arena_array(arena, float, pieces);
    if (!out->codes || !out->scales) return qz_arena_failed(arena);
    if (scheme->double_quant) QZ_TRY(alloc_second(out, pieces, arena));
    if (!qz_scheme_has_zeros(scheme)) return QZ_OK;
    out->zeros = qz_arena_array(arena, uint8_t, pieces);
    return out->zeros ? QZ_OK : qz_arena_failed(arena);
}

/* One run of a row that shares a scale. */
static void decode_run(float *out, const uint8_t *codes, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_format_info *f = qz_format_of(q->scheme.format);
    const float scale = q->scales[piece];
    if (f->kind == QZ_KIND_INTEGER) {
        const qz_grid g = {
            .scale = scale, .zero = q->zeros ? q->zeros[piece] : 1 << (f->bits - 1), .top = (1 << f->bits) - 1};
        for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(codes[i], g);
    } else if (f->kind == QZ_KIND_CODEBOOK) {
        for (int64_t i = 0; i < count; i++) out[i] = qz_codebook_decode(codes[i], scale, q->scheme.format);
    } else {
        for (int64_t i = 0; i < count; i++) out[i] = qz_float_decode(codes[i], scale, q->scheme.format);
    }
}

static void decode_row(float *out, const qz_qtensor *q, int64_t n)
{
    const uint8_t *codes = q->codes + n * q->cols;
    if (q->permutation) {
        const int64_t groups = qz_scheme_scale_cols(&q->scheme, q->cols);
        const int64_t first = (q->scheme.piece_rows ? n / q->scheme.piece_rows : 0) * groups;
        for (int64_t k = 0; k < q->cols; k++) decode_run(out + k, codes + k, 1, q, first + q->permutation[k]);
        return;
    }
    for (int64_t k = 0, end; k < q->cols; k = end) {
        int64_t piece;
        end = qz_scheme_run(&piece, &q->scheme, q->cols, n, k);
        decode_run(out + k, codes + k, end - k, q, piece);
    }
}

void qz_qtensor_dequantize(float *out, const qz_qtensor *q, int64_t first, int64_t count)
{
    assert(first >= 0 && count >= 0 && first + count <= q->rows);
    for (int64_t i = 0; i < count; i++) decode_row(out + i * q->cols, q, first + i);
}

static double mean_of(const float *x, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i];
    return count ? sum / (double)count : 0;
}

/* qz_dynamic_encode with its midpoints in a table: mid[r] lies below value r. */
static uint8_t encode_scale(float x, const float mid[256])
{
    int rank = 0;
    for (int step = 128; step > 0; step /= 2)
        if (x > mid[rank + step]) rank += step;
    return (uint8_t)rank;
}

void qz_qtensor_encode_scales(qz_qtensor *q)
{
    float mid[256] = {0};
    for (int r = 1; r < 256; r++) mid[r] = (qz_dynamic_decode(r - 1) + qz_dynamic_decode(r)) / 2.0f;
    assert(q->scheme.double_quant && q->scale_codes && q->second_scales);
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    const float offset = q->scale_offset = (float)mean_of(q->scales, pieces);
    for (int64_t first = 0; first < pieces; first += QZ_DOUBLE_BLOCK) {
        const int64_t end = first + QZ_DOUBLE_BLOCK < pieces ? first + QZ_DOUBLE_BLOCK : pieces;
        float second = 0;
        for (int64_t i = first; i < end; i++) {
            const float rest = q->scales[i] - offset, size = rest < 0 ? -rest : rest;
            if (size > second) second = size;
        }
        q->second_scales[first / QZ_DOUBLE_BLOCK] = second;
        for (int64_t i = first; i < end; i++)
            q->scale_codes[i] = encode_scale(second == 0 ? 0 : (q->scales[i] - offset) / second, mid);
    }
}

void qz_qtensor_quantize_scales(qz_qtensor *q)
{
    qz_qtensor_encode_scales(q);
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    for (int64_t i = 0; i < pieces; i++) q->scales[i] = qz_piece_scale(q, i);
}

static bool same_cut(const qz_scheme *s, const qz_scheme *t, int64_t n, int64_t k)
{
    if (s->flat || t->flat) return s->flat == t->flat;
    return qz_scheme_scale_rows(s, n) == qz_scheme_scale_rows(t, n) &&
           qz_scheme_scale_cols(s, k) == qz_scheme_scale_cols(t, k);
}

static qz_status compare_schemes(const qz_qtensor *a, const qz_qtensor *b)
{
    const qz_scheme *s = &a->scheme, *t = &b->scheme;
    char x[96], y[96];
    if (a->rows != b->rows || a->cols != b->cols)
        return QZ_FAIL(QZ_SHAPE,
                       "quantized matrices differ in shape: %" PRId64 " x %" PRId64 " and %" PRId64 " x %" PRId64,
                       a->rows, a->cols, b->rows, b->cols);
    if (s->format == t->format && same_cut(s, t, a->rows, a->cols)) return QZ_OK;
    qz_scheme_describe(s, x, sizeof x);
    qz_scheme_describe(t, y, sizeof y);
    return QZ_FAIL(QZ_FORMAT, "quantized matrices differ in scheme: %s and %s", x, y);
}

static int zero_of(const qz_qtensor *q, int64_t piece)
{
    const qz_format_info *f = qz_format_of(q->scheme.format);
    if (f->kind != QZ_KIND_INTEGER) return 0;
    return q->zeros ? q->zeros[piece] : 1 << (f->bits - 1);
}

static int64_t group_of(const qz_qtensor *q, int64_t k)
{
    if (q->permutation) return q->permutation[k];
    return q->scheme.piece_cols ? k / q->scheme.piece_cols : 0;
}

static qz_status compare_pieces(const qz_qtensor *a, const qz_qtensor *b)
{
    const int64_t pieces = qz_scheme_pieces(&a->scheme, a->rows, a->cols);
    const int64_t cols = a->scheme.flat ? pieces : qz_scheme_scale_cols(&a->scheme, a->cols);
    for (int64_t i = 0; i < pieces; i++) {
        if (qz_float_bits(a->scales[i]) != qz_float_bits(b->scales[i]))
            return QZ_FAIL(QZ_NUMERIC, "scale (%" PRId64 ", %" PRId64 ") differs: %.9g and %.9g", i / cols, i % cols,
                           (double)a->scales[i], (double)b->scales[i]);
        if (zero_of(a, i) != zero_of(b, i))
            return QZ_FAIL(QZ_NUMERIC, "zero (%" PRId64 ", %" PRId64 ") differs: %d and %d", i / cols, i % cols,
                           zero_of(a, i), zero_of(b, i));
    }
    return QZ_OK;
}

qz_status qz_qtensor_compare(const qz_qtensor *a, const qz_qtensor *b)
{
    QZ_TRY(compare_schemes(a, b));
    QZ_TRY(compare_pieces(a, b));
    for (int64_t k = 0; k < a->cols && !a->scheme.flat; k++) {
        if (group_of(a, k) != group_of(b, k))
            return QZ_FAIL(QZ_NUMERIC, "group of input %" PRId64 " differs: %" PRId64 " and %" PRId64, k,
                           group_of(a, k), group_of(b, k));
    }
    for (int64_t i = 0; i < a->rows * a->cols; i++) {
        if (a->codes[i] != b->codes[i])
            return QZ_FAIL(QZ_NUMERIC, "code (%" PRId64 ", %" PRId64 ") differs: %d and %d", i / a->cols, i % a->cols,
                           a->codes[i], b->codes[i]);
    }
    return QZ_OK;
}
