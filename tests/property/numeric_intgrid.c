/* What holds for every integer grid: codes come back, encoding is nearest and monotone over all 16-bit inputs, and
 * quantizing twice changes nothing. */
#include "numeric/intgrid.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "testing/testing.h"

enum { GRIDS = 9 };
static const float lows[GRIDS] = {0, -1, -3.7f, 0, -1e-6f, -0.4f, -65504, -1e-30f, -0.013f};
static const float highs[GRIDS] = {0, 1, 9.1f, 2.2f, 3e-6f, 0, 60000, 1e-30f, 0.2f};
static const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};

typedef void (*grid_check)(qz_grid g, qz_zero_rule rule);

/* Every width, rule, symmetry, stored type and range. */
static void for_every_grid(grid_check check)
{
    for (int variant = 0; variant < GRIDS * 7 * 12; variant++) {
        const int r = variant % GRIDS, bits = 2 + variant / GRIDS % 7, rest = variant / GRIDS / 7;
        const qz_zero_rule rule = rest & 1 ? QZ_ROUND_SUM : QZ_ROUND_VALUE;
        check(qz_grid_of(lows[r], highs[r], bits, rest >> 1 & 1, types[rest >> 2], rule), rule);
    }
}

static void codes_come_back(qz_grid g, qz_zero_rule rule)
{
    cr_assert(g.scale > 0 && isfinite(g.scale) && g.zero >= 0 && g.zero <= g.top);
    for (int c = 0; c <= g.top; c++)
        cr_assert(qz_grid_encode(qz_grid_decode(c, g), g, rule) == c, "scale %.9g zero %d code %d", g.scale, g.zero, c);
}

Test(intgrid_property, codes_come_back)
{
    for_every_grid(codes_come_back);
}

/* No other code is nearer, up to the rounding of one division (in fp64, relative to the scale). */
static void nearest(float w, qz_grid g, int code)
{
    const double mine = fabs((double)w - (code - g.zero) * (double)g.scale), slack = 1e-6 * fabs((double)w);
    const int beside[] = {code - 1, code + 1};
    for (int i = 0; i < 2; i++) {
        if (beside[i] < 0 || beside[i] > g.top) continue;
        const double other = fabs((double)w - (beside[i] - g.zero) * (double)g.scale);
        cr_assert(mine <= other + slack + 1e-4 * g.scale, "%.9g: code %d, %d is nearer", w, code, beside[i]);
    }
}

/* fp16 numbers in ascending order: from the most negative to the largest. */
static float ordered(int i)
{
    return i < 0x7C00 ? qz_f16_decode((uint16_t)(0xFBFF - i)) : qz_f16_decode((uint16_t)(i - 0x7C00));
}

static void nearest_and_monotone(qz_grid g, qz_zero_rule rule)
{
    int last = 0;
    for (int i = 0; i < 2 * 0x7C00; i++) {
        const float w = ordered(i);
        const int code = qz_grid_encode(w, g, rule);
        cr_assert(code >= last && code <= g.top, "%.9g: code %d after %d", w, code, last);
        nearest(w, g, code);
        last = code;
    }
    cr_assert(qz_grid_encode(-0.0f, g, rule) == g.zero);
}

Test(intgrid_property, nearest_and_monotone_over_all_halves)
{
    for_every_grid(nearest_and_monotone);
}

static void twice_is_once(qz_grid g, qz_zero_rule rule)
{
    qz_rng rng;
    qz_rng_seed(&rng, 7, (uint64_t)g.top);
    for (int i = 0; i < 200; i++) {
        const float w = (float)(qz_rng_normal(&rng) * g.scale * g.top / 3);
        const float once = qz_grid_decode(qz_grid_encode(w, g, rule), g);
        cr_assert(qz_grid_decode(qz_grid_encode(once, g, rule), g) == once);
    }
}

Test(intgrid_property, twice_is_once)
{
    for_every_grid(twice_is_once);
}
