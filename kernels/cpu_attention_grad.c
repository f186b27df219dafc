/* The gradient of causal attention, a tile of queries by a tile of keys at a time (Dao et al. 2022, FlashAttention,
 * algorithm 4): with p = exp(score - lse), delta = dy . y and dscore = p (dy v^T - delta)
 *     dv += p^T dy     dq += dscore k     dk += dscore^T q
 * so that of T x S only two tiles exist. Five products a pair of tiles, where every kv head with its query heads is one
 * piece of work; where these are too few for the threads, dq is computed apart from dk and dv, which needs seven.
 * Either way dq is summed over tiles of keys in their order and dk, dv over heads, then tiles of queries in theirs, so
 * the results are the same bits. */
#include "base/parallel.h"
#include "kernels/cpu_attention.h"
#include "kernels/cpu_blas.h"

/* Two tiles of floats: 256 KiB of stack. */
enum { QUERIES = 128, KEYS = 256, LANES = 16 };

typedef struct tensors {
    const qz_tensor *dq, *dk, *dv, *delta, *dy, *y, *lse, *q, *k, *v;
    const qz_attention *how;
} tensors;

/* One query head and its kv head; rows of tiles are tokens. */
typedef struct head {
    qz_tile q, k, v, dy, dq, dk, dv;
    qz_tile lse, delta; /* (T, 1) */
    qz_seen seen;
    int64_t size; /* D */
    float scale, softcap;
} head;

/* What is wanted of a pair of tiles. */
typedef struct pair {
    const head *h;
    int64_t query, queries, key, keys;
    bool want_dq, want_dkv;
    float weight[QUERIES * KEYS]; /* scores, then p */
    float grad[QUERIES * KEYS];   /* dy v^T, then the gradient of q k^T */
} pair;

typedef struct range {
    int64_t first, last;
} range;

QZ_WIDE static double dot(const float *a, const float *b, int64_t count)
{
    double lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int l = 0; l < LANES; l++) lane[l] += (double)a[i + l] * b[i + l];
    }
    for (; i < count; i++) sum += (double)a[i] * b[i];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

QZ_WIDE static void weigh_row(float *s, float *g, int64_t count, float scale, float lse, float delta)
{
    for (int64_t i = 0; i < count; i++) {
        const float p = qz_attention_weight(s[i] * scale - lse);
        g[i] = p * (g[i] - delta) * scale;
        s[i] = p;
    }
}

/* With score = cap tanh(scale q . k / cap). */
QZ_WIDE static void weigh_capped_row(float *s, float *g, int64_t count, float scale, float cap, float lse, float delta)
{
    for (int64_t i = 0; i < count; i++) {
        const float t = qz_fast_tanh(s[i] * scale / cap), p = qz_attention_weight(cap * t - lse);
        g[i] = p * (g[i] - delta) * (1 - t * t) * scale;
        s[i] = p;
    }
}

/* Row `row` of both tiles; masked keys become 0. */
static void weigh(pair *c, int64_t row)
{
    const head *h = c->h;
    float *s = c->weight + row * KEYS, *g = c->grad + row * KEYS;
    const int64_t t = c->query + row;
    int64_t low = qz_seen_first(&h->seen, t) - c->key, high = qz_min(h->seen.past + t + 1 - c->key, c->keys);
    if (low < 0) low = 0;
    if (low >= high) low = high = 0;
    const float lse = h->lse.data[t * h->lse.stride], delta = h->delta.data[t * h->delta.stride];
    if (h->softcap > 0)
        weigh_capped_row(s + low, g + low, high - low, h->scale, h->softcap, lse, delta);
    else
        weigh_row(s + low, g + low, high - low, h->scale, lse, delta);
    memset(s, 0, (size_t)low * sizeof *s);
    memset(g, 0, (size_t)low * sizeof *g);
    memset(s + high, 0, (size_t)(c->keys - high) * sizeof *s);
    memset(g + high, 0, (size_t)(c->keys - high) * sizeof *g);
}

/* The keys of tile [first, last) that any query of the pair sees; false when there are none. */
static bool choose_keys(pair *c, int64_t first, int64_t last)
{
    const qz_seen *s = &c->h->seen;
    const int64_t least = qz_seen_least(s, c->query, c->queries);
    c->key = least > first ? least : first;
    c->keys = qz_min(last, s->past + c->query + c->queries) - c->key;
    return c->keys > 0;
}

static void add_pair(pair *c)
{
    const head *h = c->h;
    const qz_tile weight = {c->weight, KEYS}, grad = {c->grad, KEYS};
    const qz_tile q = qz_tile_at(h->q, c->query, 0), dy = qz_tile_at(h->dy, c->query, 0);
    const qz_tile k = qz_tile_at(h->k, c->key, 0), v = qz_tile_at(h->v, c->key, 0);
    qz_blas_nt(c->queries, c->keys, h->size, q, k, 0, weight);
    qz_blas_nt(c->queries, c->keys, h->size, dy, v, 0, grad);
    for (int64_t row = 0; row < c->queries; row++) weigh(c, row);
    if (c->want_dq) qz_blas_nn(c->queries, h->size, c->keys, grad, k, 1, qz_tile_at(h->dq, c->query, 0));
    if (!c->want_dkv) return;
    qz_blas_tn(c->keys, h->size, c->queries, weight, dy, qz_tile_at(h->dv, c->key, 0));
    qz_blas_tn(c->keys, h->size, c->queries, grad, q, qz_tile_at(h->dk, c->key, 0));
}

static qz_tile head_of(const qz_tensor *x, int64_t batch, int64_t index)
{
    return (qz_tile){qz_f32(x) + batch * x->stride[0] + index * x->stride[2], x->stride[1]};
}

static head make_head(const tensors *x, int64_t b, int64_t query_head)
{
    const int64_t tokens = x->q->shape[1], kv_head = query_head / (x->q->shape[2] / x->k->shape[2]);
    return (head){
        .q = head_of(x->q, b, query_head),
        .dy = head_of(x->dy, b, query_head),
        .dq = head_of(x->dq, b, query_head),
        .k = head_of(x->k, b, kv_head),
        .v = head_of(x->v, b, kv_head),
        .dk = head_of(x->dk, b, kv_head),
        .dv = head_of(x->dv, b, kv_head),
        .lse = {qz_f32(x->lse) + b * x->lse->stride[0] + query_head, x->lse->stride[1]},
        .delta = {qz_f32(x->delta) + b * x->delta->stride[0] + query_head, x->delta->stride[1]},
        .seen = {.past = x->k->shape[1] - tokens,
                 .window = x->how->window,
                 .first = x->how->first ? x->how->first + b * tokens : NULL},
        .size = x->q->shape[3],
        .scale = x->how->scale,
        .softcap = x->how->softcap,
    };
}

static void clear(qz_tile x, range rows, int64_t cols)
{
    for (int64_t t = rows.first; t < rows.last; t++) memset(x.data + t * x.stride, 0, (size_t)cols * sizeof *x.data);
}

/* dq of these heads and queries and dk, dv of these keys, whichever is wanted, from all pairs of tiles of them. The
 * heads share a kv head; ranges begin at a tile. */
static void add_pairs(const tensors *x, int64_t b, range heads, range queries, range keys, bool want_dq, bool want_dkv)
{
    pair c; /* not initialised as a whole: the tiles are large */
    c.want_dq = want_dq;
    c.want_dkv = want_dkv;
    const head one = make_head(x, b, heads.first);
    if (want_dkv) clear(one.dk, keys, one.size);
    if (want_dkv) clear(one.dv, keys, one.size);
    for (int64_t i = heads.first; want_dq && i < heads.last; i++) clear(make_head(x, b, i).dq, queries, one.size);
    for (int64_t key = keys.first; key < keys.last; key += KEYS) {
        for (int64_t i = heads.first; i < heads.last; i++) {
            const head h = make_head(x, b, i);
            c.h = &h;
            for (c.query = queries.first; c.query < queries.last; c.query += QUERIES) {
                c.queries = qz_min(QUERIES, queries.last - c.query);
                if (choose_keys(&c, key, qz_min(key + KEYS, keys.last))) add_pair(&c);
            }
        }
    }
}

static void fill_delta(const tensors *x)
{
    const int64_t tokens = x->q->shape[1], heads = x->q->shape[2], size = x->q->shape[3];
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < x->q->shape[0] * tokens; i++) {
        const int64_t b = i / tokens, t = i % tokens;
        for (int64_t h = 0; h < heads; h++)
            qz_f32(x->delta)[b * x->delta->stride[0] + t * x->delta->stride[1] + h] = (float)dot(
                qz_tile_at(head_of(x->dy, b, h), t, 0).data, qz_tile_at(head_of(x->y, b, h), t, 0).data, size);
    }
}

static range tile_range(int64_t i, int64_t side, int64_t count)
{
    return (range){i * side, qz_min((i + 1) * side, count)};
}

/* Every query head and tile of queries, then every kv head and tile of keys. */
static void add_apart(const tensors *x)
{
    const int64_t batches = x->q->shape[0], tokens = x->q->shape[1], heads = x->q->shape[2], keys = x->k->shape[1];
    const int64_t kv_heads = x->k->shape[2], group = heads / kv_heads;
    const int64_t query_tiles = qz_ceil_div(tokens, QUERIES), key_tiles = qz_ceil_div(keys, KEYS);
    const int64_t first = batches * heads * query_tiles, all = first + batches * kv_heads * key_tiles;
    QZ_PARALLEL_FOR for (int64_t i = 0; i < all; i++)
    {
        if (i < first) {
            const int64_t h = i / query_tiles % heads;
            add_pairs(x, i / query_tiles / heads, (range){h, h + 1}, tile_range(i % query_tiles, QUERIES, tokens),
                      (range){0, keys}, true, false);
        } else {
            const int64_t j = i - first, hk = j / key_tiles % kv_heads;
            add_pairs(x, j / key_tiles / kv_heads, (range){hk * group, (hk + 1) * group}, (range){0, tokens},
                      tile_range(j % key_tiles, KEYS, keys), false, true);
        }
    }
}

static void add_together(const tensors *x)
{
    const int64_t tokens = x->q->shape[1], keys = x->k->shape[1], kv_heads = x->k->shape[2];
    const int64_t group = x->q->shape[2] / kv_heads;
    QZ_PARALLEL_FOR for (int64_t i = 0; i < x->q->shape[0] * kv_heads; i++)
    {
        const int64_t hk = i % kv_heads;
        add_pairs(x, i / kv_heads, (range){hk * group, (hk + 1) * group}, (range){0, tokens}, (range){0, keys}, true,
                  true);
    }
}

qz_status qz_cpu_attention_grad(const qz_tensor *dq, const qz_tensor *dk, const qz_tensor *dv, const qz_tensor *delta,
                                const qz_tensor *dy, const qz_tensor *y, const qz_tensor *lse, const qz_tensor *q,
                                const qz_tensor *k, const qz_tensor *v, const qz_attention *how)
{
    const tensors x = {dq, dk, dv, delta, dy, y, lse, q, k, v, how};
    const int64_t pieces = q->shape[0] * k->shape[2], threads = qz_threads();
    fill_delta(&x);
    if (qz_ceil_div(pieces, threads) * threads * 5 <= pieces * 7)
        add_together(&x);
    else
        add_apart(&x);
    return QZ_OK;
}
