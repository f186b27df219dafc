/* Views of numbers in memory: qz_tensor (plain) and qz_qtensor (quantized). Neither owns what it points to.
 *
 * qz_qtensor is the one neutral value between every solver and every container: a solver fills it, a container only
 * reorders its codes. So M solvers and N containers cost M + N. */
#ifndef QZ_NUMERIC_TENSOR_H
#define QZ_NUMERIC_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "numeric/format.h"

enum { QZ_MAX_DIMS = 8 }; /* as many as a stored tensor may have; arithmetic uses at most 4 */

typedef enum qz_device { QZ_HOST, QZ_CUDA } qz_device;

typedef struct qz_tensor {
    void *data;
    qz_dtype dtype;
    qz_device device;
    int ndim;
    int64_t shape[QZ_MAX_DIMS];
    int64_t stride[QZ_MAX_DIMS]; /* in elements; the last is 1 */
} qz_tensor;

/* Contiguous views on the host. */
qz_tensor qz_tensor_1d(void *data, qz_dtype t, int64_t a);
qz_tensor qz_tensor_2d(void *data, qz_dtype t, int64_t a, int64_t b);
qz_tensor qz_tensor_3d(void *data, qz_dtype t, int64_t a, int64_t b, int64_t c);
qz_tensor qz_tensor_4d(void *data, qz_dtype t, int64_t a, int64_t b, int64_t c, int64_t d);
/* Rows [first, first + count) of the first dimension. */
qz_tensor qz_tensor_rows(const qz_tensor *x, int64_t first, int64_t count);
int64_t qz_tensor_count(const qz_tensor *x); /* elements; 1 for ndim 0 */
bool qz_tensor_is_contiguous(const qz_tensor *x);
/* The f32 data of a host view (asserted). */
float *qz_f32(const qz_tensor *x);

/* value[n, k] = (code - zero) * scale for integers, decode(code) * scale for floating formats and codebooks, with the
 * scale and zero of piece (n / piece_rows, g(k)), where g(k) = permutation ? permutation[k] : k / piece_cols. One fp32
 * product. */
typedef struct qz_qtensor {
    qz_scheme scheme;
    int64_t rows, cols;   /* N outputs, K inputs */
    uint8_t *codes;       /* (N, K) one code a byte */
    float *scales;        /* (SN, SK) each exactly a number of scheme.scale_type */
    uint8_t *zeros;       /* (SN, SK) codes of zero; NULL when symmetric or floating */
    int32_t *permutation; /* (K) group of each input (GPTQ's g_idx); NULL: k / piece_cols */
    uint8_t *scale_codes; /* (SN, SK) double quantization: scales = map[code] * second_scales + scale_offset; NULL */
    float *second_scales; /* double quantization: one for 256 scales; K-quants, NVFP4: later; NULL */
    float scale_offset;
    float *minima;   /* K-quants; NULL */
    float *codebook; /* AQLM, NF4; NULL */
} qz_qtensor;

/* Codes, scales, (when asymmetric integers) zeros and (when double_quant) codes of scales with their scales for an (n,
 * k) matrix, uninitialised, from `arena`. */
QZ_NODISCARD qz_status qz_qtensor_alloc(qz_qtensor *out, const qz_scheme *scheme, int64_t n, int64_t k,
                                        qz_arena *arena);
/* Double quantization (scheme.double_quant): the scales that the codes were chosen with -> scale_codes, second_scales,
 * scale_offset, and `scales` as these give them back. To be called once, after the codes, as bitsandbytes does it. */
void qz_qtensor_quantize_scales(qz_qtensor *q);
/* The same, but `scales` stay what they are: for a matrix whose codes are still to be chosen. */
void qz_qtensor_encode_scales(qz_qtensor *q);
/* Rows [first, first + count) as fp32 into out (count, K). */
void qz_qtensor_dequantize(float *out, const qz_qtensor *q, int64_t first, int64_t count);
/* Codes, scales and zeros are the same, and so are the schemes as far as values go. On a difference says where. */
QZ_NODISCARD qz_status qz_qtensor_compare(const qz_qtensor *a, const qz_qtensor *b);

/* Elementwise conversion between any two of F64, F32, F16, BF16, F8_E4M3, F8_E5M2: round to nearest even; to the fp8
 * types saturating. */
QZ_NODISCARD qz_status qz_convert(void *out, qz_dtype to, const void *in, qz_dtype from, int64_t count);

#endif
