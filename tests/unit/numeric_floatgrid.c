/* fp8 grids: the largest magnitude meets the largest code, and what the scale does at its ends. */
#include "numeric/floatgrid.h"

#include "testing/testing.h"

Test(floatgrid, largest_magnitude_is_the_largest_code)
{
    const float e4 = qz_float_scale(896.0f, QZ_FORMAT_FP8_E4M3, QZ_F32);
    const float e5 = qz_float_scale(57344.0f, QZ_FORMAT_FP8_E5M2, QZ_F32);
    cr_assert(e4 == 2.0f && e5 == 1.0f);
    cr_assert(qz_float_encode(896.0f, e4, QZ_FORMAT_FP8_E4M3) == 0x7E);
    cr_assert(qz_float_encode(-57344.0f, e5, QZ_FORMAT_FP8_E5M2) == 0xFB);
    cr_assert(qz_float_decode(0x7E, e4, QZ_FORMAT_FP8_E4M3) == 896.0f);
}

Test(floatgrid, a_scale_that_was_rounded_down_saturates)
{
    const float scale = qz_float_scale(1e8f, QZ_FORMAT_FP8_E4M3, QZ_F16);
    cr_assert(scale == 65504.0f);
    cr_assert(qz_float_encode(1e8f, scale, QZ_FORMAT_FP8_E4M3) == 0x7E);
}

Test(floatgrid, zero_piece)
{
    const float scale = qz_float_scale(0.0f, QZ_FORMAT_FP8_E4M3, QZ_F32);
    cr_assert(scale == 0x1p-23f && qz_float_encode(0.0f, scale, QZ_FORMAT_FP8_E4M3) == 0);
    cr_assert(qz_float_encode(-0.0f, scale, QZ_FORMAT_FP8_E4M3) == 0x80, "-0 keeps its sign");
}
