/* What the wrappers refuse, and an operation that a backend lacks. */
#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "kernels/kernels.h"
#include "testing/testing.h"

static float buffer[4096];
static double wide[64];
static int32_t index_of[64];

static qz_tensor matrix(int64_t rows, int64_t cols)
{
    return qz_tensor_2d(buffer, QZ_F32, rows, cols);
}

static const qz_backend *ref(void)
{
    return qz_backend_at(0);
}

Test(kernels_ops, ref_has_no_empty_slot)
{
#define QZ_OP(op, args) cr_expect(ref()->op != NULL, "ref lacks %s", #op);
#include "kernels/ops.def"
#undef QZ_OP
    cr_assert(ref()->available() && ref()->describe()[0] && ref()->warning() == NULL);
}

Test(kernels_ops, empty_slot_names_operation_and_backend)
{
    static const qz_backend empty = {.plugin = {.name = "toy", .help = "has nothing", .source = ""}};
    qz_tensor t = matrix(1, 1);
    int64_t i;
#define REFUSED(op, ...)                                                                                               \
    check_fails(QZ_UNSUPPORTED, "backend toy has no operation " #op, qz_op_##op(&empty, __VA_ARGS__));
    REFUSED(convert, &t, &t)
    REFUSED(embedding, &t, &t, index_of)
    REFUSED(rmsnorm, &t, &t, &t, 0, 0)
    REFUSED(linear, &t, &t, &t, NULL, false)
    REFUSED(rope, &t, &t, &t, index_of, false)
    REFUSED(attention, &t, NULL, &t, &t, &t, NULL)
    REFUSED(attention_grad, &t, &t, &t, &t, &t, &t, &t, &t, &t, &t, NULL)
    REFUSED(swiglu, &t, &t, &t)
    REFUSED(geglu, &t, &t, &t)
    REFUSED(softcap, &t, &t, 1)
    REFUSED(scale, &t, &t, 1)
    REFUSED(route, index_of, &t, &t, false)
    REFUSED(add_rows, &t, &t, index_of, &t)
    REFUSED(add, &t, &t)
    REFUSED(gram, &t, &t)
    REFUSED(channel_stats, &t, &t, &t)
    REFUSED(quadratic_form, &t, &t, &t)
    REFUSED(log_prob, &t, &t, index_of)
    REFUSED(divergence_sums, &t, &t, &t)
    REFUSED(first_nonfinite, &t, &i)
    REFUSED(cholesky, &t, 1, &i)
    REFUSED(unit_solve, &t, &t)
    REFUSED(round_columns, &t, &t, &t, &t, &t, &t, &t, NULL)
    REFUSED(rounding_sums, &t, &t, &t, NULL)
    REFUSED(fit_ranges, NULL, &t)
    REFUSED(fake_quant, &t, &t, NULL)
    REFUSED(fake_quant_grad, &t, NULL, NULL, &t, &t, NULL, QZ_STE_PASS, 1)
    REFUSED(fake_quant_activations, &t, NULL, &t, NULL, NULL)
    REFUSED(mask_grad, &t, &t, &t)
    REFUSED(activation_scale_grad, NULL, &t, &t, NULL, NULL, 1)
    REFUSED(linear_packed, &t, &t, NULL, NULL, false, &t)
    REFUSED(linear_packed_grad_x, &t, &t, NULL, false, &t)
    REFUSED(linear_grad_x, &t, &t, &t, false)
    REFUSED(linear_grad_w, &t, &t, &t)
    REFUSED(linear_bf16, &t, &t, &t, NULL, false)
    REFUSED(linear_grad_x_bf16, &t, &t, &t, false)
    REFUSED(linear_grad_w_bf16, &t, &t, &t)
    REFUSED(column_sums, &t, &t)
    REFUSED(embedding_grad, &t, &t, index_of, 1)
    REFUSED(rmsnorm_grad, &t, &t, &t, &t, &t, 0, 0, false)
    REFUSED(swiglu_grad, &t, &t, &t, &t, &t)
    REFUSED(geglu_grad, &t, &t, &t, &t, &t)
    REFUSED(softcap_grad, &t, &t, &t, 1)
    REFUSED(multiply, &t, &t, &t)
    REFUSED(add_scaled, &t, &t, 1)
    REFUSED(dropout, &t, &t, 0, 0, 0)
    REFUSED(cross_entropy, &t, &t, &t, index_of, 1, false)
    REFUSED(distill, &t, &t, &t, &t, NULL, 1, 1, false)
    REFUSED(adamw, &t, &t, &t, &t, NULL)
    REFUSED(adamw_8bit, &t, &t, &t, &t, &t, &t, NULL)
    REFUSED(square_sum, NULL, &t)
}

Test(kernels_ops, shapes_that_disagree_name_both)
{
    qz_tensor y = matrix(18, 37), x = matrix(18, 40), w = matrix(37, 41), bias = qz_tensor_1d(buffer, QZ_F32, 36);
    check_fails(QZ_SHAPE, "linear: w (N,K) is (37, 41): K is 41, but 40 in x",
                qz_op_linear(ref(), &y, &x, &w, NULL, 0));
    w = matrix(37, 40);
    check_fails(QZ_SHAPE, "linear: bias (N) is (36): N is 36, but 37 in w", qz_op_linear(ref(), &y, &x, &w, &bias, 0));
    check_fails(QZ_SHAPE, "gram: g (K,K) is (18, 37): K is 18, but 40 in x", qz_op_gram(ref(), &y, &x));
    check_fails(QZ_SHAPE, "add: y is (18, 40), but x is (18, 37)", qz_op_add(ref(), &x, &y));
}

Test(kernels_ops, ranks)
{
    qz_tensor x = matrix(2, 4), cube = qz_tensor_3d(buffer, QZ_F32, 2, 2, 2), none = {.data = buffer, .dtype = QZ_F32};
    check_fails(QZ_SHAPE, "swiglu: gate is (2, 2, 2), expected (T,F)", qz_op_swiglu(ref(), &x, &cube, &x));
    check_fails(QZ_SHAPE, "rope: x is (2, 4), expected (T,H,D)", qz_op_rope(ref(), &x, &x, &x, index_of, false));
    check_fails(QZ_SHAPE, "add: x has 0 dimensions", qz_op_add(ref(), &x, &none));
}

Test(kernels_ops, extents_and_strides)
{
    qz_tensor x = matrix(2, 4), y = matrix(2, 4);
    int64_t i;
    x.shape[0] = 0;
    check_fails(QZ_SHAPE, "x (0, 4)", qz_op_first_nonfinite(ref(), &x, &i));
    x.shape[0] = (int64_t)1 << 31;
    check_fails(QZ_SHAPE, "extents are 1 to 2^31 - 1", qz_op_first_nonfinite(ref(), &x, &i));
    x = matrix(2, 4);
    x.stride[1] = 2;
    check_fails(QZ_SHAPE, "stride 2 in dimension 1", qz_op_add(ref(), &y, &x));
    x = matrix(2, 4);
    x.stride[0] = 3;
    check_fails(QZ_SHAPE, "stride 3 in dimension 0", qz_op_add(ref(), &y, &x));
    x = qz_tensor_3d(buffer, QZ_F32, 2, 2, 2);
    x.stride[0] = 8;
    check_fails(QZ_SHAPE, "must be contiguous", qz_op_first_nonfinite(ref(), &x, &i));
}

Test(kernels_ops, types_data_and_device)
{
    qz_tensor x = matrix(2, 4), y = matrix(2, 4), sum = qz_tensor_1d(buffer, QZ_F32, 4);
    x.dtype = QZ_I32;
    check_fails(QZ_UNSUPPORTED, "x has type I32, allowed: F32, F16, BF16, F8_E4M3, F8_E5M2",
                qz_op_convert(ref(), &y, &x));
    x = matrix(2, 4);
    check_fails(QZ_UNSUPPORTED, "abssum has type F32, allowed: F64", qz_op_channel_stats(ref(), &sum, &sum, &x));
    x.device = QZ_CUDA;
    check_fails(QZ_DEVICE, "x is not in the memory of backend ref", qz_op_add(ref(), &y, &x));
    x = matrix(2, 4);
    x.data = NULL;
    check_fails(QZ_ARG, "x has no data", qz_op_add(ref(), &y, &x));
}

Test(kernels_ops, indices)
{
    qz_tensor y = matrix(3, 4), table = matrix(5, 4), out = qz_tensor_1d(wide, QZ_F64, 3);
    qz_tensor x = qz_tensor_3d(buffer, QZ_F32, 3, 1, 4), cos = matrix(5, 2);
    index_of[0] = index_of[1] = 4;
    index_of[2] = 5;
    check_fails(QZ_ARG, "ids[2] is 5", qz_op_embedding(ref(), &y, &table, index_of));
    check_fails(QZ_ARG, "positions[2] is 5", qz_op_rope(ref(), &x, &cos, &cos, index_of, false));
    check_fails(QZ_ARG, "target[0] is 4", qz_op_log_prob(ref(), &out, &y, index_of));
    index_of[2] = -1;
    check_fails(QZ_ARG, "ids[2] is -1", qz_op_embedding(ref(), &y, &table, index_of));
    check_fails(QZ_ARG, "ids has no data", qz_op_embedding(ref(), &y, &table, NULL));
    index_of[0] = index_of[1] = -100;
    check_ok(qz_op_log_prob(ref(), &out, &y, index_of));
    cr_assert(wide[0] == 0 && wide[2] == 0);
}

Test(kernels_ops, divergence_sums_have_a_width)
{
    qz_tensor a = matrix(3, 4), b = matrix(3, 5), sums = qz_tensor_2d(wide, QZ_F64, 3, 2);
    check_fails(QZ_SHAPE, "V is 5, but 4 in a", qz_op_divergence_sums(ref(), &sums, &a, &b));
    check_fails(QZ_SHAPE, "sums has 2 columns, expected 7", qz_op_divergence_sums(ref(), &sums, &a, &a));
}

Test(kernels_ops, attention_and_rope_rules)
{
    const qz_attention how = {.scale = 1};
    qz_tensor q = qz_tensor_4d(buffer, QZ_F32, 1, 4, 3, 2), y = q, k = qz_tensor_4d(buffer, QZ_F32, 1, 3, 3, 2);
    check_fails(QZ_SHAPE, "3 keys for 4 queries", qz_op_attention(ref(), &y, NULL, &q, &k, &k, &how));
    k = qz_tensor_4d(buffer, QZ_F32, 1, 4, 2, 2);
    check_fails(QZ_SHAPE, "3 query heads do not divide into 2", qz_op_attention(ref(), &y, NULL, &q, &k, &k, &how));
    qz_tensor x = qz_tensor_3d(buffer, QZ_F32, 1, 1, 5), cos = matrix(1, 2);
    check_fails(QZ_SHAPE, "heads of 5", qz_op_rope(ref(), &x, &cos, &cos, index_of, false));
}

Test(kernels_ops, routing_and_caps)
{
    qz_tensor logits = matrix(3, 4), weight = matrix(3, 5), y = matrix(3, 4), w = qz_tensor_1d(buffer, QZ_F32, 3);
    check_fails(QZ_SHAPE, "5 experts for a token, but there are 4",
                qz_op_route(ref(), index_of, &weight, &logits, false));
    weight = matrix(3, 4);
    check_fails(QZ_ARG, "expert has no data", qz_op_route(ref(), NULL, &weight, &logits, false));
    index_of[0] = 0, index_of[1] = 2, index_of[2] = 2;
    check_fails(QZ_ARG, "rows[2] is 2 after 2", qz_op_add_rows(ref(), &y, &logits, index_of, &w));
    index_of[2] = 3;
    check_fails(QZ_ARG, "rows[2] is 3", qz_op_add_rows(ref(), &y, &logits, index_of, &w));
    check_fails(QZ_ARG, "the cap is 0", qz_op_softcap(ref(), &y, &logits, 0));
    check_fails(QZ_ARG, "the cap is nan", qz_op_softcap(ref(), &y, &logits, NAN));
}

/* Every index is one of the experts, also where a logit is not a number. */
Test(kernels_ops, routing_of_nan_stays_in_range)
{
    float z[8] = {NAN, 1, 3, 2, NAN, NAN, NAN, NAN}, p[4];
    qz_tensor logits = qz_tensor_2d(z, QZ_F32, 2, 4), weight = qz_tensor_2d(p, QZ_F32, 2, 2);
    for (size_t b = 0; b < 2; b++) {
        check_ok(qz_op_route(qz_backend_at(b), index_of, &weight, &logits, true));
        for (int i = 0; i < 4; i++) cr_assert(index_of[i] >= 0 && index_of[i] < 4);
        cr_assert(index_of[0] != index_of[1] && index_of[2] != index_of[3]);
    }
}

Test(kernels_ops, rounding_rules)
{
    qz_tensor x = matrix(2, 4), y = x, heads = qz_tensor_3d(buffer, QZ_F32, 2, 2, 2);
    float scales[2] = {1, -1};
    const qz_tensor scale = qz_tensor_1d(scales, QZ_F32, 2);
    qz_act_scheme s = {.mode = QZ_ACT_NONE, .format = QZ_FORMAT_INT8, .symmetric = true};
    check_fails(QZ_ARG, "rounds nothing", qz_op_round_activations(ref(), &y, &x, &s, NULL));
    s.mode = QZ_ACT_TOKEN;
    check_fails(QZ_ARG, "must be 127 or 127.5", qz_op_round_activations(ref(), &y, &x, &s, NULL));
    s.mode = QZ_ACT_GROUP;
    check_fails(QZ_ARG, "a group of 0", qz_op_round_activations(ref(), &y, &x, &s, NULL));
    s.mode = QZ_ACT_TENSOR;
    check_fails(QZ_ARG, "scale 0", qz_op_round_activations(ref(), &y, &x, &s, NULL));
    check_fails(QZ_ARG, "scale inf", qz_op_round_activations(ref(), &y, &x, &s, &(qz_act_values){INFINITY, 0}));
    s.format = QZ_FORMAT_INT4;
    check_fails(QZ_UNSUPPORTED, "int4, allowed: int8", qz_op_round_activations(ref(), &y, &x, &s, NULL));
    check_fails(QZ_UNSUPPORTED, "bf16, allowed: int8",
                qz_op_round_heads(ref(), &heads, &heads, &scale, QZ_FORMAT_BF16));
    check_fails(QZ_ARG, "scale of head 1 is -1", qz_op_round_heads(ref(), &heads, &heads, &scale, QZ_FORMAT_INT8));
    check_fails(QZ_ARG, "counts has no data", qz_op_histogram(ref(), NULL, &x));
}

Test(kernels_ops, round_columns_refuses_what_it_cannot_do)
{
    static uint8_t bytes[256];
    const qz_scheme scheme = {.format = QZ_FORMAT_INT4, .symmetric = true}, plain = {.format = QZ_FORMAT_F16};
    qz_tensor w = matrix(1, 129), few = matrix(1, 4), l = matrix(4, 4), codes = qz_tensor_2d(bytes, QZ_U8, 1, 129);
    qz_tensor four = qz_tensor_2d(bytes, QZ_U8, 1, 4), loss = qz_tensor_1d(wide, QZ_F64, 1);
    qz_tensor weight = qz_tensor_1d(wide, QZ_F64, 4), long_weight = qz_tensor_1d(wide, QZ_F64, 129);
    qz_tensor square = qz_tensor_2d(malloc(129 * 129 * sizeof(float)), QZ_F32, 129, 129);
    qz_round_grids grids = {.scheme = &plain, .scales = matrix(1, 1), .row = index_of};
    check_fails(QZ_UNSUPPORTED, "format fp16 has no codes",
                qz_op_round_columns(ref(), &four, &few, &loss, &few, &few, &l, &weight, &grids));
    grids.scheme = &scheme;
    check_fails(QZ_SHAPE, "129 columns, at most 128",
                qz_op_round_columns(ref(), &codes, &w, &loss, &w, &w, &square, &long_weight, &grids));
    grids.scales = matrix(1, 2);
    check_fails(QZ_SHAPE, "scales", qz_op_round_columns(ref(), &four, &few, &loss, &few, &few, &l, &weight, &grids));
    grids.scales = matrix(1, 1);
    index_of[3] = 1;
    check_fails(QZ_ARG, "row[3] is 1", qz_op_round_columns(ref(), &four, &few, &loss, &few, &few, &l, &weight, &grids));
    index_of[3] = 0;
    free(square.data);
}

Test(kernels_ops, cholesky_names_the_pivot_that_fails)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        enum { K = 300 };
        double *a = calloc((size_t)qz_triangle_count(K), sizeof *a);
        const qz_triangle t = qz_triangle_of(a, K);
        qz_tensor view = qz_tensor_1d(a, QZ_F64, qz_triangle_count(K));
        int64_t failed;
        for (int i = 0; i < K; i++) qz_triangle_row(t, i)[i] = i == 270 ? -1 : 1;
        check_ok(qz_op_cholesky(qz_backend_at(b), &view, K, &failed));
        cr_assert(failed == 270, "%ld", (long)failed);
        for (int i = 0; i < K; i++) qz_triangle_row(t, i)[i] = i == 5 ? NAN : 1;
        check_ok(qz_op_cholesky(qz_backend_at(b), &view, K, &failed));
        cr_assert(failed == 5, "%ld", (long)failed);
        check_fails(QZ_SHAPE, "cholesky: a has 90000 elements, but the triangle of 299 rows has 89401",
                    qz_op_cholesky(qz_backend_at(b), &view, K - 1, &failed));
        free(a);
    }
}
