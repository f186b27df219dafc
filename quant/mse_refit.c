/* Scale and zero for fixed codes, in closed form. With t = code - zero and o = 1 in every place the error is
 * s t + b o - w, so the best s is <t, w> / <t, t>; a zero that may move is b = -s (its move), and the two normal
 * equations give both. The zero is rounded to a code, then the scale is found once more for it. */
#include <math.h>

#include "quant/mse.h"

void qz_mse_shrunk(qz_qtensor *q, int64_t piece, const qz_mse_options *o, float lo, float hi, int step)
{
    const float most = -lo > hi ? -lo : hi, part = (float)(o->shrink * step / o->steps), limit = most * (1.0f - part);
    qz_piece_fit(q, piece, lo < -limit ? -limit : lo, hi > limit ? limit : hi);
}

/* How far the zero moves: of the two normal equations, rounded and kept among the codes. */
static double zero_move(const qz_qtensor *q, int64_t piece, const qz_mse_sums *s)
{
    const double det = s->tt * s->oo - s->to * s->to, top = (1 << qz_format_of(q->scheme.format)->bits) - 1;
    const double scale = (s->tw * s->oo - s->to * s->ow) / det, shift = (s->tt * s->ow - s->to * s->tw) / det;
    const double zero = rint(q->zeros[piece] - shift / scale), least = q->scheme.least_zero;
    if (!(det > 1e-9 * s->tt * s->oo) || !(scale > 0) || !isfinite(zero)) return 0;
    return (zero < least ? least : zero > top ? top : zero) - q->zeros[piece];
}

void qz_mse_refit(qz_qtensor *q, int64_t piece, const qz_mse_sums *s)
{
    const qz_scheme *scheme = &q->scheme;
    const double move = q->zeros ? zero_move(q, piece, s) : 0;
    const double scale = (s->tw - move * s->ow) / (s->tt - 2 * move * s->to + move * move * s->oo);
    if (!(scale > 0) || !(scale < 3e38)) return;
    if (q->zeros) q->zeros[piece] = (uint8_t)(q->zeros[piece] + (int)move);
    q->scales[piece] = qz_scale_round((float)scale, 1, scheme->scale_type);
    if (scheme->narrow && scheme->scale_type == QZ_F32)
        q->scales[piece] = qz_grid_narrow_scale(q->scales[piece], qz_format_of(scheme->format)->bits);
}
