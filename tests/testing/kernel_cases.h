/* Every operation on seeded random inputs, for any backend: kernel_case_run gives the outputs as doubles. A row per
 * operation of ops.def; `dims` mean what the row's comment says. Views have rows longer than needed, so strides count.
 * Runs on host backends only (data is handed over as it is). */
#ifndef QZ_TESTING_KERNEL_CASES_H
#define QZ_TESTING_KERNEL_CASES_H

#include "testing/kernel_quantize_cases.h"
#include "testing/kernel_run.h"
#include "testing/kernel_training_cases.h"

/* rows, cols: to each type and back, so that both directions are seen */
static inline void kernel_run_convert(kernel_run *r)
{
    static const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16, QZ_F8_E4M3, QZ_F8_E5M2};
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), back = kernel_matrix(r, r->dims[0], r->dims[1]);
        y.dtype = types[i]; /* narrower elements in the same memory */
        check_ok(qz_op_convert(r->backend, &y, &x));
        check_ok(qz_op_convert(r->backend, &back, &y));
        kernel_keep(r, &back);
    }
}

/* T, C, V */
static inline void kernel_run_embedding(kernel_run *r)
{
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), w = kernel_matrix(r, r->dims[2], r->dims[1]), half = w;
    int32_t *ids = kernel_indices(r, r->dims[0], r->dims[2]);
    check_ok(qz_op_embedding(r->backend, &y, &w, ids));
    kernel_keep(r, &y);
    half = kernel_matrix(r, r->dims[2], r->dims[1]);
    half.dtype = QZ_BF16;
    check_ok(qz_op_convert(r->backend, &half, &w));
    check_ok(qz_op_embedding(r->backend, &y, &half, ids));
    kernel_keep(r, &y);
}

/* T, C */
static inline void kernel_run_rmsnorm(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor w = kernel_vector(r, QZ_F32, r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_rmsnorm(r->backend, &y, &x, &w, 1e-5f, 0));
    check_ok(qz_op_rmsnorm(r->backend, &x, &x, &w, 1e-6f, 1));
    kernel_keep(r, &y);
    kernel_keep(r, &x);
}

/* T, N, K; the bias and the accumulation one after another */
static inline void kernel_run_linear(kernel_run *r)
{
    const int t = r->dims[0], n = r->dims[1], k = r->dims[2];
    qz_tensor x = kernel_matrix(r, t, k), w = kernel_matrix(r, n, k), y = kernel_matrix(r, t, n);
    qz_tensor bias = kernel_vector(r, QZ_F32, n);
    kernel_spoil(&y);
    check_ok(qz_op_linear(r->backend, &y, &x, &w, NULL, false));
    kernel_keep(r, &y);
    kernel_spoil(&y);
    check_ok(qz_op_linear(r->backend, &y, &x, &w, &bias, false));
    kernel_keep(r, &y);
    check_ok(qz_op_linear(r->backend, &y, &x, &w, &bias, true));
    check_ok(qz_op_linear(r->backend, &y, &x, &w, NULL, true));
    kernel_keep(r, &y);
}

/* T, H, D, P */
static inline void kernel_run_rope(kernel_run *r)
{
    qz_tensor heads = kernel_heads(r, 1, r->dims[0], r->dims[1], r->dims[2]);
    qz_tensor x = qz_tensor_3d(heads.data, QZ_F32, r->dims[0], r->dims[1], r->dims[2]);
    x.stride[0] = heads.stride[1];
    qz_tensor cos = kernel_matrix(r, r->dims[3], r->dims[2] / 2), sin = kernel_matrix(r, r->dims[3], r->dims[2] / 2);
    check_ok(qz_op_rope(r->backend, &x, &cos, &sin, kernel_indices(r, r->dims[0], r->dims[3]), false));
    kernel_keep(r, &x);
    check_ok(qz_op_rope(r->backend, &x, &cos, &sin, kernel_indices(r, r->dims[0], r->dims[3]), true));
    kernel_keep(r, &x);
}

/* T, F */
static inline void kernel_run_swiglu(kernel_run *r)
{
    qz_tensor g = kernel_matrix(r, r->dims[0], r->dims[1]), u = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_swiglu(r->backend, &y, &g, &u));
    kernel_keep(r, &y);
    check_ok(qz_op_swiglu(r->backend, &g, &g, &u));
    kernel_keep(r, &g);
}

/* T, F */
static inline void kernel_run_geglu(kernel_run *r)
{
    qz_tensor g = kernel_matrix(r, r->dims[0], r->dims[1]), u = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_geglu(r->backend, &y, &g, &u));
    kernel_keep(r, &y);
    check_ok(qz_op_geglu(r->backend, &g, &g, &u));
    kernel_keep(r, &g);
}

/* T, F; a low cap, a high one, in place */
static inline void kernel_run_softcap(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_softcap(r->backend, &y, &x, 0.5f));
    kernel_keep(r, &y);
    check_ok(qz_op_softcap(r->backend, &x, &x, 30));
    kernel_keep(r, &x);
}

/* T, F */
static inline void kernel_run_scale(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), y = kernel_matrix(r, r->dims[0], r->dims[1]);
    kernel_spoil(&y);
    check_ok(qz_op_scale(r->backend, &y, &x, 59.8665f));
    kernel_keep(r, &y);
    check_ok(qz_op_scale(r->backend, &x, &x, -0.25f));
    kernel_keep(r, &x);
}

/* T, E, A; the first token's logits are all the same */
static inline void kernel_run_route(kernel_run *r)
{
    const int64_t t = r->dims[0], a = r->dims[2];
    qz_tensor logits = kernel_matrix(r, t, r->dims[1]), weight = kernel_matrix(r, t, a);
    int32_t *expert = kernel_indices(r, t * a, r->dims[1]);
    qz_tensor as_numbers = kernel_vector(r, QZ_F64, t * a);
    for (int e = 0; e < r->dims[1]; e++) ((float *)logits.data)[e] = 2;
    for (int i = 0; i < 2; i++) {
        kernel_spoil(&weight);
        check_ok(qz_op_route(r->backend, expert, &weight, &logits, i));
        kernel_keep(r, &weight);
        for (int64_t j = 0; j < t * a; j++) ((double *)as_numbers.data)[j] = expert[j];
        kernel_keep(r, &as_numbers);
    }
}

/* T, C, R: every (T / R)-th row of y */
static inline void kernel_run_add_rows(kernel_run *r)
{
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), x = kernel_matrix(r, r->dims[2], r->dims[1]);
    qz_tensor weight = kernel_vector(r, QZ_F32, r->dims[2]);
    int32_t *rows = qz_arena_array(r->arena, int32_t, (size_t)r->dims[2]);
    for (int i = 0; i < r->dims[2]; i++) rows[i] = i * (r->dims[0] / r->dims[2]);
    check_ok(qz_op_add_rows(r->backend, &y, &x, rows, &weight));
    kernel_keep(r, &y);
}

/* rows, cols */
static inline void kernel_run_add(kernel_run *r)
{
    qz_tensor y = kernel_matrix(r, r->dims[0], r->dims[1]), x = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor a = kernel_vector(r, QZ_F32, r->dims[1]), b = kernel_vector(r, QZ_F32, r->dims[1]);
    check_ok(qz_op_add(r->backend, &y, &x));
    check_ok(qz_op_add(r->backend, &a, &b));
    kernel_keep(r, &y);
    kernel_keep(r, &a);
}

/* T, K */
static inline void kernel_run_gram(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), g = kernel_matrix(r, r->dims[1], r->dims[1]);
    check_ok(qz_op_gram(r->backend, &g, &x));
    kernel_keep(r, &g); /* the upper triangle as well: it must stay */
}

/* T, K */
static inline void kernel_run_channel_stats(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]);
    qz_tensor max = kernel_vector(r, QZ_F32, r->dims[1]), sum = kernel_vector(r, QZ_F64, r->dims[1]);
    check_ok(qz_op_channel_stats(r->backend, &max, &sum, &x));
    kernel_keep(r, &max);
    kernel_keep(r, &sum);
}

/* N, K; the upper triangle is not a number: nobody may read it */
static inline void kernel_run_quadratic_form(kernel_run *r)
{
    qz_tensor d = kernel_matrix(r, r->dims[0], r->dims[1]), g = kernel_matrix(r, r->dims[1], r->dims[1]);
    qz_tensor out = kernel_vector(r, QZ_F64, r->dims[0]);
    for (int i = 0; i < r->dims[1]; i++) {
        for (int j = i + 1; j < r->dims[1]; j++) ((float *)g.data)[i * g.stride[0] + j] = NAN;
        ((float *)g.data)[i * g.stride[0] + i] += (float)r->dims[1];
    }
    check_ok(qz_op_quadratic_form(r->backend, &out, &d, &g));
    kernel_keep(r, &out);
}

/* T, V */
static inline void kernel_run_log_prob(kernel_run *r)
{
    qz_tensor z = kernel_matrix(r, r->dims[0], r->dims[1]), out = kernel_vector(r, QZ_F64, r->dims[0]);
    int32_t *target = kernel_indices(r, r->dims[0], r->dims[1]);
    if (r->dims[0] > 1) target[1] = -100;
    for (int64_t i = 0; i < r->dims[0] * z.stride[0]; i++) ((float *)z.data)[i] *= 8;
    check_ok(qz_op_log_prob(r->backend, &out, &z, target));
    kernel_keep(r, &out);
}

/* rows, cols; nothing, then one, then an earlier one */
static inline void kernel_run_first_nonfinite(kernel_run *r)
{
    static const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};
    const int64_t count = (int64_t)r->dims[0] * r->dims[1];
    for (int i = 0; i < 9; i++) {
        qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), found = kernel_vector(r, QZ_F64, 1), y = x;
        float *row = (float *)x.data;
        row[r->dims[1]] = NAN; /* between rows, or beyond the end */
        for (int spoiled = 0; spoiled < i % 3; spoiled++) {
            const int64_t at = (int64_t)qz_rng_below(&r->rng, (uint64_t)count);
            row[at / r->dims[1] * x.stride[0] + at % r->dims[1]] = spoiled ? -INFINITY : NAN;
        }
        if (types[i / 3] != QZ_F32) {
            y = kernel_matrix(r, r->dims[0], r->dims[1]);
            y.dtype = types[i / 3];
            check_ok(qz_op_convert(r->backend, &y, &x));
        }
        int64_t index;
        check_ok(qz_op_first_nonfinite(r->backend, &y, &index));
        *(double *)found.data = (double)index;
        kernel_keep(r, &found);
    }
}

/* T, K, group: every mode of every format, and in place; a row of zeros, one of tiny values, one of spikes */
static inline void kernel_run_round_activations(kernel_run *r)
{
    static const qz_format formats[] = {QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
    const int t = r->dims[0], k = r->dims[1];
    qz_tensor x = kernel_matrix(r, t, k), y = kernel_matrix(r, t, k);
    for (int i = 0; i < t * k; i++) {
        float *value = (float *)x.data + i / k * x.stride[0] + i % k;
        *value *= i / k % 5 == 1 ? 0 : i / k % 5 == 2 ? 1e-30f : i % 11 == 3 ? 900 : 1;
    }
    for (int i = 0; i < 24; i++) {
        const qz_act_scheme scheme = {.mode = (qz_act_mode)(QZ_ACT_TOKEN + i / 2 % 3),
                                      .format = formats[i / 6 % 3],
                                      .group = r->dims[2],
                                      .symmetric = i < 18,
                                      .divisor = i % 2 ? 127.5f : 127};
        const qz_act_values values = {.scale = i % 2 ? 0.031f : 7, .zero = i < 18 ? 0 : -37};
        kernel_spoil(&y);
        check_ok(qz_op_round_activations(r->backend, &y, &x, &scheme, &values));
        kernel_keep(r, &y);
    }
    const qz_act_scheme token = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};
    check_ok(qz_op_round_activations(r->backend, &x, &x, &token, NULL));
    kernel_keep(r, &x);
}

/* T, HK, D */
static inline void kernel_run_round_heads(kernel_run *r)
{
    static const qz_format formats[] = {QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
    const int t = r->dims[0], h = r->dims[1], d = r->dims[2];
    qz_tensor m = kernel_matrix(r, t, h * d), out = kernel_matrix(r, t, h * d);
    qz_tensor x = qz_tensor_3d(m.data, QZ_F32, t, h, d), y = qz_tensor_3d(out.data, QZ_F32, t, h, d);
    qz_tensor scale = kernel_vector(r, QZ_F32, h);
    x.stride[0] = y.stride[0] = m.stride[0];
    for (int i = 0; i < h; i++) ((float *)scale.data)[i] = 0.01f * (float)(i + 1);
    for (int i = 0; i < 3; i++) {
        kernel_spoil(&out);
        check_ok(qz_op_round_heads(r->backend, &y, &x, &scale, formats[i]));
        kernel_keep(r, &out);
    }
}

/* T, K; added to what is there */
static inline void kernel_run_histogram(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), out = kernel_vector(r, QZ_F64, QZ_HISTOGRAM_BINS);
    uint64_t *counts = qz_arena_calloc(r->arena, QZ_HISTOGRAM_BINS * sizeof *counts);
    cr_assert(counts != NULL);
    ((float *)x.data)[0] = -0.0f;
    for (int i = 0; i < 2; i++) check_ok(qz_op_histogram(r->backend, counts, &x));
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) ((double *)out.data)[i] = (double)counts[i];
    kernel_keep(r, &out);
}

/* (K) of M M^T + K I */
static inline void kernel_run_cholesky(kernel_run *r)
{
    const int64_t k = r->dims[0];
    qz_tensor m = kernel_matrix(r, k, k), a = kernel_vector(r, QZ_F64, qz_triangle_count(k));
    int64_t failed;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = i == j ? (double)k : 0;
            for (int64_t t = 0; t < k; t++)
                sum += (double)qz_f32(&m)[i * m.stride[0] + t] * qz_f32(&m)[j * m.stride[0] + t];
            qz_triangle_row(qz_triangle_of(a.data, k), i)[j] = sum;
        }
    check_ok(qz_op_cholesky(r->backend, &a, k, &failed));
    cr_assert(failed == -1);
    kernel_keep(r, &a);
}

/* (N, K) */
static inline void kernel_run_unit_solve(kernel_run *r)
{
    qz_tensor x = kernel_matrix(r, r->dims[0], r->dims[1]), l = kernel_matrix(r, r->dims[1], r->dims[1]);
    for (int64_t i = 0; i < l.shape[0] * l.stride[0]; i++)
        qz_f32(&l)[i] *= 0.05f; /* or the solution grows without bound */
    check_ok(qz_op_unit_solve(r->backend, &x, &l));
    kernel_keep(r, &x);
}

static inline qz_tensor kernel_bytes(kernel_run *r, int64_t rows, int64_t cols, int below)
{
    uint8_t *data = qz_arena_alloc(r->arena, (size_t)(rows * cols));
    cr_assert(data != NULL);
    for (int64_t i = 0; i < rows * cols; i++) data[i] = (uint8_t)qz_rng_below(&r->rng, (uint64_t)below);
    return qz_tensor_2d(data, QZ_U8, rows, cols);
}

/* (T, V) */
static inline void kernel_run_divergence_sums(kernel_run *r)
{
    const int64_t tokens = r->dims[0], size = r->dims[1];
    qz_tensor a = kernel_matrix(r, tokens, size), b = kernel_matrix(r, tokens, size);
    qz_tensor sums = kernel_vector(r, QZ_F64, tokens * QZ_DIVERGENCE_SUMS);
    sums = qz_tensor_2d(sums.data, QZ_F64, tokens, QZ_DIVERGENCE_SUMS);
    check_ok(qz_op_divergence_sums(r->backend, &sums, &a, &b));
    kernel_keep(r, &sums);
}

/* (N, K, G, format, symmetric, rule and narrow) */
static inline void kernel_run_round_columns(kernel_run *r)
{
    const int64_t n = r->dims[0], k = r->dims[1], groups = r->dims[2];
    const qz_scheme scheme = {.format = (qz_format)r->dims[3],
                              .symmetric = r->dims[4],
                              .zero_rule = r->dims[5] == 1 ? QZ_ROUND_SUM : QZ_ROUND_VALUE,
                              .narrow = r->dims[5] == 2};
    qz_tensor w = kernel_matrix(r, n, k), c = kernel_matrix(r, n, k), l = kernel_matrix(r, k, k);
    qz_tensor d = kernel_matrix(r, n, k), codes = kernel_bytes(r, n, k, 2), wide = kernel_vector(r, QZ_F64, n * k);
    qz_tensor loss = kernel_vector(r, QZ_F64, n), weight = kernel_vector(r, QZ_F64, k);
    qz_round_grids grids = {.scheme = &scheme, .scales = kernel_matrix(r, groups, n)};
    int32_t row[QZ_ROUND_COLUMNS];
    grids.row = row;
    for (int64_t i = 0; i < groups * grids.scales.stride[0]; i++)
        qz_f32(&grids.scales)[i] = 0.05f + fabsf(qz_f32(&grids.scales)[i]);
    for (int64_t i = 0; i < k * l.stride[0]; i++) qz_f32(&l)[i] *= 0.1f;
    for (int64_t i = 0; i < k; i++) row[i] = (int32_t)(i * 7 / 3 % groups);
    for (int64_t i = 0; i < n; i++) qz_f32(&c)[i * c.stride[0]] = 0; /* nothing added yet: w itself is rounded */
    if (!scheme.symmetric) grids.zeros = kernel_bytes(r, groups, n, 1 << qz_format_of(scheme.format)->bits);
    check_ok(qz_op_round_columns(r->backend, &codes, &d, &loss, &w, &c, &l, &weight, &grids));
    for (int64_t i = 0; i < n * k; i++) ((double *)wide.data)[i] = ((uint8_t *)codes.data)[i];
    kernel_keep(r, &wide);
    kernel_keep(r, &d);
    kernel_keep(r, &loss);
}

/* (N, K, piece columns or -flat, format, symmetric, piece rows) */
static inline void kernel_run_rounding_sums(kernel_run *r)
{
    const int64_t n = r->dims[0], k = r->dims[1];
    qz_scheme scheme = {.format = (qz_format)r->dims[3], .symmetric = r->dims[4], .piece_rows = r->dims[5]};
    qz_qtensor q;
    if (r->dims[2] < 0)
        scheme.flat = -r->dims[2];
    else
        scheme.piece_cols = r->dims[2];
    check_ok(qz_qtensor_alloc(&q, &scheme, n, k, r->arena));
    const int64_t pieces = qz_scheme_pieces(&scheme, n, k), runs = scheme.flat ? k / scheme.flat + 2 : pieces;
    qz_tensor w = kernel_matrix(r, n, k), weight = kernel_matrix(r, 1, k),
              sums = kernel_vector(r, QZ_F64, n * runs * 4);
    weight = qz_tensor_1d(weight.data, QZ_F32, k);
    for (int64_t i = 0; i < k; i++) qz_f32(&weight)[i] = fabsf(qz_f32(&weight)[i]);
    for (int64_t i = 0; i < pieces; i++) q.scales[i] = 0.1f + (float)qz_rng_double(&r->rng);
    for (int64_t i = 0; q.zeros && i < pieces; i++) q.zeros[i] = (uint8_t)qz_rng_below(&r->rng, 8);
    memset(sums.data, 0, (size_t)(n * runs * 4) * sizeof(double));
    sums = qz_tensor_2d(sums.data, QZ_F64, n, runs * 4);
    check_ok(qz_op_rounding_sums(r->backend, &sums, &w, &weight, &q));
    kernel_keep(r, &sums);
}

static const kernel_case kernel_cases[] = {
    {"convert", kernel_run_convert, 0, {{1, 1}, {7, 13}, {3, 40000}, {300, 257}}},
    {"embedding", kernel_run_embedding, 0, {{1, 1, 1}, {18, 40, 37}, {500, 131, 1000}}},
    {"rmsnorm", kernel_run_rmsnorm, TOL_KERNEL_ROUNDING, {{1, 1}, {27, 40}, {5, 8191}, {257, 96}, {2, 20000}}},
    {"linear",
     kernel_run_linear,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {513, 257, 65}, {300, 1100, 33}}},
    {"rope", kernel_run_rope, TOL_KERNEL_ROUNDING, {{1, 1, 2, 1}, {9, 4, 16, 12}, {300, 3, 62, 400}}},
    {"attention",
     kernel_run_attention,
     TOL_KERNEL_SUM,
     {{1, 1, 1, 1, 1, 1},
      {2, 9, 9, 4, 2, 16},
      {2, 5, 9, 4, 2, 16},
      {1, 131, 131, 2, 1, 33},
      {1, 67, 401, 3, 3, 24},
      {1, 300, 300, 2, 1, 64}}},
    {"swiglu", kernel_run_swiglu, TOL_KERNEL_ROUNDING, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"geglu", kernel_run_geglu, TOL_KERNEL_ROUNDING, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"softcap", kernel_run_softcap, TOL_KERNEL_ROUNDING, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"scale", kernel_run_scale, 0, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"route", kernel_run_route, 0, {{1, 1, 1}, {7, 4, 2}, {300, 128, 8}, {65, 5, 5}}},
    {"add_rows", kernel_run_add_rows, 0, {{1, 1, 1}, {9, 13, 4}, {600, 130, 150}, {300, 64, 300}}},
    {"add", kernel_run_add, 0, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"gram", kernel_run_gram, TOL_KERNEL_SUM, {{1, 1}, {18, 40}, {131, 257}, {1100, 97}, {64, 600}}},
    {"channel_stats", kernel_run_channel_stats, 0, {{1, 1}, {18, 40}, {131, 257}, {1100, 97}, {3, 5000}}},
    {"quadratic_form",
     kernel_run_quadratic_form,
     TOL_KERNEL_SUM,
     {{1, 1}, {37, 40}, {131, 257}, {600, 131}, {300, 600}}},
    {"log_prob", kernel_run_log_prob, TOL_KERNEL_SUM, {{1, 1}, {18, 37}, {5, 32003}, {300, 131}}},
    {"divergence_sums", kernel_run_divergence_sums, TOL_SAME_FP64, {{1, 1}, {18, 37}, {5, 32003}, {300, 131}}},
    {"first_nonfinite", kernel_run_first_nonfinite, 0, {{1, 2}, {7, 13}, {3, 40000}, {300, 257}}},
    {"round_activations", kernel_run_round_activations, 0, {{1, 1, 1}, {7, 13, 4}, {3, 20000, 128}, {300, 257, 64}}},
    {"round_heads", kernel_run_round_heads, 0, {{1, 1, 1}, {7, 3, 16}, {300, 2, 33}}},
    {"cholesky", kernel_run_cholesky, TOL_SAME_FP64, {{1}, {37}, {300}, {517}, {800}}}, /* the last in two bands */
    {"unit_solve", kernel_run_unit_solve, TOL_KERNEL_SUM, {{1, 1}, {7, 13}, {300, 128}, {517, 33}}},
    {"round_columns",
     kernel_run_round_columns,
     0, /* codes are decided here: bit for bit */
     {{1, 1, 1, QZ_FORMAT_INT4, 1, 0},
      {37, 128, 3, QZ_FORMAT_INT4, 0, 0},
      {19, 65, 2, QZ_FORMAT_INT3, 0, 1},
      {300, 33, 1, QZ_FORMAT_INT8, 1, 2},
      {16, 40, 2, QZ_FORMAT_FP8_E4M3, 1, 0},
      {15, 40, 2, QZ_FORMAT_FP8_E5M2, 1, 0},
      {48, 64, 4, QZ_FORMAT_NF4, 1, 0},
      {17, 64, 4, QZ_FORMAT_FP4, 1, 0}}},
    {"rounding_sums",
     kernel_run_rounding_sums,
     TOL_KERNEL_SUM,
     {{1, 1, 0, QZ_FORMAT_INT4, 1, 1},
      {37, 130, 32, QZ_FORMAT_INT4, 0, 1},
      {19, 600, 0, QZ_FORMAT_INT8, 1, 0},
      {33, 130, 64, QZ_FORMAT_FP8_E4M3, 1, 8},
      {16, 40, 0, QZ_FORMAT_FP8_E5M2, 1, 1},
      {48, 60, -64, QZ_FORMAT_NF4, 1, 0},
      {48, 60, -64, QZ_FORMAT_FP4, 1, 0}}},
    {"attention_grad",
     kernel_run_attention_grad,
     TOL_KERNEL_SUM,
     {{1, 1, 1, 1, 1, 1},
      {2, 9, 9, 4, 2, 16},
      {2, 5, 9, 4, 2, 16},
      {1, 131, 131, 2, 1, 33},
      {1, 37, 171, 3, 3, 24},
      {2, 390, 390, 2, 1, 5}}},
    {"fit_ranges", kernel_run_fit_ranges, 0, KERNEL_QUANTIZE_DIMS},
    {"fake_quant", kernel_run_fake_quant, 0, KERNEL_QUANTIZE_DIMS}, /* what is exported: bit for bit */
    {"fake_quant_grad", kernel_run_fake_quant_grad, TOL_KERNEL_ROUNDING, KERNEL_QUANTIZE_DIMS},
    {"fake_quant_activations",
     kernel_run_fake_quant_activations,
     0,
     {{1, 1, 1}, {7, 13, 4}, {3, 3001, 128}, {70, 264, 64}}},
    {"mask_grad", kernel_run_mask_grad, 0, {{1, 1}, {7, 13}, {3, 20000}, {300, 264}}},
    {"activation_scale_grad",
     kernel_run_activation_scale_grad,
     TOL_SAME_FP64,
     {{1, 1}, {7, 13}, {3, 20000}, {300, 264}}},
    {"linear_packed", kernel_run_linear_packed, TOL_KERNEL_SUM, KERNEL_QUANTIZE_DIMS},
    {"linear_packed_grad_x", kernel_run_linear_packed_grad_x, TOL_KERNEL_SUM, KERNEL_QUANTIZE_DIMS},
    {"histogram", kernel_run_histogram, 0, {{1, 1}, {7, 13}, {3, 300000}, {1300, 257}}},
    {"linear_grad_x",
     kernel_run_linear_grad_x,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {513, 65, 257}, {300, 33, 1100}}},
    {"linear_grad_w",
     kernel_run_linear_grad_w,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {1100, 65, 257}, {33, 300, 1100}}},
    {"linear_bf16",
     kernel_run_linear_bf16,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {513, 257, 65}, {300, 33, 1100}}},
    {"linear_grad_x_bf16",
     kernel_run_linear_grad_x_bf16,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {513, 65, 257}, {300, 1100, 33}}},
    {"linear_grad_w_bf16",
     kernel_run_linear_grad_w_bf16,
     TOL_KERNEL_SUM,
     {{1, 1, 1}, {1, 130, 64}, {18, 37, 40}, {127, 131, 137}, {1100, 65, 257}, {33, 300, 1100}}},
    {"column_sums", kernel_run_column_sums, TOL_KERNEL_ROUNDING, {{1, 1}, {18, 40}, {131, 257}, {1100, 97}, {3, 5000}}},
    {"embedding_grad", kernel_run_embedding_grad, 0, {{1, 1, 1}, {18, 40, 37}, {500, 131, 1000}, {300, 1030, 7}}},
    {"rmsnorm_grad",
     kernel_run_rmsnorm_grad,
     TOL_KERNEL_SUM,
     {{1, 1}, {27, 40}, {5, 8191}, {257, 96}, {2, 20000}, {1500, 131}}},
    {"swiglu_grad", kernel_run_swiglu_grad, TOL_KERNEL_ROUNDING, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"geglu_grad", kernel_run_geglu_grad, TOL_KERNEL_EXP, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"softcap_grad", kernel_run_softcap_grad, TOL_KERNEL_ROUNDING, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"multiply", kernel_run_multiply, 0, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"add_scaled", kernel_run_add_scaled, 0, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"dropout", kernel_run_dropout, 0, {{1, 1}, {3, 40}, {33, 1021}, {2, 40000}}},
    {"cross_entropy", kernel_run_cross_entropy, TOL_KERNEL_ROUNDING, {{1, 1}, {18, 37}, {5, 32003}, {300, 131}}},
    {"distill", kernel_run_distill, TOL_KERNEL_ROUNDING, {{1, 1}, {18, 37}, {5, 32003}, {300, 131}}},
    {"adamw", kernel_run_adamw, 0, {{1}, {37}, {16385}, {100003}}},
    {"adamw_8bit", kernel_run_adamw_8bit, 0, {{1}, {300}, {1024}, {50003}}},
    {"square_sum", kernel_run_square_sum, TOL_SAME_FP64, {{1, 1}, {18, 37}, {5, 32003}, {1300, 257}}},
};
enum { KERNEL_CASES = sizeof kernel_cases / sizeof *kernel_cases };

/* Outputs live in `arena`. */
static inline kernel_run kernel_case_run(const kernel_case *c, int shape, const qz_backend *backend, qz_arena *arena)
{
    kernel_run r = {.backend = backend, .dims = c->dims[shape], .arena = arena};
    qz_rng_seed(&r.rng, 11, (uint64_t)shape);
    c->run(&r);
    return r;
}

#endif
