/* Scales, zeros and codes of activations by hand: what a server does to one row. */
#include "numeric/actgrid.h"

#include <math.h>

#include "testing/testing.h"

static qz_act_scheme int8_of(bool symmetric, float divisor)
{
    return (qz_act_scheme){.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = symmetric, .divisor = divisor};
}

static qz_act_scheme fp8_of(qz_format format, qz_act_mode mode)
{
    return (qz_act_scheme){.mode = mode, .format = format, .symmetric = true};
}

Test(actgrid, symmetric_scale_is_the_larger_side_over_the_divisor)
{
    cr_assert(qz_act_values_of(-254, 3, int8_of(true, 127)).scale == 2);
    cr_assert(qz_act_values_of(-1, 255, int8_of(true, 127.5f)).scale == 2);
    cr_assert(qz_act_values_of(-1, 255, int8_of(true, 127.5f)).zero == 0);
}

/* With 127.5 the largest value is between two codes: 127.5 is cut to 127, -127.5 goes to the even -128. */
Test(actgrid, codes_are_cut_at_both_ends)
{
    cr_assert(qz_act_round_int8(127.5f, 1, 0) == 127 && qz_act_round_int8(-127.5f, 1, 0) == -128);
    cr_assert(qz_act_round_int8(1e30f, 1, 0) == 127 && qz_act_round_int8(-1e30f, 1, 0) == -128);
    cr_assert(qz_act_round_int8(0.5f, 1, 0) == 0 && qz_act_round_int8(1.5f, 1, 0) == 2, "ties to even");
    cr_assert(isnan(qz_act_round_int8(NAN, 1, 0)) && isnan(qz_act_round_fp8(NAN, 1, QZ_FORMAT_FP8_E4M3)));
}

Test(actgrid, asymmetric_covers_the_range_and_holds_zero_exactly)
{
    static const float range[][2] = {{-1, 3}, {0, 5}, {-7, 0}, {-1e-20f, 1e20f}, {-3e38f, 3e38f}, {0, 0}};
    for (int i = 0; i < 6; i++) {
        const float lo = range[i][0], hi = range[i][1];
        const qz_act_values v = qz_act_values_of(lo, hi, int8_of(false, 127));
        cr_assert(v.scale > 0 && isfinite(v.scale) && v.zero >= -128 && v.zero <= 127);
        cr_assert(qz_act_round_int8(0, v.scale, (float)v.zero) == 0);
        cr_assert(fabsf(qz_act_round_int8(lo, v.scale, (float)v.zero) - lo) <= v.scale * 1.0001f, "%d", i);
        cr_assert(fabsf(qz_act_round_int8(hi, v.scale, (float)v.zero) - hi) <= v.scale * 1.0001f, "%d", i);
    }
    cr_assert(qz_act_values_of(-1, 254, int8_of(false, 127)).scale == 1);
    cr_assert(qz_act_values_of(-1, 254, int8_of(false, 127)).zero == -127);
}

Test(actgrid, fp8_scale_is_the_largest_value_over_the_largest_code)
{
    const qz_act_scheme e4m3 = fp8_of(QZ_FORMAT_FP8_E4M3, QZ_ACT_TENSOR),
                        e5m2 = fp8_of(QZ_FORMAT_FP8_E5M2, QZ_ACT_TENSOR);
    cr_assert(qz_act_values_of(-896, 5, e4m3).scale == 2 && qz_act_values_of(-5, 57344, e5m2).scale == 1);
    cr_assert(qz_act_round_fp8(1000, 2, QZ_FORMAT_FP8_E4M3) == 896, "saturates");
    cr_assert(qz_act_round_fp8(17, 1, QZ_FORMAT_FP8_E4M3) == 16 && qz_act_round_fp8(-19, 1, QZ_FORMAT_FP8_E4M3) == -20);
    cr_assert(qz_act_round_fp8(9, 1, QZ_FORMAT_FP8_E5M2) == 8);
}

Test(actgrid, rows_of_zeros_have_the_least_scale_of_their_consumer)
{
    cr_assert(qz_act_values_of(0, 0, int8_of(true, 127)).scale == 0x1p-23f);
    cr_assert(qz_act_values_of(0, 0, int8_of(false, 127)).scale == 0x1p-23f);
    cr_assert(qz_act_values_of(0, 0, fp8_of(QZ_FORMAT_FP8_E4M3, QZ_ACT_TOKEN)).scale == 1.0f / (448 * 512.0f));
    cr_assert(qz_act_values_of(0, 0, fp8_of(QZ_FORMAT_FP8_E4M3, QZ_ACT_GROUP)).scale == 1e-10f / 448);
    cr_assert(qz_act_values_of(0, 0, fp8_of(QZ_FORMAT_FP8_E4M3, QZ_ACT_TENSOR)).scale == 0x1p-23f);
    cr_assert(qz_act_round_int8(0, 0x1p-23f, 0) == 0);
}

/* The largest of a row is kept, and rounding twice is rounding once. */
Test(actgrid, rounding_is_idempotent)
{
    static const qz_format formats[] = {QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
    for (int f = 0; f < 3; f++) {
        for (int i = -2000; i <= 2000; i++) {
            const qz_act_values v = {0.37f, f == 0 ? i % 50 : 0};
            const float once = qz_act_round((float)i * 0.05f, v, formats[f]);
            cr_assert(qz_act_round(once, v, formats[f]) == once, "%d", i);
        }
    }
}
