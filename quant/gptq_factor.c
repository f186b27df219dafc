/* Gram matrix -> the factor that the solver gptq works with, once for all linears of an input.
 *
 * With rows and columns reversed a lower Cholesky factor becomes the upper one of H = R R^T, so one factorization is
 * enough (Frantar et al. 2022 take three steps: factor, inverse, factor of the inverse). It is computed in FP64 and
 * kept in FP32 in the same memory, 8 K^2 bytes.
 *
 * Damping: a rung of the ladder times the mean of diag(G) over the channels that fired is added to their diagonal; the
 * next rung is taken when a pivot is not positive. A channel that never fired has a 1 there and nothing beside it: no
 * error is passed to it or by it. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "quant/gptq.h"

enum { BLOCK = 64, RUNGS = 5 }; /* a tile of the transposition stays in the cache */

static const double ladder[RUNGS] = {0.01, 0.03, 0.1, 0.3, 1.0};

const char *qz_gptq_ladder(void)
{
    return "0.01, 0.03, 0.1, 0.3, 1";
}

static double live_mean(const qz_stats *s, int64_t *dead)
{
    double sum = 0;
    *dead = 0;
    for (int64_t k = 0; k < s->k; k++) {
        sum += s->gram[k * (s->k + 1)];
        *dead += !(s->gram[k * (s->k + 1)] > 0);
    }
    return *dead < s->k ? sum / (double)(s->k - *dead) : 0;
}

/* The lower triangle of H with rows and columns reversed. */
static void reversed(double *h, const qz_gptq_factor *f)
{
    const int64_t k = f->stats->k;
    QZ_PARALLEL_FOR
    for (int64_t i0 = 0; i0 < k; i0 += BLOCK)
        for (int64_t i = i0; i < i0 + BLOCK && i < k; i++) {
            const float *row = f->stats->gram + f->visit[k - 1 - i] * k;
            double *out = h + i * k;
            const double own = row[f->visit[k - 1 - i]];
            for (int64_t j = 0; j < i; j++) out[j] = row[f->visit[k - 1 - j]];
            out[i] = own > 0 ? own + f->added : 1;
        }
}

/* The factor stands reversed, R_jk at (K-1-j, K-1-k), so l lies mirrored at the other diagonal. Places change in pairs,
 * here those whose upper one is in a tile of rows. */
static void turn_rows(double *h, const double *own, int64_t size, int64_t first)
{
    const int64_t last = size - 1;
    for (int64_t j0 = 0; j0 < size; j0 += BLOCK)
        for (int64_t k = first; k < first + BLOCK && k < size; k++)
            for (int64_t j = j0; j < j0 + BLOCK && j <= k && j + k <= last; j++) {
                double *here = h + k * size + j, *there = h + (last - j) * size + last - k;
                const double value = *here;
                *here = *there / own[k];
                if (here != there) *there = value / own[last - j];
            }
}

/* The lower triangle of `h` as fp32 with zeros above, in the same memory: a row moves to where others have gone. */
static void squeeze(float *l, const double *h, int64_t size)
{
    for (int64_t k = 0; k < size; k++) {
        for (int64_t j = 0; j < k; j++) l[k * size + j] = (float)h[k * size + j];
        l[k * size + k] = 1;
        memset(l + k * size + k + 1, 0, (size_t)(size - k - 1) * sizeof *l);
    }
}

/* l_kj = R_jk / R_kk in the memory of the factor; R_kk^2. */
static void keep(qz_gptq_factor *f, double *h)
{
    const int64_t size = f->stats->k, last = size - 1;
    for (int64_t k = 0; k < size; k++) f->weight[k] = h[(last - k) * (size + 1)];
    QZ_PARALLEL_FOR
    for (int64_t k = 0; k < size; k += BLOCK) turn_rows(h, f->weight, size, k);
    f->l = (float *)h;
    squeeze(f->l, h, size);
    for (int64_t k = 0; k < size; k++) {
        const bool fired = f->stats->gram[f->visit[k] * (size + 1)] > 0;
        f->weight[k] = fired ? f->weight[k] * f->weight[k] : 0;
        f->cost[f->visit[k]] = (float)f->weight[k];
    }
}

/* The first channel whose row of G holds something that is not finite, or -1. */
static qz_status check_finite(const qz_backend *backend, const qz_stats *s)
{
    const qz_tensor gram = qz_tensor_2d(s->gram, QZ_F32, s->k, s->k);
    int64_t index;
    QZ_TRY(qz_op_first_nonfinite(backend, &gram, &index));
    if (index < 0) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC, "the statistics of channel %lld are not finite (with channel %lld: %g)",
                   (long long)(index / s->k), (long long)(index % s->k), (double)s->gram[index]);
}

/* *done: a rung was good. */
static qz_status factorize(bool *done, qz_gptq_factor *f, const qz_backend *backend, double *h)
{
    const int64_t k = f->stats->k;
    const qz_tensor view = qz_tensor_2d(h, QZ_F64, k, k);
    const double mean = live_mean(f->stats, &f->dead);
    *done = false;
    for (int i = 0; i < RUNGS && !*done; i++) {
        int64_t failed;
        f->damping = ladder[i];
        f->added = ladder[i] * mean;
        reversed(h, f);
        QZ_TRY(qz_op_cholesky(backend, &view, &failed));
        *done = failed < 0;
    }
    if (*done) keep(f, h);
    return QZ_OK;
}

static qz_status make(qz_gptq_factor **out, const qz_gptq_factor *key, const qz_backend *backend, qz_arena *arena)
{
    const size_t k = (size_t)key->stats->k, all = k * k;
    bool done;
    qz_gptq_factor *f = *out = qz_arena_array(arena, qz_gptq_factor, 1);
    if (!f) return qz_arena_failed(arena);
    *f = *key;
    f->visit = qz_arena_array(arena, int32_t, k);
    f->weight = qz_arena_array(arena, double, k);
    f->cost = qz_arena_array(arena, float, k);
    if (!f->visit || !f->weight || !f->cost) return qz_arena_failed(arena);
    QZ_TRY(check_finite(backend, f->stats));
    QZ_TRY(qz_gptq_visit(f->visit, f->stats, f->order, f->group, arena));
    const qz_arena_mark mark = qz_arena_save(arena);
    double *h = qz_arena_array(arena, double, all);
    if (!h) return qz_arena_failed(arena);
    QZ_TRY(factorize(&done, f, backend, h));
    if (done) return QZ_OK;
    qz_arena_restore(arena, mark);
    *out = NULL;
    return QZ_OK;
}

qz_status qz_gptq_factor_get(const qz_gptq_factor **out, const qz_solve_args *args, qz_gptq_order order, int64_t group,
                             qz_arena *arena)
{
    qz_solve_shared *shared = args->shared;
    const qz_gptq_factor key = {.next = shared ? shared->kept : NULL,
                                .stats = args->stats,
                                .order = order,
                                .group = order == QZ_GPTQ_GAR ? group : 0};
    for (const qz_gptq_factor *f = key.next; f; f = f->next)
        if (f->stats == key.stats && f->order == key.order && f->group == key.group) {
            *out = f;
            return QZ_OK;
        }
    qz_gptq_factor *made;
    QZ_TRY(make(&made, &key, args->backend, shared ? shared->arena : arena));
    if (made && shared) shared->kept = made;
    *out = made;
    return QZ_OK;
}

uint64_t qz_gptq_factor_bytes(int64_t k)
{
    enum { PADDING = 512 };
    const uint64_t n = (uint64_t)k;
    return n * n * sizeof(double) + n * (sizeof(int32_t) + sizeof(double) + sizeof(float)) + PADDING;
}
