/* Frequencies and tables against their definitions. */
#include "models/rope.h"

#include <math.h>

#include "testing/testing.h"

enum { D = 64, T = 300 };

Test(rope, default_frequencies)
{
    float f[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1};
    qz_rope_frequencies(f, &r, D);
    for (int i = 0; i < D / 2; i++) {
        double exact = pow(10000, -2.0 * i / D);
        cr_assert_float_eq(f[i], exact, exact * 3e-7);
    }
}

Test(rope, linear_divides)
{
    float a[D / 2], b[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT, .theta = 500000, .factor = 8};
    qz_rope_frequencies(a, &r, D);
    r.kind = QZ_ROPE_LINEAR;
    qz_rope_frequencies(b, &r, D);
    for (int i = 0; i < D / 2; i++) cr_assert(b[i] == a[i] / 8);
}

Test(rope, llama3_keeps_short_and_stretches_long)
{
    float a[D / 2], b[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT,
                 .theta = 500000,
                 .factor = 8,
                 .low_freq_factor = 1,
                 .high_freq_factor = 4,
                 .original_context = 64};
    qz_rope_frequencies(a, &r, D);
    r.kind = QZ_ROPE_LLAMA3;
    qz_rope_frequencies(b, &r, D);
    cr_assert(b[0] == a[0]);
    cr_assert(b[D / 2 - 1] == a[D / 2 - 1] / 8);
    for (int i = 0; i < D / 2; i++) cr_assert(b[i] <= a[i] && b[i] >= a[i] / 8 * 0.999999f);
}

Test(rope, yarn_of_factor_one_is_default)
{
    float a[D / 2], b[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT,
                 .theta = 10000,
                 .factor = 1,
                 .beta_fast = 32,
                 .beta_slow = 1,
                 .original_context = 2048,
                 .truncate = true};
    qz_rope_frequencies(a, &r, D);
    r.kind = QZ_ROPE_YARN;
    qz_rope_frequencies(b, &r, D);
    for (int i = 0; i < D / 2; i++) cr_assert_float_eq(a[i], b[i], a[i] * 3e-7);
}

Test(rope, tables_are_cos_and_sin_of_the_angle)
{
    static float cos_table[T * D / 2], sin_table[T * D / 2];
    float f[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1.5};
    qz_rope_frequencies(f, &r, D);
    qz_rope_tables(cos_table, sin_table, &r, f, T, D);
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < D / 2; i++) {
            double angle = (double)((float)t * f[i]);
            cr_assert_float_eq(cos_table[t * D / 2 + i], 1.5 * cos(angle), 1e-6);
            cr_assert_float_eq(sin_table[t * D / 2 + i], 1.5 * sin(angle), 1e-6);
        }
    }
    cr_assert(cos_table[0] == 1.5f && sin_table[0] == 0);
}

/* Ding et al. 2024: a divisor for each frequency. */
Test(rope, long_divides_each)
{
    float a[D / 2], b[D / 2], factors[D / 2];
    qz_rope r = {.kind = QZ_ROPE_DEFAULT, .theta = 10000, .factors = factors};
    qz_rope_frequencies(a, &r, D);
    for (int i = 0; i < D / 2; i++) factors[i] = 1 + 0.5f * (float)i;
    r.kind = QZ_ROPE_LONG;
    qz_rope_frequencies(b, &r, D);
    for (int i = 0; i < D / 2; i++) cr_assert_float_eq(b[i], a[i] / factors[i], 3e-7 * a[i]);
}
