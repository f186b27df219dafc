/* Integer grids by hand: ranges, ties, and the corners that the header names. */
#include "numeric/intgrid.h"

#include <float.h>
#include <math.h>

#include "testing/testing.h"

Test(intgrid, range_holds_zero_and_no_minus_zero)
{
    float w[37], lo, hi;
    for (int i = 0; i < 37; i++) w[i] = -0.0f;
    qz_range_of(&lo, &hi, w, 37);
    cr_assert(lo == 0 && hi == 0 && !signbit(lo) && !signbit(hi));
    for (int i = 0; i < 37; i++) {
        w[i] = 2.5f;
        qz_range_of(&lo, &hi, w, 37);
        cr_assert(lo == 0 && hi == 2.5f, "a value at %d", i);
        w[i] = -3.5f;
        qz_range_of(&lo, &hi, w, 37);
        cr_assert(lo == -3.5f && hi == 0, "a value at %d", i);
        w[i] = 0;
    }
}

Test(intgrid, symmetric)
{
    const qz_grid g = qz_grid_of(-3.0f, 7.5f, 4, 1, QZ_F32, QZ_ROUND_VALUE);
    cr_assert(g.scale == 1.0f && g.zero == 8 && g.top == 15);
    cr_assert(qz_grid_encode(7.5f, g, QZ_ROUND_VALUE) == 15, "8 is not a code");
    cr_assert(qz_grid_encode(2.5f, g, QZ_ROUND_VALUE) == 10 && qz_grid_encode(3.5f, g, QZ_ROUND_VALUE) == 12);
    cr_assert(qz_grid_decode(15, g) == 7.0f && qz_grid_decode(0, g) == -8.0f);
}

Test(intgrid, asymmetric)
{
    const qz_grid g = qz_grid_of(-3.0f, 12.0f, 4, 0, QZ_F32, QZ_ROUND_VALUE);
    cr_assert(g.scale == 1.0f && g.zero == 3);
    cr_assert(qz_grid_encode(-100.0f, g, QZ_ROUND_VALUE) == 0 && qz_grid_encode(FLT_MAX, g, QZ_ROUND_VALUE) == 15);
    cr_assert(qz_grid_of(-2.0f, 0.0f, 4, 0, QZ_F32, QZ_ROUND_VALUE).zero == 15, "one sign");
    cr_assert(qz_grid_of(0.0f, 2.0f, 4, 0, QZ_F32, QZ_ROUND_VALUE).zero == 0, "one sign");
}

/* w / s = 0.5: half to even before the zero is added gives 0 + 3, after it rint(3.5) = 4. */
Test(intgrid, the_two_zero_rules_differ_in_ties)
{
    const qz_grid g = {1.0f, 3, 15, 0};
    cr_assert(qz_grid_encode(0.5f, g, QZ_ROUND_VALUE) == 3);
    cr_assert(qz_grid_encode(0.5f, g, QZ_ROUND_SUM) == 4);
}

Test(intgrid, all_zero_piece)
{
    const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};
    for (int t = 0; t < 3; t++) {
        for (int rule = 0; rule < 2; rule++) {
            const qz_grid g = qz_grid_of(0, 0, 4, 0, types[t], (qz_zero_rule)rule);
            const int code = qz_grid_encode(-0.0f, g, (qz_zero_rule)rule);
            cr_assert(g.scale == 0x1p-23f && code == g.zero && qz_grid_decode(code, g) == 0);
        }
    }
}

Test(intgrid, extreme_ranges)
{
    const qz_grid wide = qz_grid_of(-FLT_MAX, FLT_MAX, 8, 0, QZ_F32, QZ_ROUND_VALUE);
    cr_assert(isfinite(wide.scale) && wide.zero == 128);
    cr_assert(qz_grid_encode(FLT_MAX, wide, QZ_ROUND_VALUE) == 255);
    const qz_grid half = qz_grid_of(-1e9f, 1e9f, 4, 1, QZ_F16, QZ_ROUND_VALUE);
    cr_assert(half.scale == 65504.0f && qz_grid_encode(-1e9f, half, QZ_ROUND_VALUE) == 0);
    const qz_grid tiny = qz_grid_of(-1e-12f, 1e-12f, 4, 1, QZ_F16, QZ_ROUND_VALUE);
    cr_assert(tiny.scale == 0x1p-14f && qz_grid_encode(1e-12f, tiny, QZ_ROUND_VALUE) == 8);
}

Test(intgrid, a_narrow_grid_leaves_out_the_lowest_code)
{
    const qz_grid g = qz_grid_narrow(-0.5f, 2.0f, 8, QZ_F32);
    cr_assert(g.scale == 2.0f / 127.0f && g.zero == 128 && g.top == 255 && g.least == 1);
    for (int rule = 0; rule < 2; rule++) {
        cr_assert(qz_grid_encode(2.0f, g, (qz_zero_rule)rule) == 255);
        cr_assert(qz_grid_encode(-2.0f, g, (qz_zero_rule)rule) == 1);
        cr_assert(qz_grid_encode(-9.0f, g, (qz_zero_rule)rule) == 1, "what a shrunk range cuts off");
    }
    cr_assert(qz_grid_narrow(0, 0, 8, QZ_F32).scale == 0x1p-23f);
}

/* Any scale goes to one that x / 127 can give, near it, and stays there. */
Test(intgrid, narrow_scales_are_quotients)
{
    for (float s = 0.0078f; s < 0.017f; s = nextafterf(s * 1.0001f, 1)) {
        const float t = qz_grid_narrow_scale(s, 8);
        cr_assert(t == s * 127.0f / 127.0f && fabsf(t - s) <= 1.2e-7f * s && qz_grid_narrow_scale(t, 8) == t, "%g",
                  (double)s);
    }
}

Test(intgrid, zero_of_at_least_one)
{
    const qz_grid same = qz_grid_above(-3.0f, 12.0f, 4, 1, QZ_F32, QZ_ROUND_VALUE);
    cr_assert(same.scale == 1.0f && same.zero == 3);
    for (int rule = QZ_ROUND_VALUE; rule <= QZ_ROUND_SUM; rule++) {
        const qz_grid g = qz_grid_above(-0.25f, 14.0f, 4, 1, QZ_F32, (qz_zero_rule)rule);
        cr_assert(g.zero == 1 && g.scale == 1.0f && g.top == 15 && g.least == 0, "%d %g", g.zero, g.scale);
        cr_assert(qz_grid_encode(14.0f, g, (qz_zero_rule)rule) == 15, "the largest value is not clamped");
        cr_assert(qz_grid_encode(-0.25f, g, (qz_zero_rule)rule) == 1);
        const qz_grid none = qz_grid_above(0, 0, 4, 1, QZ_F16, (qz_zero_rule)rule);
        cr_assert(none.zero == 1 && none.scale > 0 && qz_grid_encode(0, none, (qz_zero_rule)rule) == 1);
        cr_assert(qz_grid_above(-2, 0, 4, 1, QZ_F32, (qz_zero_rule)rule).zero == 15);
    }
}
