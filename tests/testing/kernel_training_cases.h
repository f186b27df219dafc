/* The part of kernel_cases.h that is about training: gradients, losses, the optimizer. Included there, once. */
#ifndef QZ_TESTING_KERNEL_TRAINING_CASES_H
#define QZ_TESTING_KERNEL_TRAINING_CASES_H

#include "testing/kernel_run.h"

/* T, N, K */
static inline void kernel_run_linear_grad_x(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor dy = kernel_matrix(r, t, n), w = kernel_matrix(r, n, k), dx = kernel_matrix(r, t, k);
    kernel_spoil(&dx);
    check_ok(qz_op_linear_grad_x(r->backend, &dx, &dy, &w, false));
    kernel_keep(r, &dx);
    check_ok(qz_op_linear_grad_x(r->backend, &dx, &dy, &w, true));
    kernel_keep(r, &dx);
}

/* T, N, K */
static inline void kernel_run_linear_grad_w(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor dy = kernel_matrix(r, t, n), x = kernel_matrix(r, t, k), dw = kernel_matrix(r, n, k);
    check_ok(qz_op_linear_grad_w(r->backend, &dw, &dy, &x));
    kernel_keep(r, &dw);
}

/* T, N, K; as kernel_run_linear */
static inline void kernel_run_linear_bf16(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor x = kernel_matrix(r, t, k), w = kernel_matrix(r, n, k), y = kernel_matrix(r, t, n);
    qz_tensor bias = kernel_vector(r, QZ_F32, n);
    kernel_spoil(&y);
    check_ok(qz_op_linear_bf16(r->backend, &y, &x, &w, NULL, false));
    kernel_keep(r, &y);
    kernel_spoil(&y);
    check_ok(qz_op_linear_bf16(r->backend, &y, &x, &w, &bias, false));
    kernel_keep(r, &y);
    check_ok(qz_op_linear_bf16(r->backend, &y, &x, &w, &bias, true));
    check_ok(qz_op_linear_bf16(r->backend, &y, &x, &w, NULL, true));
    kernel_keep(r, &y);
}

/* T, N, K */
static inline void kernel_run_linear_grad_x_bf16(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor dy = kernel_matrix(r, t, n), w = kernel_matrix(r, n, k), dx = kernel_matrix(r, t, k);
    kernel_spoil(&dx);
    check_ok(qz_op_linear_grad_x_bf16(r->backend, &dx, &dy, &w, false));
    kernel_keep(r, &dx);
    check_ok(qz_op_linear_grad_x_bf16(r->backend, &dx, &dy, &w, true));
    kernel_keep(r, &dx);
}

/* T, N, K */
static inline void kernel_run_linear_grad_w_bf16(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor dy = kernel_matrix(r, t, n), x = kernel_matrix(r, t, k), dw = kernel_matrix(r, n, k);
    check_ok(qz_op_linear_grad_w_bf16(r->backend, &dw, &dy, &x));
    kernel_keep(r, &dw);
}

/* T, N */
static inline void kernel_run_column_sums(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), sums = kernel_vector(r, QZ_F32, r->dims[1]);
    check_ok(qz_op_column_sums(r->backend, &sums, &x));
    kernel_keep(r, &sums);
}

/* T, C, V: every other token is the same one */
static inline void kernel_run_embedding_grad(kernel_run *r)
{
    qz_tensor dy = kernel_matrix(r, r->dims[0], r->dims[1]), table = kernel_matrix(r, r->dims[2], r->dims[1]);
    int32_t *ids = kernel_indices(r, r->dims[0], r->dims[2]);
    for (int i = 0; i < r->dims[0]; i += 2) ids[i] = ids[0];
    check_ok(qz_op_embedding_grad(r->backend, &table, &dy, ids, 22.627f));
    kernel_keep(r, &table);
}

/* T, C; the first row of x is zero; without dw, accumulating, in place */
static inline void kernel_run_rmsnorm_grad(kernel_run *r)
{
    const int t = r->dims[0], c = r->dims[1];
    qz_tensor x = kernel_matrix(r, t, c), dy = kernel_matrix(r, t, c), dx = kernel_matrix(r, t, c);
    qz_tensor w = kernel_vector(r, QZ_F32, c), dw = kernel_vector(r, QZ_F32, c);
    for (int i = 0; i < c && t > 1; i++) ((float *)x.data)[i] = 0;
    kernel_spoil(&dx);
    check_ok(qz_op_rmsnorm_grad(r->backend, &dx, NULL, &dy, &x, &w, 1e-2f, 0, false));
    kernel_keep(r, &dx);
    check_ok(qz_op_rmsnorm_grad(r->backend, &dx, &dw, &dy, &x, &w, 1e-2f, 1, true));
    kernel_keep(r, &dx);
    check_ok(qz_op_rmsnorm_grad(r->backend, &dy, &dw, &dy, &x, &w, 1e-2f, 0, false));
    kernel_keep(r, &dy);
    kernel_keep(r, &dw);
}

/* T, F; apart, dgate on gate with dup on up, and with dup on dy */
static inline void kernel_run_gated_grad(kernel_run *r,
                                         qz_status (*op)(const qz_backend *backend, const qz_tensor *dgate,
                                                         const qz_tensor *dup, const qz_tensor *dy,
                                                         const qz_tensor *gate, const qz_tensor *up))
{
    for (int i = 0; i < 3; i++) {
        qz_tensor v[5]; /* dy, gate, up and two more */
        for (int j = 0; j < 5; j++) v[j] = kernel_matrix(r, r->dims[0], r->dims[1]);
        for (int64_t j = 0; j < r->dims[0] * v[1].stride[0]; j++) ((float *)v[1].data)[j] *= 4;
        const qz_tensor *dgate = i ? &v[1] : &v[3], *dup = i == 0 ? &v[4] : i == 1 ? &v[2] : &v[0];
        if (i == 0) kernel_spoil(dgate), kernel_spoil(dup);
        check_ok(op(r->backend, dgate, dup, &v[0], &v[1], &v[2]));
        kernel_keep(r, dgate);
        kernel_keep(r, dup);
    }
}

static inline void kernel_run_swiglu_grad(kernel_run *r)
{
    kernel_run_gated_grad(r, qz_op_swiglu_grad);
}

static inline void kernel_run_geglu_grad(kernel_run *r)
{
    kernel_run_gated_grad(r, qz_op_geglu_grad);
}

/* T, F; apart, on dy, on y */
static inline void kernel_run_softcap_grad(kernel_run *r)
{
    for (int i = 0; i < 3; i++) {
        qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), dy = kernel_matrix(r, r->dims[0], r->dims[1]);
        qz_tensor dx = kernel_matrix(r, r->dims[0], r->dims[1]), *out = i == 0 ? &dx : i == 1 ? &dy : &y;
        if (i == 0) kernel_spoil(out);
        check_ok(qz_op_softcap_grad(r->backend, out, &dy, &y, 5));
        kernel_keep(r, out);
    }
}

/* rows, cols; apart, then in place */
static inline void kernel_run_multiply(kernel_run *r)
{
    qz_tensor a = kernel_matrix(r, r->dims[0], r->dims[1]), b = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), v = kernel_vector(r, QZ_F32, r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_multiply(r->backend, &y, &a, &b));
    check_ok(qz_op_multiply(r->backend, &a, &a, &b));
    check_ok(qz_op_multiply(r->backend, &b, &y, &b));
    check_ok(qz_op_multiply(r->backend, &v, &v, &v));
    kernel_keep(r, &y);
    kernel_keep(r, &a);
    kernel_keep(r, &b);
    kernel_keep(r, &v);
}

/* rows, cols */
static inline void kernel_run_add_scaled(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor a = kernel_vector(r, QZ_F32, r->dims[1]), b = kernel_vector(r, QZ_F32, r->dims[1]);
    check_ok(qz_op_add_scaled(r->backend, &y, &x, -0.3f));
    check_ok(qz_op_add_scaled(r->backend, &a, &b, 1.7f));
    kernel_keep(r, &y);
    kernel_keep(r, &a);
}

/* T, C */
static inline void kernel_run_dropout(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_dropout(r->backend, &y, &x, 0.3f, 5, (uint64_t)1 << 40));
    kernel_keep(r, &y);
    check_ok(qz_op_dropout(r->backend, &x, &x, 0.05f, 7, 0));
    kernel_keep(r, &x);
}

static inline void kernel_times(const qz_tensor *x, float factor)
{
    for (int64_t i = 0; i < x->shape[0] * x->stride[0]; i++) ((float *)x->data)[i] *= factor;
}

/* T, V; apart, accumulating, in place */
static inline void kernel_run_cross_entropy(kernel_run *r)
{
    const int t = r->dims[0], v = r->dims[1];
    qz_tensor z = kernel_matrix(r, t, v), grad = kernel_matrix(r, t, v), loss = kernel_vector(r, QZ_F64, t);
    int32_t *target = kernel_indices(r, t, v);
    if (t > 1) target[1] = -100;
    kernel_times(&z, 4);
    kernel_spoil(&grad);
    check_ok(qz_op_cross_entropy(r->backend, &loss, &grad, &z, target, 0.7f, false));
    kernel_keep(r, &grad);
    kernel_keep(r, &loss);
    check_ok(qz_op_cross_entropy(r->backend, &loss, &grad, &z, target, -0.2f, true));
    kernel_keep(r, &grad);
    kernel_keep(r, &loss);
    check_ok(qz_op_cross_entropy(r->backend, &loss, &z, &z, target, 1, false));
    kernel_keep(r, &z);
}

/* T, V; with every row, accumulating with some rows, in place */
static inline void kernel_run_distill(kernel_run *r)
{
    const int t = r->dims[0], v = r->dims[1];
    qz_tensor a = kernel_matrix(r, t, v), b = kernel_matrix(r, t, v), grad = kernel_matrix(r, t, v);
    qz_tensor loss = kernel_vector(r, QZ_F64, t);
    int32_t *target = kernel_indices(r, t, v);
    if (t > 1) target[1] = -100;
    kernel_times(&a, 4);
    kernel_times(&b, 4);
    kernel_spoil(&grad);
    check_ok(qz_op_distill(r->backend, &loss, &grad, &a, &b, NULL, 1, 0.5f, false));
    kernel_keep(r, &grad);
    kernel_keep(r, &loss);
    check_ok(qz_op_distill(r->backend, &loss, &grad, &a, &b, target, 2.5f, 1, true));
    kernel_keep(r, &grad);
    kernel_keep(r, &loss);
    check_ok(qz_op_distill(r->backend, &loss, &a, &a, &b, target, 2, 1, false));
    kernel_keep(r, &a);
}

static inline qz_adamw kernel_adamw(int64_t step)
{
    return (qz_adamw){
        .rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0.1, .gradient_factor = 0.7, .step = step};
}

/* elements: three steps */
static inline void kernel_run_adamw(kernel_run *r)
{
    qz_tensor p = kernel_vector(r, QZ_F32, r->dims[0]), m = kernel_vector(r, QZ_F32, r->dims[0]);
    qz_tensor v = kernel_vector(r, QZ_F32, r->dims[0]);
    memset(m.data, 0, (size_t)r->dims[0] * sizeof(float));
    memset(v.data, 0, (size_t)r->dims[0] * sizeof(float));
    for (int step = 1; step <= 3; step++) {
        const qz_tensor g = kernel_vector(r, QZ_F32, r->dims[0]);
        const qz_adamw how = kernel_adamw(step);
        check_ok(qz_op_adamw(r->backend, &p, &m, &v, &g, &how));
    }
    kernel_keep(r, &p);
    kernel_keep(r, &m);
    kernel_keep(r, &v);
}

/* The bytes of a U8 vector as results. */
static inline void kernel_keep_codes(kernel_run *r, const qz_tensor *codes)
{
    qz_tensor out = kernel_vector(r, QZ_F64, codes->shape[0]);
    for (int64_t i = 0; i < codes->shape[0]; i++) ((double *)out.data)[i] = ((uint8_t *)codes->data)[i];
    kernel_keep(r, &out);
}

/* elements: three steps, the gradient of a block zero and that of its neighbour tiny; codes are decided here */
static inline void kernel_run_adamw_8bit(kernel_run *r)
{
    const int64_t count = r->dims[0], blocks = (count + QZ_MOMENT_BLOCK - 1) / QZ_MOMENT_BLOCK;
    qz_tensor p = kernel_vector(r, QZ_F32, count), m = kernel_vector(r, QZ_U8, count);
    qz_tensor v = kernel_vector(r, QZ_U8, count);
    float *scales = qz_arena_calloc(r->arena, (size_t)blocks * 2 * sizeof(float));
    qz_tensor am = qz_tensor_1d(scales, QZ_F32, blocks), av = qz_tensor_1d(scales + blocks, QZ_F32, blocks);
    for (int step = 1; step <= 3; step++) {
        const qz_tensor g = kernel_vector(r, QZ_F32, count);
        const qz_adamw how = kernel_adamw(step);
        for (int64_t i = 0; i < count; i++)
            ((float *)g.data)[i] *= i / QZ_MOMENT_BLOCK == 1 ? 0 : i / QZ_MOMENT_BLOCK == 2 ? 1e-18f : 1;
        check_ok(qz_op_adamw_8bit(r->backend, &p, &m, &am, &v, &av, &g, &how));
    }
    kernel_keep(r, &p);
    kernel_keep_codes(r, &m);
    kernel_keep_codes(r, &v);
    kernel_keep(r, &am);
    kernel_keep(r, &av);
}

/* rows, cols */
static inline void kernel_run_square_sum(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), sum = kernel_vector(r, QZ_F64, 1);
    check_ok(qz_op_square_sum(r->backend, sum.data, &x));
    kernel_keep(r, &sum);
}

#endif
