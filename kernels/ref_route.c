/* Mixture of experts, plainly: which experts a token goes to and with what weight, and the sum of what comes back.
 *     p = softmax(logits),   weight = the A largest of p, divided by their sum where the model says so
 * Experts are chosen by logits, so that every backend chooses the same ones. Jiang et al. 2024 (Mixtral), section 2.1.
 */
#include <math.h>

#include "kernels/tables.h"

static bool is_taken(const int32_t *expert, int64_t count, int64_t e)
{
    for (int64_t i = 0; i < count; i++)
        if (expert[i] == e) return true;
    return false;
}

/* The largest logit that is not among the first `count` of `expert`. */
static int32_t next_expert(const float *logit, int64_t experts, const int32_t *expert, int64_t count)
{
    int64_t best = -1;
    for (int64_t e = 0; e < experts; e++)
        if (!is_taken(expert, count, e) && (best < 0 || logit[e] > logit[best])) best = e;
    return (int32_t)best;
}

qz_status qz_ref_route(int32_t *expert, const qz_tensor *weight, const qz_tensor *logits, bool normalize)
{
    const int64_t active = weight->shape[1], experts = logits->shape[1];
    for (int64_t t = 0; t < weight->shape[0]; t++) {
        const float *logit = qz_f32(logits) + t * logits->stride[0];
        float *w = qz_f32(weight) + t * weight->stride[0];
        int32_t *to = expert + t * active;
        double sum = 0;
        for (int64_t i = 0; i < active; i++) to[i] = next_expert(logit, experts, to, i);
        const double max = logit[to[0]];
        for (int64_t i = 0; i < (normalize ? active : experts); i++) sum += exp(logit[normalize ? to[i] : i] - max);
        for (int64_t i = 0; i < active; i++) w[i] = (float)(exp(logit[to[i]] - max) / sum);
    }
    return QZ_OK;
}

qz_status qz_ref_add_rows(const qz_tensor *y, const qz_tensor *x, const int32_t *rows, const qz_tensor *weight)
{
    for (int64_t i = 0; i < x->shape[0]; i++) {
        const float *from = qz_f32(x) + i * x->stride[0];
        float *to = qz_f32(y) + rows[i] * y->stride[0];
        for (int64_t c = 0; c < x->shape[1]; c++) to[c] += qz_f32(weight)[i] * from[c];
    }
    return QZ_OK;
}
