/* Causal attention a tile of queries by a tile of keys at a time, so that no T x S matrix exists (Dao et al. 2022,
 * FlashAttention, algorithm 1): per query the largest score m and the sum l of exp(score - m) so far are kept; when m
 * grows, l and the output so far are multiplied by exp(m_old - m_new). Tiles that the sliding window or causality mask
 * are skipped. Products fp32, l fp64; tiles depend on shapes alone. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_attention.h"
#include "kernels/cpu_blas.h"

/* QUERIES x KEYS floats: 128 KiB of stack. */
enum { QUERIES = 128, KEYS = 256, LANES = 16 };

typedef struct tile {
    qz_tile q, k, v, y;   /* of one head: rows are tokens */
    int64_t size;         /* D */
    int64_t first, count; /* queries */
    qz_seen seen;
    float scale, softcap; /* softcap 0: none */
    float max[QUERIES];   /* m */
    double sum[QUERIES];  /* l */
    float score[QUERIES * KEYS];
} tile;

/* softcap * tanh(s / softcap), with tanh(u) = 1 - 2 / (exp(2 u) + 1) */
QZ_WIDE static void cap_row(float *s, int64_t count, float cap)
{
    for (int64_t i = 0; i < count; i++) s[i] = cap * (1 - 2 / (qz_fast_exp(2 * (s[i] / cap)) + 1));
}

QZ_WIDE static void multiply_row(float *y, int64_t count, float factor)
{
    for (int64_t i = 0; i < count; i++) y[i] *= factor;
}

QZ_WIDE static float max_row(const float *s, int64_t count, float max)
{
    float lane[LANES];
    int64_t i = 0;
    for (int l = 0; l < LANES; l++) lane[l] = max;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] = s[i + l] > lane[l] ? s[i + l] : lane[l];
    }
    for (; i < count; i++) max = s[i] > max ? s[i] : max;
    for (int l = 0; l < LANES; l++) max = lane[l] > max ? lane[l] : max;
    return max;
}

QZ_WIDE static void exp_row(float *s, int64_t count, float max)
{
    for (int64_t i = 0; i < count; i++) s[i] = qz_attention_weight(s[i] - max);
}

QZ_WIDE static double sum_row(const float *s, int64_t count)
{
    float lane[LANES] = {0};
    double sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] += s[i + l];
    }
    for (; i < count; i++) sum += (double)s[i];
    for (int l = 0; l < LANES; l++) sum += (double)lane[l];
    return sum;
}

/* One row of scores of keys [key, key + count) -> weights relative to the new maximum; masked ones become 0. */
static void soften_row(tile *c, int64_t row, int64_t key, int64_t count)
{
    float *s = c->score + row * KEYS;
    const int64_t query = c->first + row;
    int64_t low = qz_seen_first(&c->seen, query) - key, high = qz_min(c->seen.past + query + 1 - key, count);
    if (low < 0) low = 0;
    if (low >= high) {
        memset(s, 0, (size_t)count * sizeof *s);
        return;
    }
    multiply_row(s + low, high - low, c->scale);
    if (c->softcap > 0) cap_row(s + low, high - low, c->softcap);
    const float old = c->max[row], max = max_row(s + low, high - low, old);
    if (max > old && c->sum[row] > 0) {
        const float factor = qz_attention_weight(old - max);
        c->sum[row] *= factor;
        multiply_row(c->y.data + row * c->y.stride, c->size, factor);
    }
    c->max[row] = max;
    exp_row(s + low, high - low, max);
    c->sum[row] += sum_row(s + low, high - low);
    memset(s, 0, (size_t)low * sizeof *s);
    memset(s + high, 0, (size_t)(count - high) * sizeof *s);
}

static void attend(tile *c)
{
    const int64_t end = c->seen.past + c->first + c->count;
    const int64_t begin = qz_seen_least(&c->seen, c->first, c->count) / KEYS * KEYS;
    const qz_tile score = {c->score, KEYS};
    for (int64_t row = 0; row < c->count; row++) {
        c->max[row] = -INFINITY;
        c->sum[row] = 0;
    }
    for (int64_t key = begin; key < end; key += KEYS) {
        const int64_t count = qz_min(KEYS, end - key);
        qz_blas_nt(c->count, count, c->size, c->q, qz_tile_at(c->k, key, 0), 0, score);
        for (int64_t row = 0; row < c->count; row++) soften_row(c, row, key, count);
        qz_blas_nn(c->count, c->size, count, score, qz_tile_at(c->v, key, 0), key > begin ? 1 : 0, c->y);
    }
    for (int64_t row = 0; row < c->count; row++)
        multiply_row(c->y.data + row * c->y.stride, c->size, (float)(1 / c->sum[row]));
}

static qz_tile head_of(const qz_tensor *x, int64_t batch, int64_t token, int64_t head)
{
    return (qz_tile){qz_f32(x) + batch * x->stride[0] + token * x->stride[1] + head * x->stride[2], x->stride[1]};
}

static void keep_sums(const tile *c, float *lse, int64_t stride)
{
    for (int64_t row = 0; row < c->count; row++) lse[row * stride] = (float)(c->max[row] + log(c->sum[row]));
}

qz_status qz_cpu_attention(const qz_tensor *y, const qz_tensor *lse, const qz_tensor *q, const qz_tensor *k,
                           const qz_tensor *v, const qz_attention *how)
{
    const int64_t tokens = q->shape[1], heads = q->shape[2], group = heads / k->shape[2];
    const int64_t side = qz_tile_side(tokens, QUERIES, 32, 2), tiles = qz_ceil_div(tokens, side);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < q->shape[0] * heads * tiles; i++)
    {
        const int64_t t = i % tiles * side, h = i / tiles % heads, b = i / tiles / heads;
        tile c; /* not initialised as a whole: the scores are large */
        c.size = q->shape[3];
        c.count = qz_min(side, tokens - t);
        c.seen = (qz_seen){k->shape[1] - tokens, how->window, how->first ? how->first + b * tokens : NULL};
        c.scale = how->scale;
        c.first = t;
        c.softcap = how->softcap;
        c.q = head_of(q, b, t, h);
        c.y = head_of(y, b, t, h);
        c.k = head_of(k, b, 0, h / group);
        c.v = head_of(v, b, 0, h / group);
        attend(&c);
        if (lse) keep_sums(&c, qz_f32(lse) + b * lse->stride[0] + t * lse->stride[1] + h, lse->stride[1]);
    }
    return QZ_OK;
}
