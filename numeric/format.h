/* Names for numbers: how an element is stored (qz_dtype), what a code means (qz_format), and how a matrix is cut into
 * pieces that share a scale (qz_scheme).
 *
 * Granularity is arithmetic: a scheme cuts an (N, K) matrix into pieces of piece_rows x piece_cols, 0 meaning all.
 *     tensor (0, 0)   channel (1, 0)   group of 128 (1, 128)   block (128, 128)
 * Scales and zeros have the shape (ceil(N / piece_rows), ceil(K / piece_cols)).
 */
#ifndef QZ_NUMERIC_FORMAT_H
#define QZ_NUMERIC_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum qz_dtype {
#define QZ_DTYPE(id, name, bits, class) QZ_##id,
#include "numeric/dtypes.def"
#undef QZ_DTYPE
    QZ_DTYPE_COUNT
} qz_dtype;

typedef enum qz_dtype_class { QZ_DTYPE_FLOAT, QZ_DTYPE_INTEGER, QZ_DTYPE_COMPLEX } qz_dtype_class;

const char *qz_dtype_name(qz_dtype t); /* as in safetensors: "BF16" */
int qz_dtype_bits(qz_dtype t);
qz_dtype_class qz_dtype_class_of(qz_dtype t);
/* QZ_DTYPE_COUNT when the name is not known. */
qz_dtype qz_dtype_find(const char *name);
/* Bytes of `count` packed elements; sub-byte types must fill whole bytes, else QZ_SHAPE. Overflow is QZ_SHAPE too. */
QZ_NODISCARD qz_status qz_dtype_bytes(qz_dtype t, uint64_t count, uint64_t *bytes);
/* F32, F16, BF16: the types that weights and activations of a plain model have. */
bool qz_dtype_is_plain(qz_dtype t);

typedef enum qz_format {
#define QZ_FORMAT(id, name, kind, bits, exponent, mantissa, largest, spec) QZ_FORMAT_##id,
#include "numeric/formats.def"
#undef QZ_FORMAT
    QZ_FORMAT_COUNT
} qz_format;

typedef enum qz_format_kind {
    QZ_KIND_PLAIN,
    QZ_KIND_INTEGER,  /* intgrid.h */
    QZ_KIND_FLOAT,    /* floatgrid.h */
    QZ_KIND_CODEBOOK, /* codebook.h */
} qz_format_kind;

typedef struct qz_format_info {
    const char *name;
    qz_format_kind kind;
    int bits, exponent, mantissa;
    double largest;
    const char *specification;
} qz_format_info;

const qz_format_info *qz_format_of(qz_format f);
qz_format qz_format_find(const char *name); /* QZ_FORMAT_COUNT when not known */

/* Where an integer code is rounded. VALUE: rint(w / s) + z. SUM: rint(w / s + z), as compressed-tensors does.
 * They differ only in ties and in the last bit of the sum. */
typedef enum qz_zero_rule { QZ_ROUND_VALUE, QZ_ROUND_SUM } qz_zero_rule;

typedef struct qz_scheme {
    qz_format format;
    int64_t piece_rows, piece_cols; /* 0: the whole extent */
    bool symmetric;                 /* integer formats: zero is 2^(bits-1) and is not stored */
    qz_dtype scale_type;            /* F32, F16, BF16: scales are rounded to it before a code is chosen */
    qz_zero_rule zero_rule;
    int least_zero;    /* asymmetric: no zero is smaller (GPTQ's first layout cannot store 0) */
    bool narrow;       /* symmetric: codes on both sides of zero alike, scale = amax / (2^(bits-1) - 1) (LLM.int8()) */
    int64_t flat;      /* > 0: a piece is a run of so many elements of the matrix row by row, across rows
                        * (bitsandbytes); piece_rows and piece_cols are then unused and piece (n K + k) / flat counts */
    bool double_quant; /* scales are quantized themselves (Dettmers et al. 2023, section 3) */
} qz_scheme;

/* How the inputs of a linear are rounded before the product. */
typedef enum qz_act_mode {
    QZ_ACT_NONE,   /* they are not */
    QZ_ACT_TOKEN,  /* dynamic: each token has a scale of its own, from its largest value */
    QZ_ACT_GROUP,  /* dynamic: `group` channels of a token share one */
    QZ_ACT_TENSOR, /* static: one scale (and zero) for all, from calibration */
} qz_act_mode;

typedef struct qz_act_scheme {
    qz_act_mode mode;
    qz_format format; /* int8, fp8_e4m3, fp8_e5m2 */
    int64_t group;    /* for QZ_ACT_GROUP */
    bool symmetric;   /* integer formats */
    float divisor;    /* int8: scale = amax / divisor, 127 or 127.5: what the container's consumers do */
} qz_act_scheme;

/* What QZ_ACT_TENSOR needs beside it. */
typedef struct qz_act_values {
    float scale;
    int zero; /* signed code of zero, -128 .. 127; 0 when symmetric */
} qz_act_values;

/* How keys (after rope) and values are rounded in the cache. */
typedef struct qz_kv_scheme {
    bool wanted;
    qz_format format; /* int8, fp8_e4m3, fp8_e5m2 */
    bool per_head;    /* a scale for each kv head, else one for all */
} qz_kv_scheme;

/* Pieces along rows and columns of an (N, K) matrix; not for flat schemes. */
int64_t qz_scheme_scale_rows(const qz_scheme *s, int64_t n);
int64_t qz_scheme_scale_cols(const qz_scheme *s, int64_t k);
/* All pieces of an (N, K) matrix, flat ones too. */
int64_t qz_scheme_pieces(const qz_scheme *s, int64_t n, int64_t k);
/* The piece of element (row, col) of a matrix with `cols` columns, and the column behind the last one of this row that
 * lies in it too: for (col = 0; col < cols; col = end) end = qz_scheme_run(&piece, s, cols, row, col). */
int64_t qz_scheme_run(int64_t *piece, const qz_scheme *s, int64_t cols, int64_t row, int64_t col);
/* Do its pieces have zeros of their own? Those of the other schemes follow from the format. */
bool qz_scheme_has_zeros(const qz_scheme *s);
/* The same format, zeros and pieces: scales and zeros of the one fit the other, in whatever type they are stored. */
bool qz_scheme_alike(const qz_scheme *a, const qz_scheme *b);
/* The rest as well, but for the zero rule. */
bool qz_scheme_same(const qz_scheme *a, const qz_scheme *b);
bool qz_act_scheme_same(const qz_act_scheme *a, const qz_act_scheme *b); /* the divisor apart */
/* Bits that one weight costs on average, scales and zeros included. */
double qz_scheme_bits_per_weight(const qz_scheme *s, int64_t n, int64_t k);
/* "int4 group 128 asymmetric", into `out`. */
void qz_scheme_describe(const qz_scheme *s, char *out, size_t size);

#endif
