/* The operations of training through a quantizer and the gradient of attention on seeded random inputs, for the table
 * in kernel_cases.h. */
#ifndef QZ_TESTING_KERNEL_QUANTIZE_CASES_H
#define QZ_TESTING_KERNEL_QUANTIZE_CASES_H

#include "testing/kernel_run.h"

/* What attention is tried with: without window, with two windows, with a cap, and inside documents. */
typedef struct kernel_attention_kind {
    int window;
    float scale, cap;
    int document; /* tokens of one, of another a few more */
} kernel_attention_kind;

enum { KERNEL_ATTENTION_KINDS = 8 };
static const kernel_attention_kind kernel_attention_kinds[KERNEL_ATTENTION_KINDS] = {
    {0, 1, 0, 0},   {1, 1, 0, 0}, {7, 1, 0, 0},  {0, 1, 3, 0},
    {300, 8, 0, 0}, {0, 1, 0, 5}, {9, 1, 2, 70}, {0, 1, 0, 201}};

/* Where the documents of each sequence begin; those of every second one are longer by 2. */
static inline int32_t *kernel_documents(kernel_run *r, int batches, int tokens, int length)
{
    int32_t *first = qz_arena_array(r->arena, int32_t, (size_t)(batches * tokens));
    cr_assert(first != NULL);
    for (int i = 0; i < batches * tokens; i++) {
        const int each = length + i / tokens % 2 * 2;
        first[i] = i % tokens / each * each;
    }
    return first;
}

static inline qz_attention kernel_attention_how(kernel_run *r, const kernel_attention_kind *kind)
{
    const int *d = r->dims;
    qz_attention how = {.scale = kind->scale / sqrtf((float)d[5]), .softcap = kind->cap, .window = kind->window};
    if (kind->document && d[1] == d[2]) how.first = kernel_documents(r, d[0], d[1], kind->document);
    return how;
}

static inline qz_tensor kernel_sums(kernel_run *r)
{
    qz_tensor m = kernel_matrix(r, r->dims[0] * r->dims[1], r->dims[3]);
    qz_tensor t = qz_tensor_3d(m.data, QZ_F32, r->dims[0], r->dims[1], r->dims[3]);
    t.stride[1] = m.stride[0];
    t.stride[0] = r->dims[1] * m.stride[0];
    return t;
}

/* B, T, S, H, HK, D */
static inline void kernel_run_attention(kernel_run *r)
{
    const int *d = r->dims;
    qz_tensor q = kernel_heads(r, d[0], d[1], d[3], d[5]), y = kernel_heads(r, d[0], d[1], d[3], d[5]);
    qz_tensor k = kernel_heads(r, d[0], d[2], d[4], d[5]), v = kernel_heads(r, d[0], d[2], d[4], d[5]);
    qz_tensor lse = kernel_sums(r);
    for (int i = 0; i < KERNEL_ATTENTION_KINDS; i++) {
        const qz_attention how = kernel_attention_how(r, &kernel_attention_kinds[i]);
        kernel_spoil(&y);
        check_ok(qz_op_attention(r->backend, &y, i % 2 ? &lse : NULL, &q, &k, &v, &how));
        kernel_keep(r, &y);
        kernel_keep(r, &lse);
    }
}

/* B, T, S, H, HK, D; what comes in is `ref`'s */
static inline void kernel_run_attention_grad(kernel_run *r)
{
    const int *d = r->dims;
    qz_tensor q = kernel_heads(r, d[0], d[1], d[3], d[5]), y = kernel_heads(r, d[0], d[1], d[3], d[5]);
    qz_tensor k = kernel_heads(r, d[0], d[2], d[4], d[5]), v = kernel_heads(r, d[0], d[2], d[4], d[5]);
    qz_tensor dq = kernel_heads(r, d[0], d[1], d[3], d[5]), dy = kernel_heads(r, d[0], d[1], d[3], d[5]);
    qz_tensor dk = kernel_heads(r, d[0], d[2], d[4], d[5]), dv = kernel_heads(r, d[0], d[2], d[4], d[5]);
    qz_tensor lse = kernel_sums(r), delta = kernel_sums(r);
    for (int i = 0; i < KERNEL_ATTENTION_KINDS; i++) {
        const qz_attention how = kernel_attention_how(r, &kernel_attention_kinds[i]);
        check_ok(qz_op_attention(qz_backend_at(0), &y, &lse, &q, &k, &v, &how));
        kernel_spoil(&dq);
        kernel_spoil(&dk);
        kernel_spoil(&dv);
        check_ok(qz_op_attention_grad(r->backend, &dq, &dk, &dv, &delta, &dy, &y, &lse, &q, &k, &v, &how));
        kernel_keep(r, &dq);
        kernel_keep(r, &dk);
        kernel_keep(r, &dv);
    }
}

/* Of dims[5]: piece rows, and what else a scheme has. */
enum { KERNEL_ROWS = 1000, KERNEL_SUM = 1000, KERNEL_NARROW = 2000, KERNEL_DOUBLE = 3000, KERNEL_PERMUTED = 4000 };

/* (N, K, piece columns or -flat, format, symmetric, piece rows + KERNEL_...), without contents */
static inline qz_qtensor kernel_quantized(kernel_run *r)
{
    const int n = r->dims[0], k = r->dims[1], kind = r->dims[5] / KERNEL_ROWS * KERNEL_ROWS;
    qz_scheme scheme = {.format = (qz_format)r->dims[3],
                        .symmetric = r->dims[4],
                        .piece_rows = r->dims[5] % KERNEL_ROWS,
                        .zero_rule = kind == KERNEL_SUM ? QZ_ROUND_SUM : QZ_ROUND_VALUE,
                        .narrow = kind == KERNEL_NARROW,
                        .double_quant = kind == KERNEL_DOUBLE};
    qz_qtensor q;
    if (r->dims[2] < 0)
        scheme.flat = -r->dims[2];
    else
        scheme.piece_cols = r->dims[2];
    check_ok(qz_qtensor_alloc(&q, &scheme, n, k, r->arena));
    if (kind == KERNEL_PERMUTED) {
        q.permutation = qz_arena_array(r->arena, int32_t, (size_t)k);
        for (int i = 0; i < k; i++) q.permutation[i] = i / 3 * 5 % (int)qz_scheme_scale_cols(&scheme, k);
    }
    return q;
}

static inline void kernel_fit(const qz_backend *backend, qz_qtensor *q, const qz_tensor *w)
{
    int32_t *permutation = q->permutation;
    q->permutation = NULL;
    check_ok(qz_op_fit_ranges(backend, q, w));
    q->permutation = permutation;
}

/* The scales, zeros and codes of scales. */
static inline void kernel_keep_grids(kernel_run *r, const qz_qtensor *q)
{
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    qz_tensor all = kernel_vector(r, QZ_F64, 3 * pieces);
    for (int64_t i = 0; i < pieces; i++) {
        ((double *)all.data)[3 * i] = (double)q->scales[i];
        ((double *)all.data)[3 * i + 1] = q->zeros ? q->zeros[i] : 0;
        ((double *)all.data)[3 * i + 2] = q->scale_codes ? q->scale_codes[i] : 0;
    }
    kernel_keep(r, &all);
}

/* A row of zeros, one of tiny values, one of a single sign, a spike here and there. */
static inline qz_tensor kernel_weights(kernel_run *r)
{
    const int64_t n = r->dims[0], k = r->dims[1];
    qz_tensor w = kernel_matrix(r, n, k);
    for (int64_t i = 0; i < n * k; i++) {
        float *value = qz_f32(&w) + i / k * w.stride[0] + i % k;
        if (i / k % 7 == 2) *value = 0;
        if (i / k % 7 == 3) *value *= 1e-30f;
        if (i / k % 7 == 4) *value = fabsf(*value);
        if (i % 97 == 13) *value *= 20;
    }
    return w;
}

static inline void kernel_run_fit_ranges(kernel_run *r)
{
    qz_tensor w = kernel_weights(r);
    qz_qtensor q = kernel_quantized(r);
    kernel_fit(r->backend, &q, &w);
    kernel_keep_grids(r, &q);
}

/* The same scheme with ranges that fit, and with scales so small that values are clipped. */
static inline void kernel_run_fake_quant(kernel_run *r)
{
    qz_tensor w = kernel_weights(r), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_qtensor q = kernel_quantized(r);
    kernel_fit(qz_backend_at(0), &q, &w);
    for (int i = 0; i < 2; i++) {
        kernel_spoil(&y);
        check_ok(qz_op_fake_quant(r->backend, &y, &w, &q));
        kernel_keep(r, &y);
        for (int64_t p = 0; p < qz_scheme_pieces(&q.scheme, q.rows, q.cols); p++) q.scales[p] *= 0.37f;
    }
    check_ok(qz_op_fake_quant(r->backend, &w, &w, &q));
    kernel_keep(r, &w);
}

static inline void kernel_run_fake_quant_grad(kernel_run *r)
{
    qz_tensor w = kernel_weights(r), dy = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor dw = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_qtensor q = kernel_quantized(r);
    const int64_t pieces = qz_scheme_pieces(&q.scheme, q.rows, q.cols);
    qz_tensor dscales = kernel_vector(r, QZ_F32, pieces), doffsets = kernel_vector(r, QZ_F32, pieces);
    const qz_tensor *scales = q.scheme.double_quant ? NULL : &dscales, *offsets = q.zeros ? &doffsets : NULL;
    kernel_fit(qz_backend_at(0), &q, &w);
    for (int i = 0; i < 6; i++) {
        if (i == 3)
            for (int64_t p = 0; p < pieces; p++) q.scales[p] *= 0.37f;
        kernel_spoil(&dw);
        check_ok(qz_op_fake_quant_grad(r->backend, &dw, i % 2 ? scales : NULL, i % 2 ? offsets : NULL, &dy, &w, &q,
                                       (qz_ste)(i % 3), 0.01f));
        kernel_keep(r, &dw);
    }
    check_ok(qz_op_fake_quant_grad(r->backend, NULL, scales, offsets, &dy, &w, &q, QZ_STE_LSQ, 0.01f));
    check_ok(qz_op_fake_quant_grad(r->backend, &dy, scales, NULL, &dy, &w, &q, QZ_STE_LSQ, 0.01f));
    kernel_keep(r, &dy);
    kernel_keep(r, &dscales);
    kernel_keep(r, &doffsets);
}

/* Scheme i of 24: every mode of every format. */
static inline qz_act_scheme kernel_act_scheme(int i, int group)
{
    static const qz_format formats[] = {QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
    return (qz_act_scheme){.mode = (qz_act_mode)(QZ_ACT_TOKEN + i / 2 % 3),
                           .format = formats[i / 6 % 3],
                           .group = group,
                           .symmetric = i < 18,
                           .divisor = i % 2 ? 127.5f : 127};
}

static inline qz_act_values kernel_act_values(int i)
{
    return (qz_act_values){.scale = i % 2 ? 0.0031f : 7, .zero = i < 18 ? 0 : -37};
}

static inline void kernel_keep_bytes(kernel_run *r, const uint8_t *bytes, int64_t count)
{
    qz_tensor all = kernel_vector(r, QZ_F64, count);
    for (int64_t i = 0; i < count; i++) ((double *)all.data)[i] = bytes[i];
    kernel_keep(r, &all);
}

/* T, K, group */
static inline void kernel_run_fake_quant_activations(kernel_run *r)
{
    const int t = r->dims[0], k = r->dims[1], bytes = (t * k + 7) / 8;
    qz_tensor x = kernel_weights(r), y = kernel_matrix(r, t, k);
    uint8_t *bits = qz_arena_calloc(r->arena, (size_t)bytes + 1);
    const qz_tensor mask = qz_tensor_1d(bits, QZ_U8, bytes + 1);
    for (int i = 0; i < 24; i++) {
        const qz_act_scheme scheme = kernel_act_scheme(i, r->dims[2]);
        const qz_act_values values = kernel_act_values(i);
        kernel_spoil(&y);
        memset(bits, i % 3 * 0x5a, (size_t)bytes + 1);
        check_ok(qz_op_fake_quant_activations(r->backend, &y, i % 4 == 3 ? NULL : &mask, &x, &scheme, &values));
        kernel_keep(r, &y);
        kernel_keep_bytes(r, bits, bytes + 1);
    }
    const qz_act_scheme token = kernel_act_scheme(0, 1);
    check_ok(qz_op_fake_quant_activations(r->backend, &x, &mask, &x, &token, NULL));
    kernel_keep(r, &x);
    kernel_keep_bytes(r, bits, bytes + 1);
}

/* T, K */
static inline void kernel_run_mask_grad(kernel_run *r)
{
    const int t = r->dims[0], k = r->dims[1], bytes = (t * k + 7) / 8;
    qz_tensor dy = kernel_matrix(r, t, k), dx = kernel_matrix(r, t, k);
    uint8_t *bits = qz_arena_calloc(r->arena, (size_t)bytes);
    const qz_tensor mask = qz_tensor_1d(bits, QZ_U8, bytes);
    for (int i = 0; i < bytes; i++) bits[i] = (uint8_t)qz_rng_below(&r->rng, 256);
    kernel_spoil(&dx);
    check_ok(qz_op_mask_grad(r->backend, &dx, &dy, &mask));
    check_ok(qz_op_mask_grad(r->backend, &dy, &dy, &mask));
    kernel_keep(r, &dx);
    kernel_keep(r, &dy);
}

/* T, K */
static inline void kernel_run_activation_scale_grad(kernel_run *r)
{
    qz_tensor x = kernel_weights(r), dy = kernel_matrix(r, r->dims[0], r->dims[1]), sum = kernel_vector(r, QZ_F64, 1);
    for (int i = 4; i < 24; i += 6) {
        for (int j = 0; j < 2; j++) {
            const qz_act_scheme scheme = kernel_act_scheme(i + j, 1);
            const qz_act_values values = kernel_act_values(i + j);
            check_ok(
                qz_op_activation_scale_grad(r->backend, (double *)sum.data, &dy, &x, &scheme, &values, j ? 1 : 0.1f));
            kernel_keep(r, &sum);
            ((double *)sum.data)[0] = i;
        }
    }
}

/* N, K, piece columns or -flat, format, symmetric, piece rows + KERNEL_...: 9 tokens, workspace of 5 and of all rows,
 * without and with a bias */
static inline void kernel_run_packed(kernel_run *r, bool gradient)
{
    enum { TOKENS = 9 };
    const int n = r->dims[0], k = r->dims[1];
    qz_tensor w = kernel_weights(r), x = kernel_matrix(r, TOKENS, gradient ? n : k);
    qz_tensor y = kernel_matrix(r, TOKENS, gradient ? k : n), room = kernel_matrix(r, n, k);
    qz_qtensor q = kernel_quantized(r);
    qz_packed packed;
    kernel_fit(qz_backend_at(0), &q, &w);
    if (q.scheme.double_quant) qz_qtensor_quantize_scales(&q);
    for (int i = 0; i < n * k; i++)
        q.codes[i] = (uint8_t)qz_rng_below(&r->rng, 1u << qz_format_of(q.scheme.format)->bits);
    for (int i = 0; qz_format_of(q.scheme.format)->kind == QZ_KIND_FLOAT && i < n * k; i++)
        q.codes[i] &= 0x7b; /* neither NaN nor infinity */
    check_ok(qz_packed_from(&packed, &q, r->arena));
    const qz_tensor bias = kernel_vector(r, QZ_F32, n);
    for (int i = 0; i < (gradient ? 4 : 8); i++) {
        const bool accumulate = i % 2;
        const qz_tensor some = qz_tensor_rows(&room, 0, i % 4 < 2 && n > 5 ? 5 : n);
        if (!accumulate) kernel_spoil(&y);
        check_ok(gradient ? qz_op_linear_packed_grad_x(r->backend, &y, &x, &packed, accumulate, &some)
                          : qz_op_linear_packed(r->backend, &y, &x, &packed, i < 4 ? NULL : &bias, accumulate, &some));
        kernel_keep(r, &y);
    }
}

static inline void kernel_run_linear_packed(kernel_run *r)
{
    kernel_run_packed(r, false);
}

static inline void kernel_run_linear_packed_grad_x(kernel_run *r)
{
    kernel_run_packed(r, true);
}

/* Schemes of fit_ranges, fake_quant and so on: (N, K, piece columns or -flat, format, symmetric, piece rows + kind). */
#define KERNEL_QUANTIZE_DIMS                                                                                           \
    {                                                                                                                  \
        {1, 1, 0, QZ_FORMAT_INT4, 1, 1},                         /* one weight */                                      \
            {37, 130, 32, QZ_FORMAT_INT4, 0, 1},                 /* groups with a short last one, with zeros */        \
            {300, 257, 0, QZ_FORMAT_INT8, 1, KERNEL_NARROW + 1}, /* channels */                                        \
            {61, 140, 0, QZ_FORMAT_INT2, 0, KERNEL_SUM},         /* the whole matrix */                                \
            {33, 130, 64, QZ_FORMAT_FP8_E4M3, 1, 8},             /* blocks */                                          \
            {16, 40, 0, QZ_FORMAT_FP8_E5M2, 1, 1},                                                                     \
            {48, 60, -64, QZ_FORMAT_NF4, 1, KERNEL_DOUBLE}, /* runs across rows */                                     \
        {                                                                                                              \
            21, 128, 32, QZ_FORMAT_INT3, 0, KERNEL_PERMUTED + 1                                                        \
        }                                                                                                              \
    }

#endif
