/* Codebooks for any weight: nearest, monotone, and quantizing twice is quantizing once; scales quantized are near. */
#include <math.h>

#include "base/rng.h"
#include "numeric/codebook.h"
#include "numeric/tensor.h"
#include "testing/testing.h"

static const qz_format formats[] = {QZ_FORMAT_NF4, QZ_FORMAT_FP4};

Test(codebook_property, codes_are_nearest)
{
    qz_rng r;
    qz_rng_seed(&r, 3, 0);
    for (int i = 0; i < 200000; i++) {
        const qz_format f = formats[i % 2];
        const float scale = (float)exp2(qz_rng_normal(&r) * 20);
        const float w = (float)qz_rng_normal(&r) * scale, x = w / scale;
        const float ours = fabsf(x - qz_codebook_value(qz_codebook_encode(w, scale, f), f));
        for (int c = 0; c < 16; c++)
            cr_assert(ours <= fabsf(x - qz_codebook_value(c, f)) + 6e-8f, "%.9g: code %d is nearer", (double)x, c);
    }
}

Test(codebook_property, larger_weights_have_no_smaller_values)
{
    for (int f = 0; f < 2; f++) {
        float before = -2;
        for (float w = -1.5f; w < 1.5f; w += 1e-5f) {
            const float value = qz_codebook_value(qz_codebook_encode(w, 1, formats[f]), formats[f]);
            cr_assert(value >= before, "%g", (double)w);
            before = value;
        }
    }
}

Test(codebook_property, quantizing_twice_is_quantizing_once)
{
    qz_rng r;
    qz_rng_seed(&r, 4, 0);
    for (int block = 0; block < 2000; block++) {
        const qz_format f = formats[block % 2];
        float w[64], most = 0, again = 0, value[64];
        for (int i = 0; i < 64; i++) w[i] = (float)(qz_rng_normal(&r) * exp2(block % 60 - 30));
        for (int i = 0; i < 64; i++) most = fmaxf(most, fabsf(w[i]));
        const float scale = qz_codebook_scale(most, QZ_F32);
        for (int i = 0; i < 64; i++) value[i] = qz_codebook_decode(qz_codebook_encode(w[i], scale, f), scale, f);
        for (int i = 0; i < 64; i++) again = fmaxf(again, fabsf(value[i]));
        cr_assert(again == most, "the largest weight is a value of the table");
        for (int i = 0; i < 64; i++)
            cr_assert(qz_codebook_decode(qz_codebook_encode(value[i], again, f), again, f) == value[i]);
    }
}

Test(codebook_property, scale_codes_are_nearest)
{
    qz_rng r;
    qz_rng_seed(&r, 5, 0);
    for (int i = 0; i < 20000; i++) {
        const float x = (float)(qz_rng_normal(&r) * exp2(-(i % 12)));
        const float ours = fabsf(x - qz_dynamic_decode(qz_dynamic_encode(x)));
        for (int c = 0; c < 256; c++)
            cr_assert(ours <= fabsf(x - qz_dynamic_decode(c)) + 6e-8f * fabsf(x), "%.9g: code %d is nearer", (double)x,
                      c);
    }
}
