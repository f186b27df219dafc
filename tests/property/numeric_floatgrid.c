/* What holds for every fp8 grid and for the 16- and 8-bit formats themselves: codes come back, encoding is nearest and
 * monotone over all 16-bit inputs, and quantizing twice changes nothing. */
#include "numeric/floatgrid.h"

#include <math.h>

#include "testing/testing.h"

static const qz_format formats[] = {QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
static const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};
static const float largest[] = {0, 448, 57344, 1, 0.37f, 1e-6f, 65504, 3e-30f, 1e30f};
enum { LARGEST = sizeof largest / sizeof largest[0] };

typedef void (*grid_check)(float scale, qz_format format);

static void for_every_grid(grid_check check)
{
    for (int f = 0; f < 2; f++)
        for (int t = 0; t < 3; t++)
            for (int m = 0; m < LARGEST; m++) check(qz_float_scale(largest[m], formats[f], types[t]), formats[f]);
}

/* The largest finite code of a format; codes of one sign are in the order of their values. */
static int top_of(qz_format format)
{
    return format == QZ_FORMAT_FP8_E4M3 ? 0x7E : 0x7B;
}

/* A product that is a subnormal fp32 number has lost bits, so a quotient cannot bring them back. */
static void codes_come_back(float scale, qz_format format)
{
    cr_assert(scale > 0 && isfinite(scale));
    for (int c = 0; c <= top_of(format); c++) {
        const float value = qz_float_decode((uint8_t)c, scale, format);
        if (value != 0 && (value < 0x1p-126f || !isfinite(value))) continue;
        cr_assert(qz_float_encode(value, scale, format) == c, "scale %.9g code %02x", scale, c);
        cr_assert(qz_float_encode(-value, scale, format) == (c | 0x80), "scale %.9g code -%02x", scale, c);
    }
}

Test(floatgrid_property, codes_come_back)
{
    for_every_grid(codes_come_back);
}

/* No neighbouring code is nearer; a relative 1e-6 leaves room for the roundings of one quotient and one product. */
static void nearest(float w, float scale, qz_format format, int code)
{
    const double mine = fabs((double)w - qz_float_decode((uint8_t)code, scale, format));
    for (int other = code - 1; other <= code + 1; other += 2) {
        if (other < 0 || other > top_of(format)) continue;
        const double theirs = fabs((double)w - qz_float_decode((uint8_t)other, scale, format));
        cr_assert(mine <= theirs + 1e-6 * w, "%.9g by %.9g: code %02x, %02x is nearer", w, scale, code, other);
    }
}

/* All positive numbers of fp16 or bf16 in ascending order, and their negatives. */
static void nearest_and_monotone(float scale, qz_format format)
{
    for (int brain = 0; brain < 2; brain++) {
        int last = 0;
        for (int h = 0; h < (brain ? 0x7F80 : 0x7C00); h++) {
            const float w = brain ? qz_bf16_decode((uint16_t)h) : qz_f16_decode((uint16_t)h);
            const int code = qz_float_encode(w, scale, format);
            cr_assert(code >= last && code <= top_of(format), "%.9g: code %02x after %02x", w, code, last);
            cr_assert(qz_float_encode(-w, scale, format) == (code | 0x80));
            if (isfinite(qz_float_decode((uint8_t)top_of(format), scale, format)) && scale > 1e-25f)
                nearest(w, scale, format, code);
            last = code;
        }
    }
}

Test(floatgrid_property, nearest_and_monotone_over_all_16_bit_inputs)
{
    for_every_grid(nearest_and_monotone);
}

static void twice_is_once(float scale, qz_format format)
{
    for (int h = 0; h < 0x7C00; h += 3) {
        const float w = qz_f16_decode((uint16_t)h) * scale;
        if (w > 1e38f || (w != 0 && w < 1e-30f)) continue;
        const float once = qz_float_decode(qz_float_encode(w, scale, format), scale, format);
        cr_assert(qz_float_decode(qz_float_encode(once, scale, format), scale, format) == once);
    }
}

Test(floatgrid_property, twice_is_once)
{
    for_every_grid(twice_is_once);
}
