/* The dense container: values rounded once, nothing said of quantization, what it declines. */
#include <math.h>

#include "numeric/minifloat.h"
#include "testing/container_case.h"

CONTAINER_SUITE(dense, dense, "dense")

static const qz_scheme int4 = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 3, .scale_type = QZ_F32};

static qz_qtensor matrix(const qz_export_linear *l)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &l->scheme, l->n, l->k, arena));
    for (int64_t i = 0; i < l->n * l->k; i++) q.codes[i] = (uint8_t)(i * 7 % 16);
    for (int64_t i = 0; i < qz_scheme_pieces(&l->scheme, l->n, l->k); i++) {
        q.scales[i] = 0.013f * (float)(i + 1);
        q.zeros[i] = 5;
    }
    return q;
}

Test(dense, values_are_rounded_to_the_plain_type)
{
    static const qz_dtype type[] = {QZ_BF16, QZ_F16, QZ_F32};
    for (int t = 0; t < 3; t++) {
        char name[20];
        snprintf(name, sizeof name, "m%d", t);
        qz_export_linear l = case_linear("m", 2, 9, int4);
        dense->settle(&l, type[t]);
        const qz_qtensor q = matrix(&l);
        qz_ckpt *c = case_written(name, dense, &l, &q, NULL, arena);
        cr_assert(qz_ckpt_container(c) == dense && !qz_ckpt_is_quantized(c, "m"));
        cr_assert(qz_ckpt_count(c) == 1 && qz_ckpt_find(c, "m.weight")->view.dtype == type[t]);
        float wide[18], back[18];
        qz_qtensor_dequantize(wide, &q, 0, 2);
        check_ok(qz_ckpt_read_weight(c, "m", 2, 9, back, arena));
        for (int i = 0; i < 18; i++) {
            const float want = t == 0   ? qz_bf16_decode(qz_bf16_encode(wide[i]))
                               : t == 1 ? qz_f16_decode(qz_f16_encode(wide[i]))
                                        : wide[i];
            cr_assert(back[i] == want, "%d: %g", i, (double)back[i]);
        }
        qz_ckpt_close(c);
    }
}

Test(dense, large_matrices_are_written_in_parts)
{
    const qz_export_linear l = case_linear("m", 700, 900, int4);
    const qz_qtensor q = matrix(&l);
    qz_ckpt *c = case_written("m", dense, &l, &q, NULL, arena);
    float *wide = qz_arena_array(arena, float, 700 * 900), *back = qz_arena_array(arena, float, 700 * 900);
    qz_qtensor_dequantize(wide, &q, 0, 700);
    check_ok(qz_ckpt_read_weight(c, "m", 700, 900, back, arena));
    for (int i = 0; i < 700 * 900; i++) cr_assert(back[i] == qz_bf16_decode(qz_bf16_encode(wide[i])), "%d", i);
    qz_ckpt_close(c);
}

Test(dense, a_value_beyond_the_type_is_told)
{
    qz_status status;
    qz_export_linear l = case_linear("m", 2, 9, int4);
    dense->settle(&l, QZ_F16);
    qz_qtensor q = matrix(&l);
    q.scales[4] = 7000;
    q.codes[14] = 15;
    case_write(&status, "a", dense, &l, &q, NULL, arena);
    check_fails(QZ_NUMERIC, "at [1, ", status);
    case_has(qz_error_message(), "is not a number of F16");
}

Test(dense, says_nothing_of_quantization)
{
    const qz_export_linear l = case_linear("m", 2, 9, int4);
    cr_assert(case_block(dense, &l, 1, arena) == NULL);
}

Test(dense, declines_what_plain_weights_cannot_say)
{
    qz_export_linear l = case_linear("m", 2, 9, int4);
    check_ok(case_express(dense, &l, 1));
    l.activation = (qz_act_scheme){.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8};
    check_fails(QZ_UNSUPPORTED, "m", case_express(dense, &l, 1));
    l.quantized = false;
    check_ok(case_express(dense, &l, 1));
    qz_export_plan plan = {.linear = &l, .linears = 1, .plain_type = QZ_BF16};
    plan.kv = (qz_kv_scheme){.wanted = true, .format = QZ_FORMAT_FP8_E4M3};
    cr_assert(dense->can_express(&plan) == QZ_UNSUPPORTED);
    plan.kv.wanted = false;
    plan.plain_type = QZ_I32;
    check_fails(QZ_UNSUPPORTED, "I32", dense->can_express(&plan));
}
