/* Causal attention with grouped queries and its gradient, plainly: one query or one key at a time, in double. Vaswani
 * et al. 2017, eq. 1; sliding window as in Mistral (Jiang et al. 2023), score cap as in Gemma 2. Scores are computed
 * anew in each pass, so that no memory is needed.
 *
 * With p = exp(score - lse) and delta = dy . y the gradients are
 *     dv_j = sum_t p_tj dy_t      ds_tj = p_tj (dy_t . v_j - delta_t) d score / d (q . k)
 *     dq_t = sum_j ds_tj k_j      dk_j = sum_t ds_tj q_t
 * where d score / d (q . k) = scale (1 - (score / softcap)^2). */
#include <math.h>

#include "kernels/tables.h"

enum { STEP = 64 }; /* channels that are summed at a time */

typedef struct query {
    const float *q, *dy, *y;                       /* (D) */
    const float *k, *v;                            /* (S, D) of its kv head */
    int64_t k_stride, v_stride, size, first, last; /* keys first..last are seen */
    double scale, softcap, lse;
} query;

static float *row_of(const qz_tensor *x, int64_t batch, int64_t token, int64_t head)
{
    return qz_f32(x) + batch * x->stride[0] + token * x->stride[1] + head * x->stride[2];
}

static query query_of(const qz_tensor *q, const qz_tensor *k, const qz_tensor *v, const qz_attention *how, int64_t b,
                      int64_t t, int64_t h)
{
    const int64_t tokens = q->shape[1], group = q->shape[2] / k->shape[2];
    query c = {.k_stride = k->stride[1], .v_stride = v->stride[1], .size = q->shape[3]};
    c.last = k->shape[1] - tokens + t;
    c.q = row_of(q, b, t, h);
    c.k = row_of(k, b, 0, h / group);
    c.v = row_of(v, b, 0, h / group);
    c.scale = how->scale;
    c.softcap = how->softcap;
    c.first = how->window > 0 && c.last - how->window + 1 > 0 ? c.last - how->window + 1 : 0;
    if (how->first && how->first[b * tokens + t] > c.first) c.first = how->first[b * tokens + t];
    return c;
}

static double dot(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t d = 0; d < count; d++) sum += (double)a[d] * b[d];
    return sum;
}

static double score(const query *c, int64_t s)
{
    const double sum = dot(c->q, c->k + s * c->k_stride, c->size) * c->scale;
    return c->softcap > 0 ? c->softcap * tanh(sum / c->softcap) : sum;
}

static double attend(float *y, const query *c)
{
    double max = -INFINITY, sum = 0;
    for (int64_t s = c->first; s <= c->last; s++) max = fmax(max, score(c, s));
    for (int64_t s = c->first; s <= c->last; s++) sum += exp(score(c, s) - max);
    for (int64_t d0 = 0; d0 < c->size; d0 += STEP) {
        double out[STEP] = {0};
        int64_t count = c->size - d0 < STEP ? c->size - d0 : STEP;
        for (int64_t s = c->first; s <= c->last; s++) {
            double p = exp(score(c, s) - max) / sum;
            for (int64_t d = 0; d < count; d++) out[d] += p * c->v[s * c->v_stride + d0 + d];
        }
        for (int64_t d = 0; d < count; d++) y[d0 + d] = (float)out[d];
    }
    return max + log(sum);
}

qz_status qz_ref_attention(const qz_tensor *y, const qz_tensor *lse, const qz_tensor *q, const qz_tensor *k,
                           const qz_tensor *v, const qz_attention *how)
{
    const int64_t tokens = q->shape[1], heads = q->shape[2];
    for (int64_t i = 0; i < q->shape[0] * tokens * heads; i++) {
        const int64_t h = i % heads, t = i / heads % tokens, b = i / heads / tokens;
        const query c = query_of(q, k, v, how, b, t, h);
        const double sum = attend(row_of(y, b, t, h), &c);
        if (lse) qz_f32(lse)[b * lse->stride[0] + t * lse->stride[1] + h] = (float)sum;
    }
    return QZ_OK;
}

/* p and ds of key s. */
static void weigh(double *p, double *ds, const query *c, int64_t s)
{
    const double x = score(c, s), slope = c->softcap > 0 ? 1 - x / c->softcap * (x / c->softcap) : 1;
    *p = exp(x - c->lse);
    *ds = *p * (dot(c->dy, c->v + s * c->v_stride, c->size) - dot(c->dy, c->y, c->size)) * slope * c->scale;
}

typedef struct gradient {
    const qz_tensor *dy, *y, *lse, *q, *k, *v;
    const qz_attention *how;
} gradient;

static query gradient_query(const gradient *g, int64_t b, int64_t t, int64_t h)
{
    query c = query_of(g->q, g->k, g->v, g->how, b, t, h);
    c.dy = row_of(g->dy, b, t, h);
    c.y = row_of(g->y, b, t, h);
    c.lse = qz_f32(g->lse)[b * g->lse->stride[0] + t * g->lse->stride[1] + h];
    return c;
}

static void grad_query(float *dq, const query *c)
{
    for (int64_t d0 = 0; d0 < c->size; d0 += STEP) {
        const int64_t count = c->size - d0 < STEP ? c->size - d0 : STEP;
        double out[STEP] = {0}, p, ds;
        for (int64_t s = c->first; s <= c->last; s++) {
            weigh(&p, &ds, c, s);
            for (int64_t d = 0; d < count; d++) out[d] += ds * c->k[s * c->k_stride + d0 + d];
        }
        for (int64_t d = 0; d < count; d++) dq[d0 + d] = (float)out[d];
    }
}

/* Channels [d0, d0 + count) of one key, over all queries that see it. */
static void grad_key(double *dk, double *dv, const gradient *g, int64_t b, int64_t s, int64_t hk, int64_t d0,
                     int64_t count)
{
    const int64_t tokens = g->q->shape[1], group = g->q->shape[2] / g->k->shape[2];
    for (int64_t i = 0; i < group * tokens; i++) {
        const query c = gradient_query(g, b, i % tokens, hk * group + i / tokens);
        double p, ds;
        if (s < c.first || s > c.last) continue;
        weigh(&p, &ds, &c, s);
        for (int64_t d = 0; d < count; d++) {
            dk[d] += ds * c.q[d0 + d];
            dv[d] += p * c.dy[d0 + d];
        }
    }
}

static void grad_keys(const qz_tensor *dk, const qz_tensor *dv, const gradient *g)
{
    const int64_t keys = dk->shape[1], heads = dk->shape[2], size = dk->shape[3];
    for (int64_t i = 0; i < dk->shape[0] * keys * heads; i++) {
        const int64_t hk = i % heads, s = i / heads % keys, b = i / heads / keys;
        for (int64_t d0 = 0; d0 < size; d0 += STEP) {
            const int64_t count = size - d0 < STEP ? size - d0 : STEP;
            double sum_k[STEP] = {0}, sum_v[STEP] = {0};
            grad_key(sum_k, sum_v, g, b, s, hk, d0, count);
            for (int64_t d = 0; d < count; d++) {
                row_of(dk, b, s, hk)[d0 + d] = (float)sum_k[d];
                row_of(dv, b, s, hk)[d0 + d] = (float)sum_v[d];
            }
        }
    }
}

qz_status qz_ref_attention_grad(const qz_tensor *dq, const qz_tensor *dk, const qz_tensor *dv, const qz_tensor *delta,
                                const qz_tensor *dy, const qz_tensor *y, const qz_tensor *lse, const qz_tensor *q,
                                const qz_tensor *k, const qz_tensor *v, const qz_attention *how)
{
    const int64_t tokens = q->shape[1], heads = q->shape[2];
    const gradient g = {dy, y, lse, q, k, v, how};
    (void)delta; /* computed where it is used, in double */
    for (int64_t i = 0; i < q->shape[0] * tokens * heads; i++) {
        const int64_t h = i % heads, t = i / heads % tokens, b = i / heads / tokens;
        const query c = gradient_query(&g, b, t, h);
        grad_query(row_of(dq, b, t, h), &c);
    }
    grad_keys(dk, dv, &g);
    return QZ_OK;
}
