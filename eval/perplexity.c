/* Perplexity of a model on windows of ids: the last hidden states of the pass, scored by the head in batches of a few
 * windows; with a base, its divergence from it while the logits are there (divergence.c).
 *
 * perplexity = exp(-mean log p(id[t] | ids before t)), t = 1 .. length - 1 of each window, summed in the order of the
 * windows in double, so that it does not depend on threads. */
#include <math.h>

#include "base/parallel.h"
#include "eval/pass.h"

typedef struct scoring {
    const qz_hidden *h;
    int64_t batch;              /* windows */
    double *log_prob;           /* (windows * length) */
    int32_t *targets;           /* (batch * length) */
    qz_divergence_run *against; /* NULL: perplexity alone */
    qz_arena *run, *scratch;
} scoring;

/* targets[t] is the id after t, -1 at the end of a window. */
static void next_ids(int32_t *targets, const int32_t *ids, int64_t windows, int64_t length)
{
    for (int64_t t = 0; t < windows * length; t++) targets[t] = (t + 1) % length ? ids[t + 1] : -1;
}

static qz_status score_batches(const scoring *s, qz_progress *progress)
{
    const qz_windows *w = s->h->windows;
    for (int64_t first = 0; first < w->count; first += s->batch) {
        const int64_t windows = first + s->batch < w->count ? s->batch : w->count - first, at = first * w->length;
        const qz_tensor hidden = qz_tensor_rows(&s->h->states, at, windows * w->length);
        const qz_tensor log_prob = qz_tensor_1d(s->log_prob + at, QZ_F64, hidden.shape[0]);
        next_ids(s->targets, w->ids + at, windows, w->length);
        if (s->against) qz_divergence_batch(s->against, at, hidden.shape[0]);
        const qz_logits_tap tap = {s->against ? qz_divergence_tile : NULL, s->against};
        QZ_TRY(qz_model_log_prob_tapped(s->h->model, &hidden, s->targets, &log_prob, tap, s->scratch));
        QZ_TRY(qz_progress_step(progress, (uint64_t)windows, "head"));
    }
    return QZ_OK;
}

static qz_status add_up(qz_perplexity *out, const scoring *s)
{
    const qz_windows *w = s->h->windows;
    double sum = 0;
    for (int64_t t = 0; t < w->count * w->length; t++) {
        if (!isfinite(s->log_prob[t]))
            return QZ_FAIL(QZ_NUMERIC, "logits: the log probability of window %lld, token %lld is %g",
                           (long long)(t / w->length), (long long)(t % w->length + 1), s->log_prob[t]);
        sum += s->log_prob[t];
    }
    out->windows = w->count;
    out->tokens = w->count * (w->length - 1);
    out->mean_log_prob = sum / (double)out->tokens;
    out->perplexity = exp(-out->mean_log_prob);
    return QZ_OK;
}

static qz_status run_scoring(qz_perplexity *out, scoring *s, qz_progress *progress)
{
    const qz_windows *w = s->h->windows;
    QZ_TRY(qz_arena_new(&s->run, "scores"));
    QZ_TRY(qz_arena_new(&s->scratch, "head"));
    s->log_prob = qz_arena_array(s->run, double, (size_t)(w->count * w->length));
    s->targets = qz_arena_array(s->run, int32_t, (size_t)(s->batch * w->length));
    if (!s->log_prob || !s->targets) return qz_arena_failed(s->run);
    QZ_TRY(qz_arena_reserve(s->scratch, qz_model_head_bytes(s->h->model, s->batch * w->length)));
    QZ_TRY(score_batches(s, progress));
    return add_up(out, s);
}

static qz_status score(qz_perplexity *out, const qz_hidden *h, qz_divergence_run *against, qz_progress *progress)
{
    scoring s = {.h = h, .against = against, .batch = qz_pass_batch(h->model, h->windows->count, h->windows->length)};
    qz_status status = run_scoring(out, &s, progress);
    qz_arena_free(s.run);
    qz_arena_free(s.scratch);
    return status;
}

static qz_status evaluate(qz_hidden **kept, qz_perplexity *out, const qz_model *m, const qz_windows *w,
                          qz_divergence_run *against, qz_progress *progress)
{
    *kept = NULL;
    *out = (qz_perplexity){0};
    if (w->count < 1 || w->length < 2)
        return QZ_FAIL(QZ_ARG, "perplexity needs at least one window of two ids; there are %lld of %lld",
                       (long long)w->count, (long long)w->length);
    const double start = qz_seconds();
    qz_progress_begin(progress, "perplexity", (uint64_t)(w->count * (qz_model_config_of(m)->layers + 1)));
    qz_status status = qz_pass_run(kept, m, w, progress);
    if (status == QZ_OK) status = score(out, *kept, against, progress);
    qz_progress_end(progress);
    out->seconds = qz_seconds() - start;
    if (status == QZ_OK) return QZ_OK;
    qz_hidden_free(*kept);
    *kept = NULL;
    return status;
}

qz_status qz_eval_hidden(qz_hidden **kept, qz_perplexity *out, const qz_model *m, const qz_windows *w,
                         qz_progress *progress)
{
    return evaluate(kept, out, m, w, NULL, progress);
}

qz_status qz_eval_perplexity(qz_perplexity *out, const qz_model *m, const qz_windows *w, qz_progress *progress)
{
    qz_hidden *hidden;
    QZ_TRY(evaluate(&hidden, out, m, w, NULL, progress));
    qz_hidden_free(hidden);
    return QZ_OK;
}

qz_status qz_eval_against(const qz_hidden *base, qz_perplexity *out, qz_divergence *divergence, const qz_model *m,
                          const qz_windows *w, qz_progress *progress)
{
    qz_hidden *hidden;
    qz_divergence_run *against;
    *out = (qz_perplexity){0};
    *divergence = (qz_divergence){0};
    QZ_TRY(qz_divergence_new(&against, base, m, w));
    qz_status status = evaluate(&hidden, out, m, w, against, progress);
    if (status == QZ_OK) status = qz_divergence_finish(divergence, against);
    qz_hidden_free(hidden);
    qz_divergence_free(against);
    return status;
}

/* Without the hidden states: the pass, or the head with the scores. */
static uint64_t working_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    const int64_t batch = qz_pass_batch(m, windows, length) * length;
    const uint64_t scores = (uint64_t)(windows * length) * sizeof(double) + (uint64_t)batch * sizeof(int32_t);
    const uint64_t pass = qz_pass_bytes(m, windows, length), head = scores + qz_model_head_bytes(m, batch);
    return pass > head ? pass : head;
}

uint64_t qz_eval_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    return qz_hidden_bytes(m, windows, length) + working_bytes(m, windows, length);
}

uint64_t qz_eval_compare_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    return qz_eval_bytes(m, windows, length) + qz_divergence_bytes(m, windows, length);
}
