/* Gram matrix -> the factor that the solver gptq works with, once for all linears of an input.
 *
 * With rows and columns reversed a lower Cholesky factor becomes the upper one of H = R R^T, so one factorization is
 * enough (Frantar et al. 2022 take three steps: factor, inverse, factor of the inverse). It is computed in FP64, the
 * lower triangle alone, and kept as a whole FP32 matrix in the same memory: little more than 4 K^2 bytes.
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
static void reversed(qz_triangle h, const qz_gptq_factor *f)
{
    const int64_t k = h.size;
    QZ_PARALLEL_FOR
    for (int64_t i0 = 0; i0 < k; i0 += BLOCK)
        for (int64_t i = i0; i < i0 + BLOCK && i < k; i++) {
            const float *row = f->stats->gram + f->visit[k - 1 - i] * k;
            double *out = qz_triangle_row(h, i);
            const double own = row[f->visit[k - 1 - i]];
            for (int64_t j = 0; j < i; j++) out[j] = row[f->visit[k - 1 - j]];
            out[i] = own > 0 ? own + f->added : 1;
        }
}

/* The factor stands reversed, R_jk at (K-1-j, K-1-k), so l lies mirrored at the other diagonal. Places change in pairs,
 * here those whose upper one is in a tile of rows. */
static void turn_rows(double *const *row, const double *own, int64_t size, int64_t first)
{
    const int64_t last = size - 1;
    for (int64_t j0 = 0; j0 < size; j0 += BLOCK)
        for (int64_t k = first; k < first + BLOCK && k < size; k++)
            for (int64_t j = j0; j < j0 + BLOCK && j <= k && j + k <= last; j++) {
                double *here = row[k] + j, *there = row[last - j] + last - k;
                const double value = *here;
                *here = *there / own[k];
                if (here != there) *there = value / own[last - j];
            }
}

/* The triangle as fp32 in the first half of its memory, row after row to where others have gone. */
static void narrow(qz_triangle h)
{
    float *out = (float *)h.data;
    for (int64_t k = 0; k < h.size; k++) {
        const int64_t at = qz_triangle_offset(h, k);
        for (int64_t j = 0; j < k; j++) out[at + j] = (float)h.data[at + j];
    }
}

/* Then as a whole matrix, zeros above the diagonal: no row of the triangle begins behind where it goes, so the last
 * goes first. */
static void spread(qz_triangle h)
{
    float *l = (float *)h.data;
    for (int64_t k = h.size; k-- > 0;) {
        float *out = l + k * h.size;
        memmove(out, l + qz_triangle_offset(h, k), (size_t)k * sizeof *l);
        out[k] = 1;
        memset(out + k + 1, 0, (size_t)(h.size - k - 1) * sizeof *l);
    }
}

/* l_kj = R_jk / R_kk in the memory of the factor; R_kk^2. */
static void keep(qz_gptq_factor *f, qz_triangle h, double **row)
{
    const int64_t size = h.size, last = size - 1;
    for (int64_t k = 0; k < size; k++) row[k] = qz_triangle_row(h, k);
    for (int64_t k = 0; k < size; k++) f->weight[k] = row[last - k][last - k];
    QZ_PARALLEL_FOR
    for (int64_t k = 0; k < size; k += BLOCK) turn_rows(row, f->weight, size, k);
    narrow(h);
    spread(h);
    f->l = (float *)h.data;
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
static qz_status factorize(bool *done, qz_gptq_factor *f, const qz_backend *backend, qz_triangle h, double **row)
{
    const qz_tensor view = qz_tensor_1d(h.data, QZ_F64, qz_triangle_count(h.size));
    const double mean = live_mean(f->stats, &f->dead);
    *done = false;
    for (int i = 0; i < RUNGS && !*done; i++) {
        int64_t failed;
        f->damping = ladder[i];
        f->added = ladder[i] * mean;
        reversed(h, f);
        QZ_TRY(qz_op_cholesky(backend, &view, h.size, &failed));
        *done = failed < 0;
    }
    if (*done) keep(f, h, row);
    return QZ_OK;
}

static qz_status make(qz_gptq_factor **out, const qz_gptq_factor *key, const qz_backend *backend, qz_arena *arena)
{
    const size_t k = (size_t)key->stats->k;
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
    double *h = qz_arena_array(arena, double, (size_t)qz_triangle_count(f->stats->k));
    double **row = qz_arena_array(arena, double *, k);
    if (!h || !row) return qz_arena_failed(arena);
    QZ_TRY(factorize(&done, f, backend, qz_triangle_of(h, f->stats->k), row));
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
    return (uint64_t)qz_triangle_count(k) * sizeof(double) +
           n * (sizeof(int32_t) + sizeof(double) + sizeof(float) + sizeof(double *)) + PADDING;
}
