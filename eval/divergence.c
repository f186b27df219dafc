/* How far the predictions of one model are from another's on the same windows, while the other's are scored.
 *
 *     KL(P || Q) = sum_v P(v) (log P(v) - log Q(v))       (Kullback and Leibler 1951, eq. 2.5; here in nats)
 *                = sum_v P(v) (a_v - b_v) - L(a) + L(b),  L(x) = max x + log sum_v exp(x_v - max x),
 *
 * for logits a of the base and b of the other. The other's come from the scoring a block of the vocabulary at a time,
 * the base's head computes the same block from its kept hidden states, and the sums of both are put together block by
 * block, so that neither head runs twice and memory does not grow with the vocabulary. The sums are in double: the
 * terms cancel down to 1e-5 and less. Blocks and positions are added in order, so results do not depend on threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/pass.h"

struct qz_divergence_run {
    const qz_hidden *base;
    int64_t first, tokens; /* of the batch that is being scored */
    double *sums, *part;   /* (batch, QZ_DIVERGENCE_SUMS): of the entries so far, and of the next ones */
    float *logits;         /* (batch, entries of a block) of the base */
    uint64_t room;         /* in `logits` */
    double *kl;            /* (windows * length) */
    uint8_t *same;         /* (windows * length) */
    qz_arena *arena, *scratch;
};

static int64_t vocabulary_of(const qz_model *m)
{
    return qz_model_config_of(m)->vocabulary;
}

/* ---- sums ---- */

static void add_side(double *sums, const double *part, int max, int top, int sum, int64_t first, double *kept,
                     double *added)
{
    const double most = fmax(sums[max], part[max]);
    *kept = exp(sums[max] - most);
    *added = exp(part[max] - most);
    if (part[max] > sums[max]) sums[top] = part[top] + (double)first;
    sums[sum] = sums[sum] * *kept + part[sum] * *added;
    sums[max] = most;
}

/* Adds those of the entries from `first` on to those of the entries before. */
static void add_part(double *sums, const double *part, int64_t first)
{
    double kept, added;
    add_side(sums, part, QZ_DIVERGENCE_MAX_B, QZ_DIVERGENCE_TOP_B, QZ_DIVERGENCE_SUM_B, first, &kept, &added);
    add_side(sums, part, QZ_DIVERGENCE_MAX_A, QZ_DIVERGENCE_TOP_A, QZ_DIVERGENCE_SUM_A, first, &kept, &added);
    sums[QZ_DIVERGENCE_WEIGHTED] = sums[QZ_DIVERGENCE_WEIGHTED] * kept + part[QZ_DIVERGENCE_WEIGHTED] * added;
}

/* Rounding can leave a sum of nothing but zeros a little below 0. */
static double divergence_of(const double *sums)
{
    const double tops = sums[QZ_DIVERGENCE_MAX_A] - sums[QZ_DIVERGENCE_MAX_B];
    const double kl = sums[QZ_DIVERGENCE_WEIGHTED] / sums[QZ_DIVERGENCE_SUM_A] - tops - log(sums[QZ_DIVERGENCE_SUM_A]) +
                      log(sums[QZ_DIVERGENCE_SUM_B]);
    return kl < 0 ? 0 : kl;
}

static void finish_batch(qz_divergence_run *r)
{
    for (int64_t t = 0; t < r->tokens; t++) {
        const double *sums = r->sums + t * QZ_DIVERGENCE_SUMS;
        r->kl[r->first + t] = divergence_of(sums);
        r->same[r->first + t] = sums[QZ_DIVERGENCE_TOP_A] == sums[QZ_DIVERGENCE_TOP_B];
    }
}

void qz_divergence_batch(qz_divergence_run *r, int64_t first, int64_t tokens)
{
    r->first = first;
    r->tokens = tokens;
}

/* The base's logits of the same entries. */
static qz_status base_logits(qz_divergence_run *r, int64_t first, const qz_tensor *like, qz_tensor *out)
{
    const qz_tensor hidden = qz_tensor_rows(&r->base->states, r->first, r->tokens);
    const uint64_t count = (uint64_t)qz_tensor_count(like);
    if (count > r->room) {
        r->logits = qz_arena_array(r->arena, float, (size_t)count);
        if (!r->logits) return qz_arena_failed(r->arena);
        r->room = count;
    }
    *out = qz_tensor_2d(r->logits, QZ_F32, r->tokens, like->shape[1]);
    return qz_model_logits_part(r->base->model, &hidden, first, out, r->scratch);
}

qz_status qz_divergence_tile(void *run, int64_t first, const qz_tensor *logits)
{
    qz_divergence_run *r = run;
    qz_tensor base, sums = qz_tensor_2d(first ? r->part : r->sums, QZ_F64, r->tokens, QZ_DIVERGENCE_SUMS);
    QZ_TRY(base_logits(r, first, logits, &base));
    QZ_TRY(qz_op_divergence_sums(qz_model_backend(r->base->model), &sums, &base, logits));
    for (int64_t t = 0; first && t < r->tokens; t++)
        add_part(r->sums + t * QZ_DIVERGENCE_SUMS, r->part + t * QZ_DIVERGENCE_SUMS, first);
    if (first + logits->shape[1] == vocabulary_of(r->base->model)) finish_batch(r);
    return QZ_OK;
}

/* ---- begin and end ---- */

static qz_status check_pair(const qz_hidden *base, const qz_model *other, const qz_windows *b)
{
    const qz_windows *a = base->windows;
    const char *base_name = qz_ckpt_folder(qz_model_ckpt(base->model));
    const char *other_name = qz_ckpt_folder(qz_model_ckpt(other));
    if (vocabulary_of(base->model) != vocabulary_of(other))
        return QZ_FAIL(QZ_ARG,
                       "%s has a vocabulary of %lld, %s one of %lld; only models of one vocabulary can be compared",
                       base_name, (long long)vocabulary_of(base->model), other_name, (long long)vocabulary_of(other));
    if (a->count == b->count && a->length == b->length &&
        memcmp(a->ids, b->ids, (size_t)(a->count * a->length) * sizeof *a->ids) == 0)
        return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s and %s were evaluated on different windows", base_name, other_name);
}

static qz_status allocate(qz_divergence_run *r, int64_t batch)
{
    const size_t tokens = (size_t)r->base->states.shape[0], sums = (size_t)(batch * QZ_DIVERGENCE_SUMS);
    r->sums = qz_arena_array(r->arena, double, sums);
    r->part = qz_arena_array(r->arena, double, sums);
    r->kl = qz_arena_array(r->arena, double, tokens);
    r->same = qz_arena_alloc(r->arena, tokens);
    if (!r->sums || !r->part || !r->kl || !r->same) return qz_arena_failed(r->arena);
    QZ_TRY(qz_arena_new(&r->scratch, "head of the base"));
    return qz_arena_reserve(r->scratch, qz_model_head_bytes(r->base->model, 1));
}

qz_status qz_divergence_new(qz_divergence_run **out, const qz_hidden *base, const qz_model *other,
                            const qz_windows *windows)
{
    qz_arena *arena;
    *out = NULL;
    QZ_TRY(check_pair(base, other, windows));
    QZ_TRY(qz_arena_new(&arena, "divergence"));
    qz_divergence_run *r = qz_arena_calloc(arena, sizeof *r);
    qz_status status = r ? QZ_OK : qz_arena_failed(arena);
    if (r) *r = (qz_divergence_run){.base = base, .arena = arena};
    if (status == QZ_OK) status = allocate(r, qz_pass_batch(other, windows->count, windows->length) * windows->length);
    if (status == QZ_OK) {
        *out = r;
        return QZ_OK;
    }
    if (r) qz_arena_free(r->scratch);
    qz_arena_free(arena);
    return status;
}

void qz_divergence_free(qz_divergence_run *r)
{
    if (!r) return;
    qz_arena_free(r->scratch);
    qz_arena_free(r->arena);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Leaves `kl` sorted, the positions that nothing is predicted from aside. */
qz_status qz_divergence_finish(qz_divergence *out, qz_divergence_run *r)
{
    const int64_t length = r->base->windows->length, tokens = r->base->states.shape[0];
    double sum = 0;
    int64_t same = 0, n = 0;
    for (int64_t t = 0; t < tokens; t++) {
        if ((t + 1) % length == 0) continue;
        if (!isfinite(r->kl[t]))
            return QZ_FAIL(QZ_NUMERIC, "logits: the KL divergence in window %lld at token %lld is %g",
                           (long long)(t / length), (long long)(t % length), r->kl[t]);
        sum += r->kl[t];
        same += r->same[t];
        r->kl[n++] = r->kl[t];
    }
    qsort(r->kl, (size_t)n, sizeof *r->kl, by_value);
    out->tokens = n;
    out->kl_mean = sum / (double)n;
    out->kl_99 = r->kl[(99 * n + 99) / 100 - 1];
    out->top1 = (double)same / (double)n;
    return QZ_OK;
}

uint64_t qz_divergence_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    const uint64_t tokens = (uint64_t)(windows * length);
    const uint64_t batch = (uint64_t)(qz_pass_batch(m, windows, length) * length);
    const uint64_t sums = 2 * batch * QZ_DIVERGENCE_SUMS * sizeof(double);
    /* the base's logits, and the rows of its head: no more than scoring takes for its own */
    return tokens * (sizeof(double) + 1) + sums + qz_model_head_bytes(m, (int64_t)batch);
}
