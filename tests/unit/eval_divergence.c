/* Divergence of two models: equal to what their golden logits give, zero for a model and itself, the same for any
 * number of threads, and what it says of models that cannot be compared. */
#include <math.h>

#include "base/parallel.h"
#include "eval/eval.h"
#include "model_folder.h"
#include "testing/tolerances.h"

static qz_windows some_windows(qz_arena *arena, int64_t count, int64_t length)
{
    int32_t *ids = qz_arena_alloc(arena, (size_t)(count * length) * sizeof *ids);
    for (int64_t i = 0; i < count * length; i++) ids[i] = (int32_t)((i * 7919 + i / 5) % 160);
    return (qz_windows){.ids = ids, .count = count, .length = length};
}

static qz_hidden *hidden_of(const opened *o, const qz_windows *w)
{
    qz_hidden *h;
    qz_perplexity p;
    check_ok(qz_eval_hidden(&h, &p, o->model, w, NULL));
    return h;
}

/* How far `other` is from the kept states of a base. */
static qz_divergence divergence_from(const qz_hidden *base, const opened *other, const qz_windows *w)
{
    qz_perplexity p;
    qz_divergence d;
    check_ok(qz_eval_against(base, &p, &d, other->model, w, NULL));
    return d;
}

/* By the definition: both distributions written out in double. */
static double plain_kl(const float *a, const float *b, int64_t count)
{
    double za = 0, zb = 0, kl = 0;
    for (int64_t v = 0; v < count; v++) {
        za += exp((double)a[v]);
        zb += exp((double)b[v]);
    }
    for (int64_t v = 0; v < count; v++) {
        const double p = exp((double)a[v]) / za, q = exp((double)b[v]) / zb;
        kl += p * log(p / q);
    }
    return kl;
}

static int64_t top(const float *z, int64_t count)
{
    int64_t best = 0;
    for (int64_t v = 0; v < count; v++) best = z[v] > z[best] ? v : best;
    return best;
}

/* Logits (T, V) of the windows by running the model without qz_eval_*. */
static float *logits_of(const opened *o, const qz_windows *w)
{
    const int64_t tokens = w->count * w->length, width = qz_model_config_of(o->model)->hidden;
    const qz_tensor x = matrix(o->arena, tokens, width);
    const qz_tensor y = matrix(o->arena, tokens, qz_model_config_of(o->model)->vocabulary);
    check_ok(qz_model_embed(o->model, w->ids, &x));
    for (int i = 0; i < qz_model_config_of(o->model)->layers; i++) {
        qz_layer layer;
        check_ok(qz_model_layer(o->model, i, &layer, o->arena));
        check_ok(qz_layer_forward(o->model, &layer, (qz_batch){w->count, w->length}, &x, o->arena));
    }
    check_ok(qz_model_final_norm(o->model, &x, &x));
    check_ok(qz_model_logits(o->model, &x, &y, o->arena));
    return y.data;
}

static int ascending(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The same weights behind another epsilon: predictions that differ a little everywhere. */
static opened changed_copy(void)
{
    return open_model(
        changed_model("tests/golden/models/llama", "other", (change){.key = "rms_norm_eps", .value = "0.02"}));
}

Test(divergence, equals_the_definition)
{
    opened a = open_model("tests/golden/models/llama"), b = changed_copy();
    qz_windows w = some_windows(a.arena, 5, 40);
    const float *x = logits_of(&a, &w), *y = logits_of(&b, &w);
    const int64_t vocabulary = qz_model_config_of(a.model)->vocabulary;
    double kl[5 * 39], sum = 0, same = 0;
    int n = 0;
    for (int64_t t = 0; t < 200; t++) {
        if (t % 40 == 39) continue;
        kl[n] = plain_kl(x + t * vocabulary, y + t * vocabulary, vocabulary);
        same += top(x + t * vocabulary, vocabulary) == top(y + t * vocabulary, vocabulary);
        sum += kl[n++];
    }
    qsort(kl, (size_t)n, sizeof *kl, ascending);
    qz_hidden *base = hidden_of(&a, &w);
    const qz_divergence d = divergence_from(base, &b, &w);
    cr_assert_eq(d.tokens, 195);
    cr_assert(sum / n > 1e-4, "the two models predict alike: %g", sum / n);
    cr_assert_float_eq(d.kl_mean, sum / n, TOL_MODEL_F32 * sum / n, "%.9g, expected %.9g", d.kl_mean, sum / n);
    cr_assert_float_eq(d.kl_99, kl[193], TOL_MODEL_F32 * kl[193], "%.9g, expected %.9g", d.kl_99, kl[193]);
    cr_assert_float_eq(d.top1, same / n, 1e-12);
    cr_assert(d.kl_99 > d.kl_mean && d.top1 < 1 && d.top1 > 0);
    qz_hidden_free(base);
    close_model(&a);
    close_model(&b);
}

Test(divergence, of_a_model_to_itself_is_zero)
{
    opened o = open_with("demo/model", qz_backend_best());
    qz_windows w = some_windows(o.arena, 3, 50);
    qz_hidden *one = hidden_of(&o, &w);
    const qz_divergence d = divergence_from(one, &o, &w);
    cr_assert(d.kl_mean == 0 && d.kl_99 == 0 && d.top1 == 1 && d.tokens == 147);
    qz_hidden_free(one);
    close_model(&o);
}

/* Not symmetric: which is the base counts. */
Test(divergence, base_comes_first)
{
    opened a = open_model("tests/golden/models/llama"), b = changed_copy();
    qz_windows w = some_windows(a.arena, 2, 30);
    qz_hidden *x = hidden_of(&a, &w), *y = hidden_of(&b, &w);
    const qz_divergence xy = divergence_from(x, &b, &w), yx = divergence_from(y, &a, &w);
    cr_assert(xy.kl_mean != yx.kl_mean && xy.top1 == yx.top1);
    qz_hidden_free(x);
    qz_hidden_free(y);
    close_model(&a);
    close_model(&b);
}

Test(divergence, does_not_depend_on_threads)
{
    const qz_backend *backend = qz_backend_best();
    opened a = open_with("tests/golden/models/llama", backend), b = changed_copy();
    qz_windows w = some_windows(a.arena, 9, 40);
    qz_divergence d[2];
    for (int i = 0; i < 2; i++) {
        qz_threads_set(i ? 5 : 1);
        qz_hidden *x = hidden_of(&a, &w);
        d[i] = divergence_from(x, &b, &w);
        qz_hidden_free(x);
    }
    cr_assert(d[0].kl_mean == d[1].kl_mean && d[0].kl_99 == d[1].kl_99 && d[0].top1 == d[1].top1);
    close_model(&a);
    close_model(&b);
}

/* The perplexity that comes with kept states, or with a divergence, is the one that comes alone: on one block of the
 * vocabulary and on several, and on several batches of windows. */
static void check_same_perplexity(const char *folder, int64_t count, int64_t length)
{
    opened o = open_with(folder, qz_backend_best());
    qz_windows w = some_windows(o.arena, count, length);
    qz_hidden *h;
    qz_perplexity kept, plain, against;
    qz_divergence d;
    check_ok(qz_eval_hidden(&h, &kept, o.model, &w, NULL));
    check_ok(qz_eval_perplexity(&plain, o.model, &w, NULL));
    check_ok(qz_eval_against(h, &against, &d, o.model, &w, NULL));
    cr_assert(kept.perplexity == plain.perplexity && kept.tokens == plain.tokens);
    cr_assert(against.perplexity == plain.perplexity && against.mean_log_prob == plain.mean_log_prob);
    cr_assert(against.tokens == plain.tokens && against.windows == plain.windows && against.tokens == d.tokens);
    qz_hidden_free(h);
    close_model(&o);
}

Test(divergence, company_changes_no_perplexity)
{
    check_same_perplexity("tests/golden/models/qwen3", 4, 33);
    check_same_perplexity("tests/golden/models/llama", 20, 256);
    check_same_perplexity("demo/model", 9, 40);
}

/* States in a file give the same; the file has no name, and a folder that is not there is an error that leaves them. */
Test(divergence, states_may_lie_in_a_file)
{
    opened a = open_model("tests/golden/models/llama"), b = changed_copy();
    qz_windows w = some_windows(a.arena, 5, 40);
    qz_hidden *h = hidden_of(&a, &w);
    char **names;
    size_t files;
    const qz_divergence before = divergence_from(h, &b, &w);
    check_ok(qz_folder_make(test_path("spill")));
    check_fails(QZ_IO, "hidden states: nowhere: cannot hold", qz_hidden_spill(h, "nowhere"));
    cr_assert(divergence_from(h, &b, &w).kl_mean == before.kl_mean);
    check_ok(qz_hidden_spill(h, test_path("spill")));
    check_ok(qz_hidden_spill(h, test_path("spill"))); /* already there */
    check_ok(qz_folder_list(&names, &files, test_path("spill"), a.arena));
    cr_assert_eq(files, 0);
    const qz_divergence after = divergence_from(h, &b, &w);
    cr_assert(after.kl_mean == before.kl_mean && after.kl_99 == before.kl_99 && after.top1 == before.top1);
    qz_hidden_free(h);
    close_model(&a);
    close_model(&b);
}

/* Several blocks of the vocabulary, whose largest logits lie in different ones. */
Test(divergence, is_put_together_from_blocks)
{
    opened a = open_with("demo/model", qz_backend_best());
    opened b = open_with(changed_model("demo/model", "other", (change){.key = "rms_norm_eps", .value = "0.02"}),
                         qz_backend_best());
    qz_windows w = some_windows(a.arena, 2, 30);
    const float *x = logits_of(&a, &w), *y = logits_of(&b, &w);
    const int64_t vocabulary = qz_model_config_of(a.model)->vocabulary;
    double sum = 0, same = 0;
    for (int64_t t = 0; t < 60; t++) {
        if (t % 30 == 29) continue;
        sum += plain_kl(x + t * vocabulary, y + t * vocabulary, vocabulary);
        same += top(x + t * vocabulary, vocabulary) == top(y + t * vocabulary, vocabulary);
    }
    qz_hidden *base = hidden_of(&a, &w);
    const qz_divergence d = divergence_from(base, &b, &w);
    cr_assert(sum / 58 > 1e-4, "the two models predict alike: %g", sum / 58);
    cr_assert_float_eq(d.kl_mean, sum / 58, TOL_MODEL_F32 * sum / 58, "%.9g, expected %.9g", d.kl_mean, sum / 58);
    cr_assert_float_eq(d.top1, same / 58, 1e-12);
    qz_hidden_free(base);
    close_model(&a);
    close_model(&b);
}

Test(divergence, refuses_what_cannot_be_compared)
{
    opened a = open_model("tests/golden/models/llama"), b = open_model("demo/model");
    qz_windows w = some_windows(a.arena, 2, 16), shorter = w;
    shorter.count = 1;
    qz_hidden *x = hidden_of(&a, &w);
    qz_perplexity p;
    qz_divergence d;
    check_fails(QZ_ARG, "tests/golden/models/llama has a vocabulary of 160, demo/model one of 4096",
                qz_eval_against(x, &p, &d, b.model, &w, NULL));
    check_fails(QZ_ARG, "different windows", qz_eval_against(x, &p, &d, a.model, &shorter, NULL));
    qz_hidden_free(x);
    close_model(&a);
    close_model(&b);
}

static int stop(void *context, const qz_progress_state *state)
{
    return strcmp(state->phase, "perplexity") == 0;
}

Test(divergence, can_be_stopped)
{
    opened o = open_model("tests/golden/models/llama");
    qz_windows w = some_windows(o.arena, 2, 16);
    qz_hidden *h = hidden_of(&o, &w);
    qz_perplexity p;
    qz_divergence d;
    qz_progress *progress;
    check_ok(qz_progress_new(&progress, stop, NULL));
    cr_assert(qz_eval_against(h, &p, &d, o.model, &w, progress) == QZ_INTERRUPTED);
    qz_progress_free(progress);
    qz_hidden_free(h);
    close_model(&o);
}

Test(divergence, every_allocation_may_fail)
{
    opened o = open_model("tests/golden/models/llama");
    qz_windows w = some_windows(o.arena, 2, 16);
    qz_hidden *h = hidden_of(&o, &w);
    qz_perplexity p;
    qz_divergence d;
    int n = 0;
    for (;;) {
        qz_alloc_fail_at(++n);
        qz_status status = qz_eval_against(h, &p, &d, o.model, &w, NULL);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && n < 1000, "allocation %d: %s", n, qz_error_message());
    }
    qz_alloc_fail_at(0);
    cr_assert(n > 3);
    qz_hidden_free(h);
    close_model(&o);
}

Test(divergence, size_is_foretold)
{
    opened o = open_model("demo/model");
    const uint64_t kept = 80 * 512 * 256 * 4;
    cr_assert_eq(qz_hidden_bytes(o.model, 80, 512), kept);
    cr_assert(qz_eval_compare_bytes(o.model, 80, 512) > qz_eval_bytes(o.model, 80, 512));
    cr_assert(qz_eval_compare_bytes(o.model, 80, 512) < kept + (300u << 20));
    close_model(&o);
}
