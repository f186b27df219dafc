/* What the wrappers of attention and of training through a quantizer refuse, and what their sentences say; a packed
 * product, whose workspace holds some of the rows, is that with all of them. */
#include <math.h>

#include "kernels/kernels.h"
#include "testing/testing.h"

static float buffer[1024], scales[64], more[64];
static uint8_t bytes[256];

static const qz_backend *ref(void)
{
    return qz_backend_at(0);
}

static qz_tensor matrix(int64_t rows, int64_t cols)
{
    return qz_tensor_2d(buffer, QZ_F32, rows, cols);
}

static qz_qtensor grids(qz_format format, bool symmetric)
{
    qz_qtensor q = {.scheme = {.format = format, .symmetric = symmetric, .piece_rows = 1}, .rows = 3, .cols = 8};
    for (int i = 0; i < 64; i++) scales[i] = 1;
    q.scales = scales;
    if (!symmetric) q.zeros = bytes;
    return q;
}

Test(kernels_quantize, grids_must_fit)
{
    qz_tensor w = matrix(3, 8), wide = matrix(3, 9);
    qz_qtensor q = grids(QZ_FORMAT_INT4, true);
    int32_t permutation[8] = {0};
    check_fails(QZ_SHAPE, "q is (3, 8), but w (3, 9)", qz_op_fake_quant(ref(), &wide, &wide, &q));
    q.permutation = permutation;
    check_fails(QZ_UNSUPPORTED, "permutation", qz_op_fit_ranges(ref(), &q, &w));
    q = grids(QZ_FORMAT_INT4, true);
    q.scales = NULL;
    check_fails(QZ_ARG, "q has no scales", qz_op_fake_quant(ref(), &w, &w, &q));
    q = grids(QZ_FORMAT_BF16, true);
    check_fails(QZ_UNSUPPORTED, "bf16 has no codes", qz_op_fake_quant(ref(), &w, &w, &q));
    q = grids(QZ_FORMAT_NF4, true);
    q.scheme.double_quant = true;
    check_fails(QZ_ARG, "no codes of scales", qz_op_fake_quant(ref(), &w, &w, &q));
}

Test(kernels_quantize, gradients_of_grids)
{
    qz_tensor w = matrix(3, 8), three = qz_tensor_1d(more, QZ_F32, 3), four = qz_tensor_1d(more, QZ_F32, 4);
    qz_qtensor q = grids(QZ_FORMAT_INT4, true);
    check_fails(QZ_SHAPE, "one element for each of 3 pieces, it has 4",
                qz_op_fake_quant_grad(ref(), &w, &four, NULL, &w, &w, &q, QZ_STE_LSQ, 1));
    check_fails(QZ_ARG, "q has no zeros", qz_op_fake_quant_grad(ref(), &w, NULL, &three, &w, &w, &q, QZ_STE_LSQ, 1));
    q = grids(QZ_FORMAT_NF4, true);
    q.scheme.double_quant = true;
    q.scale_codes = bytes;
    q.second_scales = more;
    check_fails(QZ_UNSUPPORTED, "cannot be learned",
                qz_op_fake_quant_grad(ref(), &w, &three, NULL, &w, &w, &q, QZ_STE_LSQ, 1));
}

Test(kernels_quantize, masks_and_static_scales)
{
    qz_tensor x = matrix(3, 9), mask = qz_tensor_1d(bytes, QZ_U8, 3);
    const qz_act_scheme token = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};
    double sum = 0;
    check_fails(QZ_SHAPE, "mask has 3 bytes, 4 are needed",
                qz_op_fake_quant_activations(ref(), &x, &mask, &x, &token, NULL));
    check_fails(QZ_SHAPE, "mask has 3 bytes, 4 are needed", qz_op_mask_grad(ref(), &x, &x, &mask));
    check_fails(QZ_ARG, "dynamic", qz_op_activation_scale_grad(ref(), &sum, &x, &x, &token, NULL, 1));
}

Test(kernels_quantize, packed_matrices)
{
    qz_tensor x = matrix(2, 8), y = matrix(2, 3), narrow = matrix(2, 4), room = matrix(2, 8), other = matrix(2, 7);
    qz_tensor eight = qz_tensor_1d(more, QZ_F32, 8);
    qz_packed p = {.q = grids(QZ_FORMAT_INT4, true), .words = bytes};
    check_fails(QZ_SHAPE, "w is (3, 8), expected (4, 8)",
                qz_op_linear_packed(ref(), &narrow, &x, &p, NULL, false, &room));
    check_fails(QZ_SHAPE, "room (R,K) is (2, 7)", qz_op_linear_packed(ref(), &y, &x, &p, NULL, false, &other));
    check_fails(QZ_SHAPE, "w is (3, 8), expected (4, 8)",
                qz_op_linear_packed_grad_x(ref(), &x, &narrow, &p, false, &room));
    check_fails(QZ_SHAPE, "bias (N) is (8)", qz_op_linear_packed(ref(), &y, &x, &p, &eight, false, &room));
    p.words = NULL;
    check_fails(QZ_ARG, "no codes or no scales", qz_op_linear_packed(ref(), &y, &x, &p, NULL, false, &room));
}

Test(kernels_quantize, packed_product_and_bias)
{
    enum { T = 3, N = 5, K = 8, ROWS = 2 };
    float room[ROWS * K], plain[T * N], packed[T * N];
    for (int i = 0; i < 64; i++) buffer[i] = (float)(i * 7 % 11) - 5;
    qz_tensor x = matrix(T, K), w = qz_tensor_2d(buffer + T * K, QZ_F32, N, K);
    qz_tensor bias = qz_tensor_1d(buffer + 1, QZ_F32, N), some = qz_tensor_2d(room, QZ_F32, ROWS, K);
    qz_tensor y = qz_tensor_2d(plain, QZ_F32, T, N), z = qz_tensor_2d(packed, QZ_F32, T, N);
    qz_packed p = qz_packed_plain(&w);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < T * N; j++) plain[j] = packed[j] = i % 2 ? (float)j : NAN;
        check_ok(qz_op_linear(ref(), &y, &x, &w, i < 2 ? &bias : NULL, i % 2));
        check_ok(qz_op_linear_packed(ref(), &z, &x, &p, i < 2 ? &bias : NULL, i % 2, &some));
        cr_assert_arr_eq(packed, plain, sizeof plain);
    }
}

Test(kernels_quantize, documents)
{
    int32_t first[6] = {0, 0, 2, 0, 2, 2};
    qz_attention how = {.scale = 1, .first = first};
    qz_tensor q = qz_tensor_4d(buffer, QZ_F32, 2, 3, 1, 2), k = qz_tensor_4d(buffer, QZ_F32, 2, 4, 1, 2), y = q;
    check_fails(QZ_ARG, "first[1, 1] is 2, must be 0 to 1", qz_op_attention(ref(), &y, NULL, &q, &q, &q, &how));
    first[4] = -1;
    check_fails(QZ_ARG, "first[1, 1] is -1", qz_op_attention(ref(), &y, NULL, &q, &q, &q, &how));
    check_fails(QZ_SHAPE, "3 queries and 4 keys", qz_op_attention(ref(), &y, NULL, &q, &k, &k, &how));
    qz_tensor lse = qz_tensor_3d(more, QZ_F32, 2, 3, 2);
    how.first = NULL;
    check_fails(QZ_SHAPE, "H is 2, but 1 in q", qz_op_attention(ref(), &y, &lse, &q, &k, &k, &how));
}

/* A document of one token attends to itself alone: its output is its value, its log-sum-exp its score. */
Test(kernels_quantize, a_document_of_one_token)
{
    float q[4] = {1, 2, 3, 4}, y[4], lse[2];
    int32_t first[2] = {0, 1};
    const qz_attention how = {.scale = 0.5f, .first = first};
    qz_tensor x = qz_tensor_4d(q, QZ_F32, 1, 2, 1, 2), out = qz_tensor_4d(y, QZ_F32, 1, 2, 1, 2);
    qz_tensor sums = qz_tensor_3d(lse, QZ_F32, 1, 2, 1);
    for (size_t b = 0; b < 2; b++) {
        check_ok(qz_op_attention(qz_backend_at(b), &out, &sums, &x, &x, &x, &how));
        for (int i = 0; i < 4; i++) cr_assert(y[i] == q[i], "%g", y[i]);
        cr_assert(lse[0] == 2.5f && lse[1] == 12.5f, "%g %g", lse[0], lse[1]);
    }
}

/* ---- where a gradient passes, at ties and bounds ---- */

enum { STEPS = 201 };

static float steps[STEPS], ones[STEPS], out[STEPS];

/* Of w = -25, -24.75, ... 25 with scale 1. */
static void check_passing(const qz_backend *backend, const qz_qtensor *q, qz_ste rule, double low, double high)
{
    qz_tensor w = qz_tensor_2d(steps, QZ_F32, 1, STEPS), dy = qz_tensor_2d(ones, QZ_F32, 1, STEPS);
    qz_tensor dw = qz_tensor_2d(out, QZ_F32, 1, STEPS);
    check_ok(qz_op_fake_quant_grad(backend, &dw, NULL, NULL, &dy, &w, q, rule, 1));
    for (int i = 0; i < STEPS; i++) {
        const double x = (double)steps[i];
        const bool passes = rule == QZ_STE_PASS   ? true
                            : rule == QZ_STE_CLIP ? rint(x) >= low && rint(x) <= high
                                                  : x > low && x < high;
        cr_assert((out[i] == 1) == passes && (out[i] == 0) == !passes, "%s, rule %d: %g, bounds %g and %g",
                  backend->plugin.name, rule, x, low, high);
    }
}

Test(kernels_quantize, whole_codes_pass_up_to_their_bounds)
{
    static const struct {
        bool symmetric, narrow;
        int zero;
        double low, high;
    } grid[] = {{true, false, 8, -8, 7}, {true, true, 8, -7, 7}, {false, false, 3, -3, 12}, {false, false, 0, 0, 15}};
    for (int i = 0; i < STEPS; i++) {
        steps[i] = 0.25f * (float)i - 25;
        ones[i] = 1;
    }
    for (int i = 0; i < 4 * 2 * 2 * 3; i++) {
        const int g = i % 4;
        qz_qtensor q = grids(QZ_FORMAT_INT4, grid[g].symmetric);
        q.rows = 1;
        q.cols = STEPS;
        q.scheme.narrow = grid[g].narrow;
        q.scheme.zero_rule = i / 4 % 2 ? QZ_ROUND_SUM : QZ_ROUND_VALUE;
        if (q.zeros) q.zeros[0] = (uint8_t)grid[g].zero;
        /* rint of a sum with an odd zero: ties go the other way, so the codes themselves decide */
        if (i / 4 % 2 && grid[g].zero % 2) continue;
        check_passing(qz_backend_at((size_t)(i / 8 % 2)), &q, (qz_ste)(i / 16), grid[g].low, grid[g].high);
    }
}

Test(kernels_quantize, floating_codes_pass_until_they_saturate)
{
    static const struct {
        qz_format format;
        float w;
        bool clip, lsq;
    } rows[] = {{QZ_FORMAT_FP8_E4M3, 464, true, false},
                {QZ_FORMAT_FP8_E4M3, 464.001f, false, false},
                {QZ_FORMAT_FP8_E4M3, -447.99f, true, true},
                {QZ_FORMAT_FP8_E4M3, -448, true, false},
                {QZ_FORMAT_FP8_E5M2, 61439.99f, true, false},
                {QZ_FORMAT_FP8_E5M2, 61440, false, false},
                {QZ_FORMAT_FP8_E5M2, -57344, true, false},
                {QZ_FORMAT_FP8_E5M2, -57343, true, true},
                {QZ_FORMAT_NF4, 1, true, false},
                {QZ_FORMAT_NF4, -1.0001f, false, false},
                {QZ_FORMAT_NF4, 0.999f, true, true}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        float w = rows[i / 2].w, dy = 1, dw;
        qz_tensor x = qz_tensor_2d(&w, QZ_F32, 1, 1), d = qz_tensor_2d(&dy, QZ_F32, 1, 1);
        qz_tensor got = qz_tensor_2d(&dw, QZ_F32, 1, 1);
        qz_qtensor q = grids(rows[i / 2].format, true);
        q.rows = q.cols = 1;
        check_ok(qz_op_fake_quant_grad(qz_backend_at(i % 2), &got, NULL, NULL, &d, &x, &q, QZ_STE_CLIP, 1));
        cr_assert((dw == 1) == rows[i / 2].clip, "clip %g", w);
        check_ok(qz_op_fake_quant_grad(qz_backend_at(i % 2), &got, NULL, NULL, &d, &x, &q, QZ_STE_LSQ, 1));
        cr_assert((dw == 1) == rows[i / 2].lsq, "lsq %g", w);
    }
}

Test(kernels_quantize, activations_pass_up_to_their_bounds)
{
    float x[8] = {-128.75f, -128.5f, -128, 0, 127, 127.25f, 127.5f, 128}, y[8];
    const qz_act_scheme s = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true};
    const qz_act_values v = {1, 0};
    for (size_t b = 0; b < 2; b++) {
        uint8_t bits = 0xaa;
        qz_tensor in = qz_tensor_2d(x, QZ_F32, 1, 8), to = qz_tensor_2d(y, QZ_F32, 1, 8);
        qz_tensor mask = qz_tensor_1d(&bits, QZ_U8, 1);
        check_ok(qz_op_fake_quant_activations(qz_backend_at(b), &to, &mask, &in, &s, &v));
        cr_assert(bits == 0x3e, "%x", bits);
        cr_assert(y[0] == -128 && y[5] == 127 && y[7] == 127);
    }
}
