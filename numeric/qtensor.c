/* The neutral quantized matrix: allocation, decoding to fp32, comparison. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/tensor.h"

static bool has_zeros(const qz_scheme *s)
{
    return qz_format_of(s->format)->kind == QZ_KIND_INTEGER && !s->symmetric;
}

qz_status qz_qtensor_alloc(qz_qtensor *out, const qz_scheme *scheme, int64_t n, int64_t k, qz_arena *arena)
{
    const size_t pieces = (size_t)qz_scheme_scale_rows(scheme, n) * (size_t)qz_scheme_scale_cols(scheme, k);
    if (qz_format_of(scheme->format)->kind == QZ_KIND_PLAIN)
        return QZ_FAIL(QZ_UNSUPPORTED, "format %s has no codes; a quantized matrix needs an int or fp8 format",
                       qz_format_of(scheme->format)->name);
    *out = (qz_qtensor){.scheme = *scheme, .rows = n, .cols = k};
    out->codes = qz_arena_array(arena, uint8_t, (size_t)n * (size_t)k);
    out->scales = qz_arena_array(arena, float, pieces);
    if (!out->codes || !out->scales) return qz_arena_failed(arena);
    if (!has_zeros(scheme)) return QZ_OK;
    out->zeros = qz_arena_array(arena, uint8_t, pieces);
    return out->zeros ? QZ_OK : qz_arena_failed(arena);
}

/* One run of a row that shares a scale. */
static void decode_run(float *out, const uint8_t *codes, int64_t count, const qz_qtensor *q, int64_t piece)
{
    const qz_format_info *f = qz_format_of(q->scheme.format);
    const float scale = q->scales[piece];
    if (f->kind == QZ_KIND_INTEGER) {
        const qz_grid g = {scale, q->zeros ? q->zeros[piece] : 1 << (f->bits - 1), (1 << f->bits) - 1};
        for (int64_t i = 0; i < count; i++) out[i] = qz_grid_decode(codes[i], g);
    } else {
        for (int64_t i = 0; i < count; i++) out[i] = qz_float_decode(codes[i], scale, q->scheme.format);
    }
}

static void decode_row(float *out, const qz_qtensor *q, int64_t n)
{
    const int64_t cols = q->cols, groups = qz_scheme_scale_cols(&q->scheme, cols);
    const int64_t width = q->scheme.piece_cols ? q->scheme.piece_cols : cols;
    const int64_t first = (q->scheme.piece_rows ? n / q->scheme.piece_rows : 0) * groups;
    const uint8_t *codes = q->codes + n * cols;
    if (q->permutation) {
        for (int64_t k = 0; k < cols; k++) decode_run(out + k, codes + k, 1, q, first + q->permutation[k]);
        return;
    }
    for (int64_t g = 0; g < groups; g++) {
        const int64_t from = g * width, count = cols - from < width ? cols - from : width;
        decode_run(out + from, codes + from, count, q, first + g);
    }
}

void qz_qtensor_dequantize(float *out, const qz_qtensor *q, int64_t first, int64_t count)
{
    assert(first >= 0 && count >= 0 && first + count <= q->rows);
    for (int64_t i = 0; i < count; i++) decode_row(out + i * q->cols, q, first + i);
}

static qz_status compare_schemes(const qz_qtensor *a, const qz_qtensor *b)
{
    const qz_scheme *s = &a->scheme, *t = &b->scheme;
    char x[96], y[96];
    if (a->rows != b->rows || a->cols != b->cols)
        return QZ_FAIL(QZ_SHAPE,
                       "quantized matrices differ in shape: %" PRId64 " x %" PRId64 " and %" PRId64 " x %" PRId64,
                       a->rows, a->cols, b->rows, b->cols);
    const bool same_pieces = qz_scheme_scale_rows(s, a->rows) == qz_scheme_scale_rows(t, a->rows) &&
                             qz_scheme_scale_cols(s, a->cols) == qz_scheme_scale_cols(t, a->cols);
    if (s->format == t->format && same_pieces) return QZ_OK;
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
    const int64_t cols = qz_scheme_scale_cols(&a->scheme, a->cols), rows = qz_scheme_scale_rows(&a->scheme, a->rows);
    for (int64_t i = 0; i < rows * cols; i++) {
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
    for (int64_t k = 0; k < a->cols; k++) {
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
