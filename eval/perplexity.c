/* Perplexity of a model on windows of ids, layer by layer: the residual stream of all windows lies in one buffer, each
 * layer's weights are widened once and run over it in batches of a few windows, then the head scores every batch.
 *
 * perplexity = exp(-mean log p(id[t] | ids before t)), t = 1 .. length - 1 of each window, summed in the order of the
 * windows in double, so that it does not depend on threads. */
#include <math.h>

#include "base/parallel.h"
#include "eval/eval.h"

enum { MOST_TOKENS = 4096 };
/* Scratch of a batch, unless one window needs more. */
#define SCRATCH_LIMIT ((uint64_t)128 << 20)

typedef struct pass {
    const qz_model *m;
    const qz_windows *w;
    qz_progress *progress;
    int64_t batch;      /* windows */
    qz_tensor residual; /* (windows * length, C) */
    qz_arena *run, *layer, *scratch;
    double *log_prob; /* (windows * length) */
} pass;

static int64_t hidden_of(const qz_model *m)
{
    return qz_model_config_of(m)->hidden;
}

static uint64_t batch_bytes(const qz_model *m, int64_t batch, int64_t length)
{
    return qz_model_scratch_bytes(m, (qz_batch){batch, length});
}

/* Windows that run together: up to MOST_TOKENS tokens and SCRATCH_LIMIT bytes, at least one. */
static int64_t batch_windows(const qz_model *m, int64_t windows, int64_t length)
{
    int64_t batch = MOST_TOKENS / length < windows ? MOST_TOKENS / length : windows;
    while (batch > 1 && batch_bytes(m, batch, length) > SCRATCH_LIMIT) batch--;
    return batch > 1 ? batch : 1;
}

static int64_t windows_from(const pass *p, int64_t first)
{
    return first + p->batch < p->w->count ? p->batch : p->w->count - first;
}

static qz_tensor residual_of(const pass *p, int64_t first)
{
    return qz_tensor_rows(&p->residual, first * p->w->length, windows_from(p, first) * p->w->length);
}

static uint64_t scratch_bytes(const qz_model *m, int64_t batch, int64_t length)
{
    const uint64_t layer = batch_bytes(m, batch, length), head = qz_model_head_bytes(m, batch * length);
    return layer > head ? layer : head;
}

/* Gives an empty arena one block that later requests fit in, so that the system is not asked again for each batch. */
static qz_status reserve(qz_arena *arena, uint64_t bytes)
{
    if (!qz_arena_alloc(arena, (size_t)bytes)) return qz_arena_failed(arena);
    qz_arena_mark mark = qz_arena_save(arena);
    mark.used = 0;
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

static qz_status check_finite(const pass *p, const qz_tensor *residual, int64_t first, int layer)
{
    int64_t bad;
    QZ_TRY(qz_op_first_nonfinite(qz_model_backend(p->m), residual, &bad));
    if (bad < 0) return QZ_OK;
    const int64_t token = bad / hidden_of(p->m);
    return QZ_FAIL(QZ_NUMERIC, "layer %d: NaN or infinity after it, in window %lld at token %lld (channel %lld)", layer,
                   (long long)(first + token / p->w->length), (long long)(token % p->w->length),
                   (long long)(bad % hidden_of(p->m)));
}

static qz_status run_layer(const pass *p, int index)
{
    qz_layer layer;
    QZ_TRY(qz_model_layer(p->m, index, &layer, p->layer));
    for (int64_t first = 0; first < p->w->count; first += p->batch) {
        const qz_batch batch = {windows_from(p, first), p->w->length};
        const qz_tensor residual = residual_of(p, first);
        QZ_TRY(qz_layer_forward(p->m, &layer, batch, &residual, p->scratch));
        QZ_TRY(check_finite(p, &residual, first, index));
        QZ_TRY(qz_progress_step(p->progress, (uint64_t)batch.sequences, layer.linear[0].module));
    }
    return QZ_OK;
}

/* targets[t] is the id after t, -1 at the end of a window. */
static void next_ids(int32_t *targets, const int32_t *ids, int64_t windows, int64_t length)
{
    for (int64_t t = 0; t < windows * length; t++) targets[t] = (t + 1) % length ? ids[t + 1] : -1;
}

static qz_status score(const pass *p)
{
    int32_t *targets = qz_arena_array(p->layer, int32_t, (size_t)(p->batch * p->w->length));
    if (!targets) return qz_arena_failed(p->layer);
    for (int64_t first = 0; first < p->w->count; first += p->batch) {
        const int64_t windows = windows_from(p, first), at = first * p->w->length;
        const qz_tensor hidden = residual_of(p, first);
        const qz_tensor log_prob = qz_tensor_1d(p->log_prob + at, QZ_F64, hidden.shape[0]);
        next_ids(targets, p->w->ids + at, windows, p->w->length);
        QZ_TRY(qz_model_final_norm(p->m, &hidden, &hidden));
        QZ_TRY(qz_model_log_prob(p->m, &hidden, targets, &log_prob, p->scratch));
        QZ_TRY(qz_progress_step(p->progress, (uint64_t)windows, "head"));
    }
    return QZ_OK;
}

static qz_status run(pass *p)
{
    const int64_t tokens = p->w->count * p->w->length;
    float *residual = qz_arena_array(p->run, float, (size_t)(tokens * hidden_of(p->m)));
    p->log_prob = qz_arena_array(p->run, double, (size_t)tokens);
    if (!residual || !p->log_prob) return qz_arena_failed(p->run);
    p->residual = qz_tensor_2d(residual, QZ_F32, tokens, hidden_of(p->m));
    QZ_TRY(qz_model_embed(p->m, p->w->ids, &p->residual));
    QZ_TRY(reserve(p->scratch, scratch_bytes(p->m, p->batch, p->w->length)));
    for (int i = 0; i < qz_model_config_of(p->m)->layers; i++) {
        qz_arena_mark mark = qz_arena_save(p->layer);
        QZ_TRY(run_layer(p, i));
        qz_arena_restore(p->layer, mark);
    }
    return score(p);
}

static qz_status finish(qz_perplexity *out, const pass *p)
{
    double sum = 0;
    for (int64_t t = 0; t < p->w->count * p->w->length; t++) {
        if (!isfinite(p->log_prob[t]))
            return QZ_FAIL(QZ_NUMERIC, "logits: the log probability of window %lld, token %lld is %g",
                           (long long)(t / p->w->length), (long long)(t % p->w->length + 1), p->log_prob[t]);
        sum += p->log_prob[t];
    }
    out->windows = p->w->count;
    out->tokens = p->w->count * (p->w->length - 1);
    out->mean_log_prob = sum / (double)out->tokens;
    out->perplexity = exp(-out->mean_log_prob);
    return QZ_OK;
}

static qz_status open_arenas(pass *p)
{
    QZ_TRY(qz_arena_new(&p->run, "evaluation"));
    QZ_TRY(qz_arena_new(&p->layer, "evaluation layer"));
    return qz_arena_new(&p->scratch, "evaluation scratch");
}

qz_status qz_eval_perplexity(qz_perplexity *out, const qz_model *m, const qz_windows *w, qz_progress *progress)
{
    if (w->count < 1 || w->length < 2)
        return QZ_FAIL(QZ_ARG, "perplexity needs at least one window of two ids; there are %lld of %lld",
                       (long long)w->count, (long long)w->length);
    const double start = qz_seconds();
    pass p = {.m = m, .w = w, .progress = progress, .batch = batch_windows(m, w->count, w->length)};
    *out = (qz_perplexity){0};
    qz_status status = open_arenas(&p);
    qz_progress_begin(progress, "perplexity", (uint64_t)(w->count * (qz_model_config_of(m)->layers + 1)));
    if (status == QZ_OK) status = run(&p);
    qz_progress_end(progress);
    if (status == QZ_OK) status = finish(out, &p);
    out->seconds = qz_seconds() - start;
    qz_arena_free(p.run);
    qz_arena_free(p.layer);
    qz_arena_free(p.scratch);
    return status;
}

uint64_t qz_eval_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    const int64_t batch = batch_windows(m, windows, length);
    const uint64_t tokens = (uint64_t)(windows * length), per_token = (uint64_t)hidden_of(m) * 4 + sizeof(double);
    return tokens * per_token + qz_model_layer_bytes(m) + scratch_bytes(m, batch, length);
}
