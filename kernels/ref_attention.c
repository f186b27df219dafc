/* Causal attention with grouped queries, plainly: one query at a time, three passes over its keys (largest score, sum
 * of exponentials, weighted values), in double. Vaswani et al. 2017, eq. 1; sliding window as in Mistral (Jiang et al.
 * 2023), score cap as in Gemma 2. Scores are computed anew in each pass, so that no memory is needed. */
#include <math.h>

#include "kernels/tables.h"

typedef struct query {
    const float *q;                                /* (D) */
    const float *k, *v;                            /* (S, D) of its kv head */
    int64_t k_stride, v_stride, size, first, last; /* keys first..last are seen */
    double scale, softcap;
} query;

static double score(const query *c, int64_t s)
{
    double sum = 0;
    for (int64_t d = 0; d < c->size; d++) sum += (double)c->q[d] * c->k[s * c->k_stride + d];
    sum *= c->scale;
    return c->softcap > 0 ? c->softcap * tanh(sum / c->softcap) : sum;
}

static void attend(float *y, const query *c)
{
    double max = -INFINITY, sum = 0;
    for (int64_t s = c->first; s <= c->last; s++) max = fmax(max, score(c, s));
    for (int64_t s = c->first; s <= c->last; s++) sum += exp(score(c, s) - max);
    for (int64_t d0 = 0; d0 < c->size; d0 += 64) {
        double out[64] = {0};
        int64_t count = c->size - d0 < 64 ? c->size - d0 : 64;
        for (int64_t s = c->first; s <= c->last; s++) {
            double p = exp(score(c, s) - max) / sum;
            for (int64_t d = 0; d < count; d++) out[d] += p * c->v[s * c->v_stride + d0 + d];
        }
        for (int64_t d = 0; d < count; d++) y[d0 + d] = (float)out[d];
    }
}

qz_status qz_ref_attention(const qz_tensor *y, const qz_tensor *q, const qz_tensor *k, const qz_tensor *v, float scale,
                           int64_t window, float softcap)
{
    int64_t tokens = q->shape[1], heads = q->shape[2], past = k->shape[1] - tokens, group = heads / k->shape[2];
    for (int64_t i = 0; i < q->shape[0] * tokens * heads; i++) {
        int64_t h = i % heads, t = i / heads % tokens, b = i / heads / tokens;
        query c = {.k_stride = k->stride[1], .v_stride = v->stride[1], .size = q->shape[3], .last = past + t};
        c.q = qz_f32(q) + b * q->stride[0] + t * q->stride[1] + h * q->stride[2];
        c.k = qz_f32(k) + b * k->stride[0] + h / group * k->stride[2];
        c.v = qz_f32(v) + b * v->stride[0] + h / group * v->stride[2];
        c.scale = scale;
        c.softcap = softcap;
        c.first = window > 0 && c.last - window + 1 > 0 ? c.last - window + 1 : 0;
        attend(qz_f32(y) + b * y->stride[0] + t * y->stride[1] + h * y->stride[2], &c);
    }
    return QZ_OK;
}
