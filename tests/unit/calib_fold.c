/* Folds by hand: small layers whose norms and weights are written out, in the arithmetic of the definition. */
#include "calib/fold.h"

#include <math.h>

#include "testing/testing.h"

enum { C = 4, N = 3 };

/* A layer whose four inputs are C wide and whose linears are (N, C), each weight 1 + its index. */
typedef struct small_layer {
    qz_layer layer;
    qz_linear part[QZ_ROLES];
    float norm[2][C], weight[QZ_ROLES][N * C], bias[QZ_ROLES][N];
} small_layer;

static void fill(small_layer *s)
{
    memset(s, 0, sizeof *s);
    s->layer.part = s->part;
    s->layer.experts = 1;
    for (int role = 0; role < QZ_ROLES; role++) {
        for (int i = 0; i < N * C; i++) s->weight[role][i] = 1.0f + (float)i;
        s->part[role].weight = qz_tensor_2d(s->weight[role], QZ_F32, N, C);
    }
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < C; k++) s->norm[i][k] = 1.0f;
        s->layer.norm[i] = qz_tensor_1d(s->norm[i], QZ_F32, C);
    }
}

static void check_near(float found, float expected, const char *what)
{
    cr_assert(found == expected, "%s: found %.9g, expected %.9g", what, found, expected);
}

Test(fold, moves_a_factor_from_the_norm_into_its_readers_only)
{
    small_layer s;
    float scale[C] = {2.0f, 0.5f, 1.0f, 4.0f};
    const float wanted[C] = {2.0f, 0.5f, 1.0f, 4.0f};
    fill(&s);
    qz_fold_norm(&s.layer, 1, QZ_STAGE_GATE_UP, scale, QZ_F16);
    for (int k = 0; k < C; k++) {
        check_near(scale[k], wanted[k], "scale");
        check_near(s.norm[1][k], 1.0f / wanted[k], "norm");
        check_near(s.norm[0][k], 1.0f, "the other norm");
        for (int n = 0; n < N; n++) {
            float before = 1.0f + (float)(n * C + k);
            check_near(s.weight[QZ_ROLE_GATE][n * C + k], before * wanted[k], "gate");
            check_near(s.weight[QZ_ROLE_UP][n * C + k], before * wanted[k], "up");
            check_near(s.weight[QZ_ROLE_Q][n * C + k], before, "q");
            check_near(s.weight[QZ_ROLE_DOWN][n * C + k], before, "down");
        }
    }
}

/* 1 / 3 is no number of either type: the factor becomes what was stored, so that norm * factor is the old norm. */
static void check_rounding(qz_dtype type, float stored)
{
    small_layer s;
    float scale[C] = {3.0f, 1.0f, 1.0f, 1.0f};
    fill(&s);
    qz_fold_norm(&s.layer, 0, QZ_STAGE_QKV, scale, type);
    check_near(s.norm[0][0], stored, "norm");
    check_near(scale[0], 1.0f / stored, "factor");
    cr_assert(scale[0] != 3.0f || type == QZ_F32);
    check_near(s.weight[QZ_ROLE_K][C], 5.0f * scale[0], "k");
}

Test(fold, absorbs_the_rounding_of_the_stored_norm)
{
    check_rounding(QZ_F16, 0x1.554p-2f);
    check_rounding(QZ_BF16, 0x1.56p-2f);
    check_rounding(QZ_F32, 1.0f / 3.0f);
}

Test(fold, keeps_channels_whose_norm_cannot_be_divided)
{
    small_layer s;
    float scale[C] = {2.0f, 1e9f, 1e-9f, 2.0f};
    fill(&s);
    s.norm[0][0] = 0.0f;  /* stays zero */
    s.norm[0][3] = -6.0f; /* a negative norm is an ordinary one */
    qz_fold_norm(&s.layer, 0, QZ_STAGE_QKV, scale, QZ_F16);
    check_near(scale[0], 1.0f, "zero norm");
    check_near(s.norm[0][0], 0.0f, "zero norm");
    check_near(scale[1], 1.0f, "underflow");
    check_near(s.norm[0][1], 1.0f, "underflow");
    check_near(scale[2], 1.0f, "overflow");
    check_near(s.norm[0][2], 1.0f, "overflow");
    check_near(scale[3], 2.0f, "negative norm");
    check_near(s.norm[0][3], -3.0f, "negative norm");
    for (int k = 0; k < 3; k++) check_near(s.weight[QZ_ROLE_V][k], 1.0f + (float)k, "v");
    check_near(s.weight[QZ_ROLE_V][3], 8.0f, "v");
}

/* bf16 has the range of fp32: what float16 flushes to zero it stores. */
Test(fold, divides_small_norms_in_bfloat16)
{
    small_layer s;
    float scale[C] = {1.0f, 0x1p30f, 1.0f, 1.0f};
    fill(&s);
    qz_fold_norm(&s.layer, 0, QZ_STAGE_QKV, scale, QZ_BF16);
    check_near(scale[1], 0x1p30f, "factor");
    check_near(s.norm[0][1], 0x1p-30f, "norm");
}

Test(fold, divides_rows_and_bias_of_a_producer)
{
    float up[3 * 2] = {2, 4, 6, 8, 10, 12}, bias[3] = {2, 4, 8}, down[2 * 3] = {1, 1, 1, 2, 2, 2};
    const float scale[3] = {2, 4, 0.5f};
    qz_linear part[QZ_ROLES] = {0};
    qz_layer layer = {.part = part, .experts = 1};
    part[QZ_ROLE_UP].weight = qz_tensor_2d(up, QZ_F32, 3, 2);
    part[QZ_ROLE_UP].bias = qz_tensor_1d(bias, QZ_F32, 3);
    part[QZ_ROLE_DOWN].weight = qz_tensor_2d(down, QZ_F32, 2, 3);
    qz_fold_linear(&layer, QZ_ROLE_UP, QZ_ROLE_DOWN, 0, scale, 1, 1, 3);
    const float up_expected[] = {1, 2, 1.5f, 2, 20, 24}, bias_expected[] = {1, 1, 16};
    const float down_expected[] = {2, 4, 0.5f, 4, 8, 1};
    for (int i = 0; i < 6; i++) check_near(up[i], up_expected[i], "up");
    for (int i = 0; i < 3; i++) check_near(bias[i], bias_expected[i], "bias");
    for (int i = 0; i < 6; i++) check_near(down[i], down_expected[i], "down");
}

/* Four heads of size 2 read two of v: heads 0 and 1 the rows 0 and 1, heads 2 and 3 the rows 2 and 3. */
Test(fold, divides_the_rows_that_grouped_heads_share)
{
    float v[4] = {8, 8, 8, 8}, bias[4] = {4, 4, 4, 4}, o[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const float scale[8] = {2, 4, 2, 4, 8, 16, 8, 16};
    qz_linear part[QZ_ROLES] = {0};
    qz_layer layer = {.part = part, .experts = 1};
    part[QZ_ROLE_V].weight = qz_tensor_2d(v, QZ_F32, 4, 1);
    part[QZ_ROLE_V].bias = qz_tensor_1d(bias, QZ_F32, 4);
    part[QZ_ROLE_O].weight = qz_tensor_2d(o, QZ_F32, 1, 8);
    qz_fold_linear(&layer, QZ_ROLE_V, QZ_ROLE_O, 0, scale, 4, 2, 2);
    const float v_expected[] = {4, 2, 1, 0.5f}, bias_expected[] = {2, 1, 0.5f, 0.25f};
    for (int i = 0; i < 4; i++) check_near(v[i], v_expected[i], "v");
    for (int i = 0; i < 4; i++) check_near(bias[i], bias_expected[i], "bias");
    for (int i = 0; i < 8; i++) check_near(o[i], scale[i], "o");
}

/* A norm that multiplies by w + 1 (Gemma): 2 / 4 is stored as -0.5; a norm of zero is w = -1. */
Test(fold, norms_that_add_one)
{
    small_layer s;
    float scale[C] = {4.0f, 3.0f, 2.0f, 1.0f};
    fill(&s);
    s.layer.norm_offset = 1;
    s.norm[0][2] = -1.0f;
    qz_fold_norm(&s.layer, 0, QZ_STAGE_QKV, scale, QZ_BF16);
    check_near(s.norm[0][0], -0.5f, "2 / 4 - 1");
    check_near(scale[0], 4.0f, "factor");
    check_near(s.norm[0][1], -0x1.56p-2f, "2 / 3 - 1 in bf16");
    check_near(scale[1], 2.0f / (1.0f - 0x1.56p-2f), "factor");
    check_near(s.norm[0][2], -1.0f, "a norm of zero");
    check_near(scale[2], 1.0f, "factor");
    check_near(s.norm[0][3], 1.0f, "2 / 1 - 1");
}

/* 2 / 1024 - 1 is -1 in bf16: nothing would be left of the channel. */
Test(fold, norms_that_add_one_keep_what_cannot_be_stored)
{
    small_layer s;
    float scale[C] = {1024.0f, 1.0f, 1.0f, 1.0f};
    fill(&s);
    s.layer.norm_offset = 1;
    qz_fold_norm(&s.layer, 0, QZ_STAGE_QKV, scale, QZ_BF16);
    check_near(s.norm[0][0], 1.0f, "norm");
    check_near(scale[0], 1.0f, "factor");
}
