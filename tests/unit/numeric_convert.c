/* Conversion of arrays: bit-equal to the scalar functions whatever the length (so vector bodies and tails agree), and
 * one rounding from F64. */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "numeric/minifloat.h"
#include "numeric/tensor.h"
#include "testing/testing.h"

enum { N = 1 << 16 };

Test(convert, sixteen_bits_widen_like_the_scalar)
{
    uint16_t *bits = malloc(N * sizeof *bits);
    float *out = malloc(N * sizeof *out);
    for (int i = 0; i < N; i++) bits[i] = (uint16_t)i;
    check_ok(qz_convert(out, QZ_F32, bits, QZ_F16, N));
    for (int i = 0; i < N; i++) cr_assert(qz_float_bits(out[i]) == qz_float_bits(qz_f16_decode(bits[i])), "%04x", i);
    check_ok(qz_convert(out, QZ_F32, bits, QZ_BF16, N));
    for (int i = 0; i < N; i++) cr_assert(qz_float_bits(out[i]) == qz_float_bits(qz_bf16_decode(bits[i])), "%04x", i);
    free(bits);
    free(out);
}

Test(convert, narrows_like_the_scalar)
{
    float *x = malloc(N * sizeof *x);
    uint16_t *half = malloc(N * sizeof *half), *brain = malloc(N * sizeof *brain);
    uint8_t *e4 = malloc(N), *e5 = malloc(N);
    uint32_t u = 1;
    for (int i = 0; i < N; i++) x[i] = qz_bits_float(u = u * 1664525u + 1013904223u);
    for (int i = 0; i < N; i += 2) x[i] = ldexpf(x[i] - truncf(x[i]) + 1.0f, i / 2 % 48 - 30);
    check_ok(qz_convert(half, QZ_F16, x, QZ_F32, N));
    check_ok(qz_convert(brain, QZ_BF16, x, QZ_F32, N));
    check_ok(qz_convert(e4, QZ_F8_E4M3, x, QZ_F32, N));
    check_ok(qz_convert(e5, QZ_F8_E5M2, x, QZ_F32, N));
    for (int i = 0; i < N; i++) {
        cr_assert(half[i] == qz_f16_encode(x[i]), "%08x", qz_float_bits(x[i]));
        cr_assert(brain[i] == qz_bf16_encode(x[i]), "%08x", qz_float_bits(x[i]));
        cr_assert(e4[i] == qz_e4m3_encode(x[i]), "%08x", qz_float_bits(x[i]));
        cr_assert(e5[i] == qz_e5m2_encode(x[i]), "%08x", qz_float_bits(x[i]));
    }
    free(x), free(half), free(brain), free(e4), free(e5);
}

Test(convert, eight_bits_widen_like_the_scalar)
{
    uint8_t bits[256];
    float a[256], b[256];
    for (int i = 0; i < 256; i++) bits[i] = (uint8_t)i;
    check_ok(qz_convert(a, QZ_F32, bits, QZ_F8_E4M3, 256));
    check_ok(qz_convert(b, QZ_F32, bits, QZ_F8_E5M2, 256));
    for (int i = 0; i < 256; i++) {
        cr_assert(qz_float_bits(a[i]) == qz_float_bits(qz_e4m3_decode(bits[i])), "%02x", i);
        cr_assert(qz_float_bits(b[i]) == qz_float_bits(qz_e5m2_decode(bits[i])), "%02x", i);
    }
}

/* 1 + 2^-8 is a tie of bf16; with 2^-40 more it is above it, but fp32 alone would not see that. */
Test(convert, doubles_are_rounded_once)
{
    const double x[] = {
        1 + 0x1p-8 + 0x1p-40, 1 + 3 * 0x1p-8 - 0x1p-40, -(1 + 0x1p-8 + 0x1p-40), 1 + 0x1p-8, 1e300, 1e-300};
    uint16_t out[6];
    double back[6];
    float single;
    check_ok(qz_convert(out, QZ_BF16, x, QZ_F64, 6));
    cr_assert(out[0] == 0x3F81 && out[1] == 0x3F81 && out[2] == 0xBF81 && out[3] == 0x3F80);
    cr_assert(out[4] == 0x7F80 && out[5] == 0);
    check_ok(qz_convert(back, QZ_F64, out, QZ_BF16, 6));
    cr_assert(back[0] == 1 + 0x1p-7 && isinf(back[4]));
    check_ok(qz_convert(&single, QZ_F32, x, QZ_F64, 1));
    cr_assert(single == (float)x[0]);
}

Test(convert, between_two_narrow_types_in_blocks)
{
    enum { COUNT = 5000 };
    uint16_t *in = malloc(COUNT * sizeof *in), *out = malloc(COUNT * sizeof *out);
    for (int i = 0; i < COUNT; i++) in[i] = (uint16_t)(i * 13);
    check_ok(qz_convert(out, QZ_F16, in, QZ_BF16, COUNT));
    for (int i = 0; i < COUNT; i++) cr_assert(out[i] == qz_f16_encode(qz_bf16_decode(in[i])), "%d", i);
    check_ok(qz_convert(out, QZ_BF16, in, QZ_BF16, COUNT));
    cr_assert_arr_eq(out, in, COUNT * sizeof *in);
    free(in), free(out);
}

Test(convert, other_types_are_refused)
{
    float x;
    int32_t i = 1;
    check_fails(QZ_UNSUPPORTED, "I32", qz_convert(&x, QZ_F32, &i, QZ_I32, 1));
    check_fails(QZ_UNSUPPORTED, "F4", qz_convert(&x, QZ_F4, &i, QZ_F32, 1));
    check_ok(qz_convert(NULL, QZ_F32, NULL, QZ_BF16, 0));
}
