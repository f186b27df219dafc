/* Integer grids: value = (code - zero) * scale with code in 0 .. 2^bits - 1.
 *
 * One piece (a group, a row, a tensor) goes through three steps, each written once and used by solvers, fake-quant,
 * exporters and tests:
 *     range   lo = min(w, 0), hi = max(w, 0)                              qz_range_of
 *     grid    scale, zero from the range                                   qz_grid_of
 *     codes   rint(w / scale) + zero, clamped                              qz_grid_encode
 * The scale is rounded to the type it will be stored in before the zero and any code is chosen.
 * Definitions for the corners: an all-zero piece has scale 2^-23 (or the smallest normal number of a stored type that
 * cannot hold it) and codes equal to the zero; -0 is 0; a scale that underflows its stored type becomes that type's
 * smallest normal number. NaN and infinities never come here (weights are checked when they are read). */
#ifndef QZ_NUMERIC_INTGRID_H
#define QZ_NUMERIC_INTGRID_H

#include <stdint.h>

#include "base/hd.h"
#include "numeric/format.h"
#include "numeric/minifloat.h"

typedef struct qz_grid {
    float scale;
    int zero; /* a code; 2^(bits-1) when symmetric */
    int top;  /* largest code, 2^bits - 1 */
} qz_grid;

/* Symmetric: scale = 2 max(-lo, hi) / top. Asymmetric: scale = (hi - lo) / top, zero = clamp(rint(-lo / scale)).
 * `lo` <= 0 <= `hi` (AutoAWQ lets a range leave out 0; ours always contains it). */
QZ_HD qz_grid qz_grid_of(float lo, float hi, int bits, int symmetric, qz_dtype scale_type, qz_zero_rule rule);
QZ_HD int qz_grid_encode(float w, qz_grid g, qz_zero_rule rule);
QZ_HD float qz_grid_decode(int code, qz_grid g); /* one fp32 product */

/* Bodies: the numeric helper fills them in here. */

#endif
