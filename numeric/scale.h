/* Scales as they are stored: rounded to the type of the container before any code is chosen.
 *
 * Definitions for the corners: the scale of an all-zero piece is 2^-23 (torch.finfo(float32).eps, as compressed-tensors
 * has it; fp16 holds it as a subnormal); a scale that rounds to 0 becomes the type's smallest normal number; one beyond
 * the type becomes its largest finite number. NaN never comes here. */
#ifndef QZ_NUMERIC_SCALE_H
#define QZ_NUMERIC_SCALE_H

#include "base/hd.h"
#include "numeric/format.h"
#include "numeric/minifloat.h"

/* The nearest number of the type that a scale is stored in; overflow gives infinity, underflow 0. A bf16 scale below
 * 2^-17 is rounded on to fp16: then it is a number of both, for containers that store fp16 and run in bf16. */
QZ_HD float qz_scale_store(float scale, qz_dtype type)
{
    if (type == QZ_F16) return qz_f16_decode(qz_f16_encode(scale));
    if (type != QZ_BF16) return scale;
    const float stored = qz_bf16_decode(qz_bf16_encode(scale));
    return stored < 7.62939453e-06f ? qz_f16_decode(qz_f16_encode(stored)) : stored;
}

/* The scale as stored: `positive` says that the piece is not all zero. */
QZ_HD float qz_scale_round(float scale, int positive, qz_dtype type)
{
    const float least = type == QZ_F16 ? 6.103515625e-05f : 1.17549435e-38f;
    const float most = type == QZ_F16 ? 65504.0f : type == QZ_BF16 ? 3.38953139e38f : 3.40282347e38f;
    const float stored = qz_scale_store(positive ? scale : 1.1920928955078125e-07f, type);
    if (stored == 0.0f) return least;
    return stored > most ? most : stored;
}

#endif
