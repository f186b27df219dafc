/* Corners of the 16- and 8-bit formats that the golden tables do not spell out. */
#include "numeric/minifloat.h"

#include <math.h>

#include "testing/testing.h"

Test(minifloat, f16_corners)
{
    cr_assert(qz_f16_encode(65504.0f) == 0x7BFF);
    cr_assert(qz_f16_encode(65519.99f) == 0x7BFF);
    cr_assert(qz_f16_encode(65520.0f) == 0x7C00);
    cr_assert(qz_f16_encode(INFINITY) == 0x7C00);
    cr_assert(qz_f16_encode(-INFINITY) == 0xFC00);
    cr_assert(qz_f16_encode(0x1p-24f) == 0x0001);
    cr_assert(qz_f16_encode(0x1p-25f) == 0x0000, "a tie goes to even");
    cr_assert(qz_f16_encode(0x1.000002p-25f) == 0x0001);
    cr_assert(qz_f16_encode(-0.0f) == 0x8000);
    cr_assert(qz_f16_encode(1.0f + 0x1p-11f) == 0x3C00, "a tie goes to even");
    cr_assert(qz_f16_encode(1.0f + 3 * 0x1p-11f) == 0x3C02, "a tie goes to even");
    cr_assert(qz_f16_decode(0x0001) == 0x1p-24f);
    cr_assert(qz_f16_decode(0x0400) == 0x1p-14f);
    cr_assert(isinf(qz_f16_decode(0xFC00)) && qz_f16_decode(0xFC00) < 0);
    cr_assert(isnan(qz_f16_decode(0x7C01)));
}

Test(minifloat, bf16_corners)
{
    cr_assert(qz_bf16_encode(1.0f + 0x1p-8f) == 0x3F80, "a tie goes to even");
    cr_assert(qz_bf16_encode(1.0f + 3 * 0x1p-8f) == 0x3F82, "a tie goes to even");
    cr_assert(qz_bf16_encode(3.4e38f) == 0x7F80);
    cr_assert(qz_bf16_encode(-0.0f) == 0x8000);
    cr_assert(isnan(qz_bf16_decode(qz_bf16_encode(qz_bits_float(0x7F800001)))), "a NaN stays one when cut");
}

/* decode(encode(v)) = v for every code that is a number, and the sign of a NaN is kept. */
Test(minifloat, every_16_bit_code_comes_back)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float x = qz_f16_decode((uint16_t)h), y = qz_bf16_decode((uint16_t)h);
        if (!isnan(x)) cr_assert(qz_f16_encode(x) == h, "%04x", h);
        if (!isnan(y)) cr_assert(qz_bf16_encode(y) == h, "%04x", h);
        cr_assert(qz_f16_encode(x) >> 15 == h >> 15);
        cr_assert(qz_bf16_encode(y) >> 15 == h >> 15);
    }
}

Test(minifloat, every_8_bit_code_comes_back)
{
    for (uint32_t b = 0; b < 256; b++) {
        const float x = qz_e4m3_decode((uint8_t)b), y = qz_e5m2_decode((uint8_t)b);
        if (!isnan(x)) cr_assert(qz_e4m3_encode(x) == b, "%02x", b);
        if (isfinite(y)) cr_assert(qz_e5m2_encode(y) == b, "%02x", b);
        if (!isnan(y)) cr_assert(qz_e5m2_encode_ieee(y) == b, "%02x", b);
    }
}

Test(minifloat, overflow_saturates_or_is_infinite)
{
    cr_assert(qz_e4m3_encode(1e9f) == 0x7E && qz_e4m3_encode(-INFINITY) == 0xFE);
    cr_assert(qz_e5m2_encode(1e9f) == 0x7B && qz_e5m2_encode(-INFINITY) == 0xFB);
    cr_assert(qz_e5m2_encode_ieee(61439.0f) == 0x7B && qz_e5m2_encode_ieee(61440.0f) == 0x7C);
    cr_assert(qz_e4m3_encode(NAN) == 0x7F && qz_e5m2_encode(-NAN) == 0xFF);
}
