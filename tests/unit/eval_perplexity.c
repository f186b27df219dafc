/* Perplexity: equal to that of the golden logits, the same for any number of threads and windows a batch, and what it
 * says when numbers go wrong. */
#include "eval/eval.h"

#include <math.h>

#include "base/parallel.h"
#include "model_folder.h"

static qz_windows windows_of(int32_t *ids, int64_t count, int64_t length)
{
    return (qz_windows){.ids = ids, .count = count, .length = length};
}

/* Ids that any of the golden models knows. */
static qz_windows some_windows(qz_arena *arena, int64_t count, int64_t length)
{
    int32_t *ids = qz_arena_alloc(arena, (size_t)(count * length) * sizeof *ids);
    for (int64_t i = 0; i < count * length; i++) ids[i] = (int32_t)((i * 7919 + i / 5) % 160);
    return windows_of(ids, count, length);
}

/* From expected.safetensors alone. */
static double golden_perplexity(const qz_safetensors *st, int32_t *ids)
{
    const qz_stored *id = qz_safetensors_find(st, "input_ids"), *logits = qz_safetensors_find(st, "logits");
    const int64_t windows = id->view.shape[0], length = id->view.shape[1], vocabulary = logits->view.shape[2];
    double sum = 0;
    for (int64_t t = 0; t < windows * length; t++) {
        int64_t v;
        memcpy(&v, (const char *)id->view.data + t * 8, 8);
        ids[t] = (int32_t)v;
    }
    for (int64_t t = 0; t < windows * length; t++) {
        const float *row = (const float *)logits->view.data + t * vocabulary;
        double total = 0;
        if ((t + 1) % length == 0) continue;
        for (int64_t v = 0; v < vocabulary; v++) total += exp((double)row[v]);
        sum += row[ids[t + 1]] - log(total);
    }
    return exp(-sum / (double)(windows * (length - 1)));
}

Test(perplexity, equals_that_of_the_golden_logits)
{
    static const char *const names[] = {"llama", "llama_tied_rope3", "mistral", "qwen2",    "qwen3", "gemma2",
                                        "phi3",  "phi3_long",        "mixtral", "qwen3_moe"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[300];
        int32_t ids[2 * 16];
        qz_safetensors *st;
        qz_perplexity p;
        snprintf(path, sizeof path, "tests/golden/models/%s/expected.safetensors", names[i]);
        check_ok(qz_safetensors_open(&st, path));
        snprintf(path, sizeof path, "tests/golden/models/%s", names[i]);
        opened o = open_model(path);
        double expected = golden_perplexity(st, ids);
        qz_windows w = windows_of(ids, 2, 16);
        check_ok(qz_eval_perplexity(&p, o.model, &w, NULL));
        cr_assert_float_eq(p.perplexity, expected, 1e-5 * expected, "%s: %.9g, expected %.9g", names[i], p.perplexity,
                           expected);
        cr_assert(p.tokens == 30 && p.windows == 2 && p.seconds > 0);
        cr_assert_float_eq(exp(-p.mean_log_prob), p.perplexity, 1e-12);
        close_model(&o);
        qz_safetensors_close(st);
    }
}

Test(perplexity, does_not_depend_on_threads)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available()) continue;
        opened o = open_with("demo/model", qz_backend_at(b));
        qz_windows w = some_windows(o.arena, 9, 40);
        qz_perplexity one, two;
        qz_threads_set(1);
        check_ok(qz_eval_perplexity(&one, o.model, &w, NULL));
        qz_threads_set(2);
        check_ok(qz_eval_perplexity(&two, o.model, &w, NULL));
        cr_assert(one.perplexity == two.perplexity && one.mean_log_prob == two.mean_log_prob, "%s",
                  qz_backend_at(b)->plugin.name);
        close_model(&o);
    }
}

/* 20 windows of 256 are two batches. */
Test(perplexity, windows_count_alike_in_any_batch)
{
    opened o = open_with("tests/golden/models/llama", qz_backend_best());
    qz_windows w = some_windows(o.arena, 20, 256);
    qz_perplexity all, one;
    double sum = 0;
    check_ok(qz_eval_perplexity(&all, o.model, &w, NULL));
    for (int i = 0; i < 20; i++) {
        qz_windows part = windows_of(w.ids + i * 256, 1, 256);
        check_ok(qz_eval_perplexity(&one, o.model, &part, NULL));
        sum += one.mean_log_prob;
    }
    cr_assert_float_eq(all.mean_log_prob, sum / 20, 1e-6);
    close_model(&o);
}

Test(perplexity, overflow_names_layer_and_token)
{
    opened o = open_model(changed_model("tests/golden/models/llama", "big",
                                        (change){.kind = OVERFLOW, .tensor = "model.layers.1.mlp.up_proj.weight"}));
    qz_windows w = some_windows(o.arena, 3, 16);
    qz_perplexity p;
    check_fails(QZ_NUMERIC, "layer 1: NaN or infinity after it, in window 0 at token 0",
                qz_eval_perplexity(&p, o.model, &w, NULL));
    close_model(&o);
    o = open_model(
        changed_model("tests/golden/models/llama", "head", (change){.kind = OVERFLOW, .tensor = "lm_head.weight"}));
    w = some_windows(o.arena, 3, 16);
    check_fails(QZ_NUMERIC, "logits: the log probability of window 0", qz_eval_perplexity(&p, o.model, &w, NULL));
    close_model(&o);
}

Test(perplexity, windows_must_fit_the_model)
{
    opened o = open_model("tests/golden/models/llama");
    qz_windows w = some_windows(o.arena, 2, 300);
    qz_perplexity p;
    check_fails(QZ_ARG, "max_position_embeddings of the model is 256", qz_eval_perplexity(&p, o.model, &w, NULL));
    w.length = 1;
    check_fails(QZ_ARG, "at least one window of two ids", qz_eval_perplexity(&p, o.model, &w, NULL));
    w = some_windows(o.arena, 2, 16);
    w.count = 0;
    check_fails(QZ_ARG, "at least one window", qz_eval_perplexity(&p, o.model, &w, NULL));
    w.count = 2;
    w.ids[17] = 160;
    check_fails(QZ_ARG, "id 160", qz_eval_perplexity(&p, o.model, &w, NULL));
    close_model(&o);
}

static int stop(void *context, const qz_progress_state *state)
{
    *(int *)context += 1;
    return 1;
}

Test(perplexity, can_be_stopped)
{
    opened o = open_model("tests/golden/models/llama");
    qz_windows w = some_windows(o.arena, 2, 16);
    qz_perplexity p;
    qz_progress *progress;
    int calls = 0;
    check_ok(qz_progress_new(&progress, stop, &calls));
    cr_assert(qz_eval_perplexity(&p, o.model, &w, progress) == QZ_INTERRUPTED);
    cr_assert(calls > 0);
    qz_progress_free(progress);
    close_model(&o);
}

static void fail_every_allocation(const char *folder)
{
    opened o = open_model(folder);
    qz_windows w = some_windows(o.arena, 2, 16);
    qz_perplexity p;
    int n = 0;
    for (;;) {
        qz_alloc_fail_at(++n);
        qz_status status = qz_eval_perplexity(&p, o.model, &w, NULL);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && n < 1000, "allocation %d: %s", n, qz_error_message());
    }
    qz_alloc_fail_at(0);
    cr_assert(n > 5);
    close_model(&o);
}

Test(perplexity, every_allocation_may_fail)
{
    fail_every_allocation("tests/golden/models/qwen3");
    fail_every_allocation("tests/golden/models/qwen3_moe");
}

Test(perplexity, size_is_foretold)
{
    opened o = open_model("demo/model");
    const uint64_t residual = 80 * 512 * 256 * 4, layer = qz_model_layer_bytes(o.model);
    uint64_t told = qz_eval_bytes(o.model, 80, 512);
    cr_assert(told > residual + layer && told < residual + layer + (200u << 20));
    close_model(&o);
}
