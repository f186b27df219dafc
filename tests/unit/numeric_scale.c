/* Scales at the ends of their stored types. */
#include "numeric/scale.h"

#include "testing/testing.h"

Test(scale, rounds_to_the_stored_type)
{
    cr_assert(qz_scale_round(0.1f, 1, QZ_F32) == 0.1f);
    cr_assert(qz_scale_round(0.1f, 1, QZ_F16) == qz_f16_decode(0x2E66));
    cr_assert(qz_scale_round(0.1f, 1, QZ_BF16) == qz_bf16_decode(0x3DCD));
}

Test(scale, of_nothing_is_two_to_the_minus_23)
{
    const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};
    for (int t = 0; t < 3; t++) cr_assert(qz_scale_round(0.0f, 0, types[t]) == 0x1p-23f, "type %d", t);
}

Test(scale, underflow_becomes_the_smallest_normal)
{
    cr_assert(qz_scale_round(0x1p-26f, 1, QZ_F16) == 0x1p-14f);
    cr_assert(qz_scale_round(0x1p-24f, 1, QZ_F16) == 0x1p-24f, "a subnormal is held");
    cr_assert(qz_scale_round(0.0f, 1, QZ_F32) == 0x1p-126f);
    cr_assert(qz_scale_round(0x1p-140f, 1, QZ_BF16) == 0x1p-126f);
}

Test(scale, overflow_saturates)
{
    cr_assert(qz_scale_round(1e6f, 1, QZ_F16) == 65504.0f);
    cr_assert(qz_scale_round(3.4e38f, 1, QZ_BF16) == 0x1.FEp127f);
    cr_assert(qz_scale_round(3.4e38f, 1, QZ_F32) == 3.4e38f);
}
