/* How far the predictions of one model are from another's, from the last hidden states of both on the same windows.
 *
 *     KL(P || Q) = sum_v P(v) (log P(v) - log Q(v))       (Kullback and Leibler 1951, eq. 2.5; here in nats)
 *                = sum_v P(v) (a_v - b_v) - L(a) + L(b),  L(x) = max x + log sum_v exp(x_v - max x),
 *
 * for logits a of the base and b of the other. Both heads give a block of tokens at a time, so memory does not grow
 * with the vocabulary times the windows. Everything after the logits is in double: the terms cancel down to 1e-5 and
 * less. Each position is computed by one thread and positions are added in order, so results do not depend on threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "eval/pass.h"

/* Logits of a block of tokens of one model, unless LEAST_TOKENS take more. */
#define LOGITS_LIMIT ((uint64_t)128 << 20)
enum { LEAST_TOKENS = 16, MOST_TOKENS = 2048 };

typedef struct divergence {
    const qz_hidden *base, *other;
    int64_t block;    /* tokens */
    float *logits[2]; /* (block, V) */
    double *kl;       /* (windows * length); those that nothing is predicted from are left at 0 */
    uint8_t *same;    /* (windows * length) */
    qz_arena *arena, *scratch;
} divergence;

static int64_t vocabulary_of(const qz_model *m)
{
    return qz_model_config_of(m)->vocabulary;
}

static int64_t block_tokens(int64_t vocabulary, int64_t tokens)
{
    int64_t block = (int64_t)(LOGITS_LIMIT / ((uint64_t)vocabulary * sizeof(float)));
    if (block < LEAST_TOKENS) block = LEAST_TOKENS;
    if (block > MOST_TOKENS) block = MOST_TOKENS;
    return block < tokens ? block : tokens;
}

static int64_t largest(const float *z, int64_t count)
{
    int64_t best = 0;
    for (int64_t v = 1; v < count; v++) best = z[v] > z[best] ? v : best;
    return best;
}

/* One position. Rounding can leave a sum of nothing but zeros a little below 0. */
static double divergence_of(const float *a, const float *b, int64_t count, uint8_t *same)
{
    const int64_t top_a = largest(a, count), top_b = largest(b, count);
    const double max_a = (double)a[top_a], max_b = (double)b[top_b];
    double sum_a = 0, sum_b = 0, weighted = 0;
    for (int64_t v = 0; v < count; v++) {
        const double p = exp((double)a[v] - max_a);
        sum_a += p;
        sum_b += exp((double)b[v] - max_b);
        weighted += p > 0 ? p * ((double)a[v] - (double)b[v]) : 0;
    }
    *same = top_a == top_b;
    const double kl = weighted / sum_a - (max_a - max_b) - log(sum_a) + log(sum_b);
    return kl < 0 ? 0 : kl;
}

static qz_status block_logits(const divergence *d, int which, int64_t first, int64_t tokens)
{
    const qz_hidden *h = which ? d->other : d->base;
    const qz_tensor hidden = qz_tensor_rows(&h->states, first, tokens);
    const qz_tensor logits = qz_tensor_2d(d->logits[which], QZ_F32, tokens, vocabulary_of(h->model));
    return qz_model_logits(h->model, &hidden, &logits, d->scratch);
}

static qz_status run_block(const divergence *d, int64_t first, int64_t tokens)
{
    const int64_t vocabulary = vocabulary_of(d->base->model), length = d->base->windows->length;
    for (int which = 0; which < 2; which++) QZ_TRY(block_logits(d, which, first, tokens));
    QZ_PARALLEL_FOR for (int64_t t = 0; t < tokens; t++)
    {
        const int64_t at = first + t;
        if ((at + 1) % length == 0) continue;
        d->kl[at] =
            divergence_of(d->logits[0] + t * vocabulary, d->logits[1] + t * vocabulary, vocabulary, &d->same[at]);
    }
    return QZ_OK;
}

static qz_status run_blocks(const divergence *d, qz_progress *progress)
{
    const int64_t tokens = d->base->states.shape[0];
    for (int64_t first = 0; first < tokens; first += d->block) {
        const int64_t count = first + d->block < tokens ? d->block : tokens - first;
        QZ_TRY(run_block(d, first, count));
        QZ_TRY(qz_progress_step(progress, (uint64_t)count, "head"));
    }
    return QZ_OK;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Leaves `kl` sorted, the positions that are not predicted aside. */
static qz_status add_up(qz_divergence *out, const divergence *d)
{
    const int64_t length = d->base->windows->length, tokens = d->base->states.shape[0];
    double sum = 0;
    int64_t same = 0, n = 0;
    for (int64_t t = 0; t < tokens; t++) {
        if ((t + 1) % length == 0) continue;
        if (!isfinite(d->kl[t]))
            return QZ_FAIL(QZ_NUMERIC, "logits: the KL divergence in window %lld at token %lld is %g",
                           (long long)(t / length), (long long)(t % length), d->kl[t]);
        sum += d->kl[t];
        same += d->same[t];
        d->kl[n++] = d->kl[t];
    }
    qsort(d->kl, (size_t)n, sizeof *d->kl, by_value);
    out->tokens = n;
    out->kl_mean = sum / (double)n;
    out->kl_99 = d->kl[(99 * n + 99) / 100 - 1];
    out->top1 = (double)same / (double)n;
    return QZ_OK;
}

static qz_status run(qz_divergence *out, divergence *d, qz_progress *progress)
{
    const int64_t tokens = d->base->states.shape[0], vocabulary = vocabulary_of(d->base->model);
    QZ_TRY(qz_arena_new(&d->arena, "divergence"));
    QZ_TRY(qz_arena_new(&d->scratch, "head"));
    d->block = block_tokens(vocabulary, tokens);
    d->kl = qz_arena_calloc(d->arena, (size_t)tokens * sizeof *d->kl);
    d->same = qz_arena_calloc(d->arena, (size_t)tokens);
    for (int i = 0; i < 2; i++) d->logits[i] = qz_arena_array(d->arena, float, (size_t)(d->block * vocabulary));
    if (!d->kl || !d->same || !d->logits[0] || !d->logits[1]) return qz_arena_failed(d->arena);
    QZ_TRY(run_blocks(d, progress));
    return add_up(out, d);
}

static qz_status check_pair(const qz_hidden *base, const qz_hidden *other)
{
    const qz_windows *a = base->windows, *b = other->windows;
    const char *base_name = qz_ckpt_folder(qz_model_ckpt(base->model));
    const char *other_name = qz_ckpt_folder(qz_model_ckpt(other->model));
    if (vocabulary_of(base->model) != vocabulary_of(other->model))
        return QZ_FAIL(
            QZ_ARG, "%s has a vocabulary of %lld, %s one of %lld; only models of one vocabulary can be compared",
            base_name, (long long)vocabulary_of(base->model), other_name, (long long)vocabulary_of(other->model));
    if (a->count == b->count && a->length == b->length &&
        memcmp(a->ids, b->ids, (size_t)(a->count * a->length) * sizeof *a->ids) == 0)
        return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s and %s were evaluated on different windows", base_name, other_name);
}

qz_status qz_eval_divergence(qz_divergence *out, const qz_hidden *base, const qz_hidden *other, qz_progress *progress)
{
    *out = (qz_divergence){0};
    QZ_TRY(check_pair(base, other));
    const double start = qz_seconds();
    divergence d = {.base = base, .other = other};
    qz_progress_begin(progress, "divergence", (uint64_t)base->states.shape[0]);
    qz_status status = run(out, &d, progress);
    qz_progress_end(progress);
    out->seconds = qz_seconds() - start;
    qz_arena_free(d.arena);
    qz_arena_free(d.scratch);
    return status;
}

uint64_t qz_divergence_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    const uint64_t tokens = (uint64_t)(windows * length), vocabulary = (uint64_t)vocabulary_of(m);
    const uint64_t block = (uint64_t)block_tokens(vocabulary_of(m), windows * length);
    return 2 * block * vocabulary * sizeof(float) + tokens * (sizeof(double) + 1) + qz_model_head_bytes(m, 1);
}
