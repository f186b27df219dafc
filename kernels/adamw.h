/* One element of a step of AdamW, in fp32 and in the order in which torch 2 does it (torch/optim/adam.py, the
 * single-tensor form), so that a run can be compared with one there step by step:
 *
 *     p = p (1 - rate decay);  m = m + (g - m)(1 - beta1);  v = v beta2 + (1 - beta2) g g
 *     p = p + (-rate / (1 - beta1^t)) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
 *
 * The numbers of a whole step are worked out in double and rounded once. Nothing outside kernels/ includes this. */
#ifndef QZ_KERNELS_ADAMW_H
#define QZ_KERNELS_ADAMW_H

#include <math.h>

#include "kernels/kernels.h"
#include "numeric/codebook.h"

typedef struct qz_adamw_step {
    float keep, one_minus_beta1, beta2, one_minus_beta2, step_size, root, epsilon, factor;
} qz_adamw_step;

static inline qz_adamw_step qz_adamw_step_of(const qz_adamw *how)
{
    return (qz_adamw_step){
        .keep = (float)(1 - how->rate * how->decay),
        .one_minus_beta1 = (float)(1 - how->beta1),
        .beta2 = (float)how->beta2,
        .one_minus_beta2 = (float)(1 - how->beta2),
        .step_size = (float)-(how->rate / (1 - pow(how->beta1, (double)how->step))),
        .root = (float)sqrt(1 - pow(how->beta2, (double)how->step)),
        .epsilon = (float)how->epsilon,
        .factor = (float)how->gradient_factor,
    };
}

/* *m and *v are moved on; the new value of p. */
static inline float qz_adamw_element(float p, float *m, float *v, float gradient, const qz_adamw_step *s)
{
    const float g = gradient * s->factor;
    const float m_next = *m + (g - *m) * s->one_minus_beta1, v_next = *v * s->beta2 + s->one_minus_beta2 * g * g;
    *m = m_next;
    *v = v_next;
    return p * s->keep + s->step_size * m_next / (sqrtf(v_next) / s->root + s->epsilon);
}

/* The code of a second moment, x in [0, 1] of its block's largest: the nearest, but above 0 where x is. With 0 the next
 * step would be m / epsilon wherever the gradient is rare and small beside its neighbours'; this way it is too short.
 */
static inline uint8_t qz_adamw_second_code(float x)
{
    const uint8_t code = qz_dynamic_unsigned_encode(x);
    return code == 0 && x > 0 ? 1 : code;
}

#endif
