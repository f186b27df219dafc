/* The rows of dtypes.def and formats.def as tables, and the arithmetic of a scheme's pieces. */
#include "numeric/format.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "numeric/codebook.h"

typedef struct dtype_row {
    const char *name;
    int bits;
    qz_dtype_class class;
} dtype_row;

static const dtype_row dtypes[] = {
#define QZ_DTYPE(id, name, bits, class) {name, bits, QZ_DTYPE_##class},
#include "numeric/dtypes.def"
#undef QZ_DTYPE
};

static const qz_format_info formats[] = {
#define QZ_FORMAT(id, name, kind, bits, exponent, mantissa, largest, spec)                                             \
    {name, QZ_KIND_##kind, bits, exponent, mantissa, largest, spec},
#include "numeric/formats.def"
#undef QZ_FORMAT
};

const char *qz_dtype_name(qz_dtype t)
{
    assert(t < QZ_DTYPE_COUNT);
    return dtypes[t].name;
}

int qz_dtype_bits(qz_dtype t)
{
    assert(t < QZ_DTYPE_COUNT);
    return dtypes[t].bits;
}

qz_dtype_class qz_dtype_class_of(qz_dtype t)
{
    assert(t < QZ_DTYPE_COUNT);
    return dtypes[t].class;
}

qz_dtype qz_dtype_find(const char *name)
{
    int t = 0;
    while (t < QZ_DTYPE_COUNT && strcmp(dtypes[t].name, name) != 0) t++;
    return (qz_dtype)t;
}

qz_status qz_dtype_bytes(qz_dtype t, uint64_t count, uint64_t *bytes)
{
    const uint64_t bits = (uint64_t)qz_dtype_bits(t);
    if (count > UINT64_MAX / bits)
        return QZ_FAIL(QZ_SHAPE, "%" PRIu64 " elements of type %s do not fit in 64 bits; at most %" PRIu64 " do", count,
                       qz_dtype_name(t), UINT64_MAX / bits);
    if (count * bits % 8 != 0)
        return QZ_FAIL(QZ_SHAPE,
                       "%" PRIu64 " elements of type %s are %" PRIu64 " bits; a whole number of bytes is needed", count,
                       qz_dtype_name(t), count * bits);
    *bytes = count * bits / 8;
    return QZ_OK;
}

bool qz_dtype_is_plain(qz_dtype t)
{
    return t == QZ_F32 || t == QZ_F16 || t == QZ_BF16;
}

const qz_format_info *qz_format_of(qz_format f)
{
    assert(f < QZ_FORMAT_COUNT);
    return &formats[f];
}

qz_format qz_format_find(const char *name)
{
    int f = 0;
    while (f < QZ_FORMAT_COUNT && strcmp(formats[f].name, name) != 0) f++;
    return (qz_format)f;
}

static int64_t pieces(int64_t extent, int64_t piece)
{
    return piece == 0 ? 1 : (extent + piece - 1) / piece;
}

int64_t qz_scheme_scale_rows(const qz_scheme *s, int64_t n)
{
    assert(!s->flat);
    return pieces(n, s->piece_rows);
}

int64_t qz_scheme_scale_cols(const qz_scheme *s, int64_t k)
{
    assert(!s->flat);
    return pieces(k, s->piece_cols);
}

int64_t qz_scheme_pieces(const qz_scheme *s, int64_t n, int64_t k)
{
    return s->flat ? pieces(n * k, s->flat) : pieces(n, s->piece_rows) * pieces(k, s->piece_cols);
}

int64_t qz_scheme_run(int64_t *piece, const qz_scheme *s, int64_t cols, int64_t row, int64_t col)
{
    int64_t end;
    if (s->flat) {
        const int64_t at = row * cols + col;
        *piece = at / s->flat;
        end = col + s->flat - at % s->flat;
    } else {
        const int64_t width = s->piece_cols ? s->piece_cols : cols;
        *piece = (s->piece_rows ? row / s->piece_rows : 0) * pieces(cols, s->piece_cols) + col / width;
        end = (col / width + 1) * width;
    }
    return end < cols ? end : cols;
}

bool qz_scheme_has_zeros(const qz_scheme *s)
{
    return qz_format_of(s->format)->kind == QZ_KIND_INTEGER && !s->symmetric;
}

bool qz_scheme_alike(const qz_scheme *a, const qz_scheme *b)
{
    return a->format == b->format && a->piece_rows == b->piece_rows && a->piece_cols == b->piece_cols &&
           a->symmetric == b->symmetric && a->flat == b->flat;
}

bool qz_scheme_same(const qz_scheme *a, const qz_scheme *b)
{
    return qz_scheme_alike(a, b) && a->scale_type == b->scale_type && a->least_zero == b->least_zero &&
           a->narrow == b->narrow && a->double_quant == b->double_quant;
}

bool qz_act_scheme_same(const qz_act_scheme *a, const qz_act_scheme *b)
{
    if (a->mode != b->mode) return false;
    return a->mode == QZ_ACT_NONE ||
           (a->format == b->format && a->group == b->group &&
            (qz_format_of(a->format)->kind != QZ_KIND_INTEGER || a->symmetric == b->symmetric));
}

double qz_scheme_bits_per_weight(const qz_scheme *s, int64_t n, int64_t k)
{
    const qz_format_info *f = qz_format_of(s->format);
    if (f->kind == QZ_KIND_PLAIN) return f->bits;
    const int zero = qz_scheme_has_zeros(s) ? f->bits : 0;
    const double scales = (double)qz_scheme_pieces(s, n, k), numbers = (double)n * (double)k;
    if (s->double_quant) { /* codes of 8 bits, a second scale for each 256, the offset */
        const double second = (double)pieces((int64_t)scales, QZ_DOUBLE_BLOCK) + 1;
        return f->bits + (scales * 8 + second * 32) / numbers;
    }
    return f->bits + scales * (qz_dtype_bits(s->scale_type) + zero) / numbers;
}

static void describe_pieces(const qz_scheme *s, char *out, size_t size)
{
    if (s->flat)
        snprintf(out, size, "blocks of %" PRId64, s->flat);
    else if (s->piece_rows == 0 && s->piece_cols == 0)
        snprintf(out, size, "per tensor");
    else if (s->piece_rows == 1 && s->piece_cols == 0)
        snprintf(out, size, "per channel");
    else if (s->piece_rows == 1)
        snprintf(out, size, "group %" PRId64, s->piece_cols);
    else
        snprintf(out, size, "block %" PRId64 "x%" PRId64, s->piece_rows, s->piece_cols);
}

void qz_scheme_describe(const qz_scheme *s, char *out, size_t size)
{
    const qz_format_info *f = qz_format_of(s->format);
    char cut[64];
    describe_pieces(s, cut, sizeof cut);
    if (f->kind == QZ_KIND_PLAIN)
        snprintf(out, size, "%s", f->name);
    else if (f->kind == QZ_KIND_INTEGER)
        snprintf(out, size, "%s %s %s%s", f->name, cut, s->symmetric ? "symmetric" : "asymmetric",
                 s->narrow ? " narrow" : "");
    else
        snprintf(out, size, "%s %s%s", f->name, cut, s->double_quant ? ", scales quantized" : "");
}
