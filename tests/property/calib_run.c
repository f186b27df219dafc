/* The whole job on small models: what is written opens again, computes finite numbers, and is the same bytes for any
 * number of threads and in every run; numbers that overflow and a user who stops are told, and leave no file. */
#include <math.h>
#include <time.h>

#include "base/hash.h"
#include "base/parallel.h"
#include "eval/eval.h"
#include "testing/calib_case.h"

static const char *const families[] = {"llama", "llama_tied_rope3", "mistral", "qwen2",    "qwen3", "gemma2",
                                       "phi3",  "phi3_long",        "mixtral", "qwen3_moe"};
enum { FAMILIES = sizeof families / sizeof *families };

static void run_into(calib_case *c, const char *folder)
{
    case_plan(c);
    check_ok(case_run(c, folder, NULL));
}

/* Opens what was written and scores it on the windows of the case. */
static double perplexity_of(const calib_case *c, const char *folder)
{
    qz_ckpt *ckpt;
    qz_model *model;
    qz_perplexity p;
    check_ok(qz_ckpt_open(&ckpt, folder));
    check_ok(qz_model_open(&model, ckpt, qz_backend_best(), NULL));
    check_ok(qz_eval_perplexity(&p, model, &c->windows, NULL));
    qz_model_close(model);
    qz_ckpt_close(ckpt);
    return p.perplexity;
}

static double original_perplexity(const calib_case *c)
{
    qz_perplexity p;
    check_ok(qz_eval_perplexity(&p, c->model, &c->windows, NULL));
    return p.perplexity;
}

/* Every option set on one family: the result computes about what the original did. */
static void check_sets(const char *name, const char *label, const char *const *sets)
{
    char folder[64];
    snprintf(folder, sizeof folder, "%s-%s", name, label);
    const char *out = case_folder(folder);
    calib_case c = case_open(name, sets);
    run_into(&c, out);
    double before = original_perplexity(&c), after = perplexity_of(&c, out);
    cr_assert(isfinite(after) && after > 0.5 * before && after < 2 * before, "%s %s: perplexity %g, original %g", name,
              label, after, before);
    cr_assert(after != before, "%s %s: nothing was quantized", name, label);
    case_close(&c);
}

Test(calib_run, writes_what_opens_and_computes)
{
    for (int i = 0; i < FAMILIES; i++) check_sets(families[i], "awq", NULL);
}

Test(calib_run, works_without_transforms)
{
    for (int i = 0; i < FAMILIES; i++) check_sets(families[i], "plain", (const char *[]){"transforms=[]", NULL});
}

Test(calib_run, works_with_transforms_one_after_another)
{
    static const char *const some[] = {"gemma2", "phi3", "mixtral", "qwen3_moe"};
    for (int i = 0; i < 4; i++)
        check_sets(some[i], "both",
                   (const char *[]){"transforms=[\"smoothquant\", {\"method\": \"awq\", \"grid\": 5}]", NULL});
}

Test(calib_run, works_with_gptq_on_fused_linears_and_experts)
{
    static const char *const some[] = {"gemma2", "phi3", "mixtral", "qwen3_moe"};
    for (int i = 0; i < 4; i++)
        check_sets(some[i], "gptq",
                   (const char *[]){"transforms=[]", "weights.range=minmax", "weights.solver=gptq", NULL});
}

/* One token leaves experts without any, with the floor for tokens and without it. */
Test(calib_run, works_with_experts_that_get_no_tokens)
{
    static const char *const floors[] = {"calibration.expert_tokens=0", "calibration.expert_tokens=2"};
    static const char *const methods[] = {"weights.solver=rtn", "weights.solver=gptq"};
    for (int i = 0; i < 4; i++) {
        char label[32];
        snprintf(label, sizeof label, "starved-%d", i);
        calib_case c = case_open(
            "mixtral", (const char *[]){floors[i % 2], methods[i / 2], "transforms=[\"smoothquant\", \"awq\"]", NULL});
        const qz_windows all = c.windows;
        c.windows = case_windows(c.arena, 1, 1);
        const char *out = case_folder(label);
        run_into(&c, out);
        c.windows = all;
        cr_assert(isfinite(perplexity_of(&c, out)), "%s, %s", floors[i % 2], methods[i / 2]);
        case_close(&c);
    }
}

Test(calib_run, works_with_symmetric_codes)
{
    check_sets("llama", "symmetric", (const char *[]){"weights.symmetric=true", NULL});
}

Test(calib_run, works_with_the_range_minmax)
{
    check_sets("qwen2", "minmax", (const char *[]){"weights.range=minmax", NULL});
}

Test(calib_run, works_with_one_scale_a_row)
{
    check_sets("llama", "channel", (const char *[]){"weights.group=channel", NULL});
}

Test(calib_run, works_with_bfloat16)
{
    check_sets("qwen3", "bf16", (const char *[]){"export.dtype=bfloat16", "calibration.activations=bf16", NULL});
}

Test(calib_run, works_with_linears_left_plain)
{
    check_sets("qwen2", "skip",
               (const char *[]){"weights.skip=[\"lm_head\", \"down_proj\", \"*.0.self_attn.?_proj\"]", NULL});
    check_sets("qwen2", "skip2", (const char *[]){"weights.skip=[\"lm_head\", \"up_proj\", \"gate_proj\"]", NULL});
}

Test(calib_run, needs_no_text_where_no_method_asks_for_it)
{
    calib_case c = case_open("llama", (const char *[]){"transforms=[]", "weights.range=minmax", NULL});
    qz_windows windows = c.windows;
    const char *out = case_folder("no-text");
    c.windows = (qz_windows){0};
    run_into(&c, out);
    c.windows = windows;
    cr_assert(isfinite(perplexity_of(&c, out)));
    case_close(&c);
}

/* ---- the same bytes ---- */

static void hash_of_run(char hash[QZ_HASH_TEXT], const char *name, const char *const *sets, int threads, int number)
{
    char folder[64];
    snprintf(folder, sizeof folder, "hash-%s-%d", name, number);
    const char *out = case_folder(folder);
    calib_case c = case_open(name, sets);
    qz_threads_set(threads);
    run_into(&c, out);
    check_ok(qz_hash_file(hash, qz_path_join(c.arena, out, "model.safetensors")));
    case_close(&c);
}

static void check_same_bytes(const char *name, const char *const *sets)
{
    static const int threads[] = {1, 2, 8, 2};
    char first[QZ_HASH_TEXT], next[QZ_HASH_TEXT];
    hash_of_run(first, name, sets, 1, 99);
    for (int i = 0; i < 4; i++) {
        hash_of_run(next, name, sets, threads[i], i);
        cr_assert_str_eq(next, first, "%s with %d threads", name, threads[i]);
    }
}

Test(calib_run, gives_the_same_bytes_for_any_threads)
{
    check_same_bytes("llama", NULL);
}

Test(calib_run, gives_the_same_bytes_with_biases_and_bf16_activations)
{
    check_same_bytes("qwen2", (const char *[]){"calibration.activations=bf16", NULL});
}

Test(calib_run, gives_the_same_bytes_with_experts)
{
    check_same_bytes("mixtral", NULL);
}

Test(calib_run, gives_the_same_bytes_for_a_full_reservoir)
{
    char a[QZ_HASH_TEXT], b[QZ_HASH_TEXT];
    for (int i = 0; i < 2; i++) {
        const char *out = case_folder(i ? "many-8" : "many-1");
        calib_case c = case_open("llama", NULL);
        c.windows = case_windows(c.arena, 96, 24); /* 2304 tokens: more than a batch, and than the reservoir keeps */
        qz_threads_set(i ? 8 : 1);
        run_into(&c, out);
        check_ok(qz_hash_file(i ? b : a, qz_path_join(c.arena, out, "model.safetensors")));
        case_close(&c);
    }
    cr_assert_str_eq(a, b);
}

Test(calib_run, depends_on_the_text)
{
    char a[QZ_HASH_TEXT], b[QZ_HASH_TEXT];
    hash_of_run(a, "llama", NULL, 1, 50);
    const char *out = case_folder("other-text");
    calib_case c = case_open("llama", NULL);
    for (int64_t i = 0; i < c.windows.count * c.windows.length; i++) c.windows.ids[i] %= 7;
    run_into(&c, out);
    check_ok(qz_hash_file(b, qz_path_join(c.arena, out, "model.safetensors")));
    cr_assert_str_neq(a, b);
    case_close(&c);
}

/* ---- what the next layer sees ---- */

static const qz_ckpt *quantized_first_layer;

/* Puts the dequantized numbers of a checkpoint in the place of layer 0's linears. */
static void dequantize_first_layer(const char *name, float *x, int64_t count)
{
    char module[128];
    qz_arena *arena;
    const size_t n = strlen(name) - strlen(".weight");
    if (strncmp(name, "model.layers.0.", 15) != 0 || !strstr(name, "_proj.weight")) return;
    snprintf(module, sizeof module, "%.*s", (int)n, name);
    int64_t k = strstr(name, "down_proj") ? 128 : 64;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_ckpt_read_weight(quantized_first_layer, module, count / k, k, x, arena));
    qz_arena_free(arena);
}

/* Bytes of layer 1 in which the two folders differ. */
static int64_t differences(const char *a, const char *b)
{
    qz_ckpt *x, *y;
    int64_t sum = 0;
    check_ok(qz_ckpt_open(&x, a));
    check_ok(qz_ckpt_open(&y, b));
    for (size_t i = 0; i < qz_ckpt_count(x); i++) {
        const qz_stored *s = qz_ckpt_at(x, i), *t = qz_ckpt_find(y, s->name);
        if (!strstr(s->name, "layers.1.")) continue;
        cr_assert(t && t->bytes == s->bytes, "%s", s->name);
        for (uint64_t j = 0; j < s->bytes; j++)
            sum += ((const char *)s->view.data)[j] != ((const char *)t->view.data)[j];
    }
    qz_ckpt_close(x);
    qz_ckpt_close(y);
    return sum;
}

/* Layer 1 is quantized for the output of the quantized layer 0: the same as when a layer 0 of those very numbers is
 * left alone, and another than when the original layer 0 is. */
Test(calib_run, feeds_each_layer_what_the_quantized_ones_before_give)
{
    static const char *const quantize[] = {"transforms=[]", NULL};
    static const char *const leave[] = {"transforms=[]", "weights.skip=[\"lm_head\", \"model.layers.0.*\"]", NULL};
    const char *quantized = case_folder("quantized"), *model = case_folder("dequantized");
    const char *same = case_folder("same"), *other = case_folder("other");
    calib_case c = case_open("llama", quantize);
    qz_ckpt *written;
    run_into(&c, quantized);
    case_close(&c);
    check_ok(qz_ckpt_open(&written, quantized));
    quantized_first_layer = written;
    case_copy_llama(model, dequantize_first_layer, NULL);
    qz_ckpt_close(written);
    c = case_open_folder(model, leave, NULL);
    run_into(&c, same);
    case_close(&c);
    c = case_open("llama", leave);
    run_into(&c, other);
    case_close(&c);
    int64_t few = differences(quantized, same), many = differences(quantized, other);
    cr_assert(many > 0 && few * 10 < many, "%lld bytes differ, %lld from the original", (long long)few,
              (long long)many);
}

/* ---- what goes wrong ---- */

static void check_no_weights(const char *folder, qz_arena *arena)
{
    char **names;
    size_t count;
    check_ok(qz_folder_list(&names, &count, folder, arena));
    for (size_t i = 0; i < count; i++)
        cr_assert(!strstr(names[i], "safetensors") && !strstr(names[i], ".tmp"), "%s was left behind", names[i]);
}

/* Values of a source file as they are, but one linear multiplied so that fp32 overflows in layer 1. */
static void make_huge(const char *name, float *x, int64_t count)
{
    if (strcmp(name, "model.layers.1.mlp.up_proj.weight") != 0) return;
    for (int64_t i = 0; i < count; i++) x[i] *= 1e38f;
}

Test(calib_run, names_layer_and_token_of_an_overflow)
{
    const char *model = case_folder("huge"), *out = case_folder("huge-out");
    case_copy_llama(model, make_huge, NULL);
    calib_case c = case_open_folder(model, NULL, NULL);
    case_plan(&c);
    check_fails(QZ_NUMERIC, "layer 1", case_run(&c, out, NULL));
    cr_assert(strstr(qz_error_message(), "token "), "%s", qz_error_message());
    check_no_weights(out, c.arena);
    case_close(&c);
}

/* Interrupts at its n-th call in a phase (NULL: any). A progress calls back at most ten times a second, so the answers
 * are slow. */
typedef struct stopper {
    const char *phase;
    int after, calls;
} stopper;

static int stop_later(void *context, const qz_progress_state *state)
{
    stopper *s = context;
    if (s->phase && strcmp(state->phase, s->phase) != 0) return 0;
    nanosleep(&(struct timespec){.tv_nsec = 110 * 1000 * 1000}, NULL);
    return s->calls++ >= s->after;
}

static void check_interrupt(const char *phase, int after)
{
    char name[32];
    snprintf(name, sizeof name, "interrupt-%s-%d", phase ? phase : "any", after);
    const char *out = case_folder(name);
    calib_case c = case_open("llama", NULL);
    qz_progress *progress;
    stopper s = {.phase = phase, .after = after};
    check_ok(qz_progress_new(&progress, stop_later, &s));
    case_plan(&c);
    qz_status status = case_run(&c, out, progress);
    cr_assert(status == QZ_INTERRUPTED, "after %d calls: %s", after, qz_status_name(status));
    cr_assert(s.calls <= after + 2, "%d calls after the stop", s.calls - after - 1); /* a step tells before it stops */
    check_no_weights(out, c.arena);
    qz_progress_free(progress);
    case_close(&c);
}

Test(calib_run, stops_when_asked_and_leaves_no_file)
{
    for (int after = 0; after < 6; after++) check_interrupt(NULL, after);
    check_interrupt("write", 0);
}

/* Each allocation in turn fails: a message, no leak (ASan looks), no file. */
Test(calib_run, survives_any_failing_allocation)
{
    calib_case c = case_open("llama", (const char *[]){"transforms.0.grid=2", NULL});
    c.windows.count = 1;
    case_plan(&c);
    for (long n = 1, failed = 1; failed; n += 1 + n / 6) {
        char name[32];
        snprintf(name, sizeof name, "alloc-%ld", n);
        const char *out = case_folder(name);
        qz_alloc_fail_at(n);
        qz_status status = case_run(&c, out, NULL);
        qz_alloc_fail_at(0);
        failed = status != QZ_OK;
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s: %s", n, qz_status_name(status),
                  qz_error_message());
        if (failed && strcmp(qz_error_message(), "") == 0) cr_assert_fail("allocation %ld: no message", n);
        cr_assert(n < 1000000, "never ends");
    }
    case_close(&c);
}
