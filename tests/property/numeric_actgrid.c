/* Rounded activations are the nearest values that the codes have, grow with x, and the scale of a row makes its largest
 * value representable: for every format, over random rows of all sizes. */
#include <math.h>

#include "base/rng.h"
#include "numeric/actgrid.h"
#include "testing/testing.h"

enum { ROWS = 300, COLS = 24 };

static const qz_act_scheme schemes[] = {
    {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, true, 127},    {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, true, 127.5f},
    {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, false, 127},   {QZ_ACT_TOKEN, QZ_FORMAT_FP8_E4M3, 0, true, 0},
    {QZ_ACT_TOKEN, QZ_FORMAT_FP8_E5M2, 0, true, 0},  {QZ_ACT_GROUP, QZ_FORMAT_FP8_E4M3, 8, true, 0},
    {QZ_ACT_TENSOR, QZ_FORMAT_FP8_E4M3, 0, true, 0}, {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, false, 127.5f},
};
enum { SCHEMES = sizeof schemes / sizeof *schemes };

/* Values between 1e-6 and 1e6 in size, some rows one-sided. */
static void fill(float *x, qz_rng *r, int row)
{
    const double size = pow(10, 12 * qz_rng_double(r) - 6);
    for (int i = 0; i < COLS; i++) {
        x[i] = (float)(qz_rng_normal(r) * size);
        if (row % 5 == 3) x[i] = fabsf(x[i]);
        if (row % 5 == 4) x[i] = -fabsf(x[i]);
    }
}

static float value_of(int code, qz_act_values v, qz_format format)
{
    if (qz_act_is_int(format)) return (float)(code - 128 - v.zero) * v.scale;
    return qz_float_decode((uint8_t)code, v.scale, format);
}

static void check_nearest(float x, qz_act_values v, qz_format format)
{
    const float rounded = qz_act_round(x, v, format);
    bool is_code = false;
    for (int code = 0; code < 256; code++) {
        const float value = value_of(code, v, format);
        if (!isfinite(value)) continue;
        is_code |= value == rounded;
        /* the quotient x / scale is rounded once before the nearest code is taken */
        const double slack = 2e-7 * (fabs((double)x) + 128 * (double)v.scale);
        cr_assert(fabs((double)rounded - x) <= fabs((double)value - x) + slack, "%.9g -> %.9g, but %.9g is nearer", x,
                  rounded, value);
    }
    cr_assert(is_code, "%.9g is no value of a code", rounded);
}

Test(actgrid_property, rounds_to_the_nearest_code)
{
    qz_rng r;
    qz_rng_seed(&r, 9, 9);
    for (int row = 0; row < ROWS; row++) {
        float x[COLS], lo, hi;
        fill(x, &r, row);
        qz_range_of(&lo, &hi, x, COLS);
        for (int s = 0; s < SCHEMES; s++) {
            const qz_act_values v = qz_act_values_of(lo, hi, schemes[s]);
            for (int i = 0; i < COLS; i++) check_nearest(x[i], v, schemes[s].format);
        }
    }
}

Test(actgrid_property, grows_with_x_and_keeps_the_largest)
{
    qz_rng r;
    qz_rng_seed(&r, 10, 9);
    for (int row = 0; row < ROWS; row++) {
        float x[COLS], lo, hi;
        fill(x, &r, row);
        qz_range_of(&lo, &hi, x, COLS);
        for (int s = 0; s < SCHEMES; s++) {
            const qz_act_values v = qz_act_values_of(lo, hi, schemes[s]);
            float before = -INFINITY;
            for (int i = -50; i <= 50; i++) {
                const float most = fmaxf(-lo, hi), now = qz_act_round(most * 0.024f * (float)i, v, schemes[s].format);
                cr_assert(now >= before);
                before = now;
            }
            for (int i = 0; i < 2; i++) {
                const float end = i ? hi : lo, rounded = qz_act_round(end, v, schemes[s].format);
                const float step = qz_act_is_int(schemes[s].format) ? v.scale : 0.13f * fabsf(end);
                cr_assert(fabsf(rounded - end) <= step + 1e-5f * fabsf(end), "%.9g -> %.9g", end, rounded);
            }
        }
    }
}
