/* The output head and the embeddings: which of them a recipe quantizes, what they are quantized with, and that reading
 * them back, going on after an interruption and a statistics file see the same numbers. */
#include "calib/outside.h"

#include <math.h>

#include "base/log.h"
#include "calib/journal.h"
#include "eval/eval.h"
#include "testing/calib_case.h"
#include "testing/tolerances.h"

#define HEAD "{\"match\": [\"lm_head\"], \"skip\": false, \"weights\": {\"format\": \"int8\", \"group\": \"channel\"}}"
#define EMBEDDING                                                                                                      \
    "{\"match\": [\"embed_tokens\"], \"weights\": {\"format\": \"int8\", \"group\": \"channel\", \"range\": "          \
    "\"minmax\"}}"

static const char *const both[] = {"transforms=[]", "weights.symmetric=true", "export.container=compressed-tensors",
                                   "overrides=[" HEAD ", " EMBEDDING "]", NULL};

static const qz_export_linear *planned(const calib_case *c, qz_end end)
{
    return qz_outside_planned(&c->plan, c->model, end);
}

static void check_refused(const char *model, const char *const *sets, const char *part, const char *second)
{
    calib_case c = case_open(model, sets);
    cr_assert(qz_calib_export_plan(&c.plan, c.recipe, c.model, c.arena) != QZ_OK);
    cr_assert(strstr(qz_error_message(), part) && strstr(qz_error_message(), second), "%s", qz_error_message());
    case_close(&c);
}

/* ---- the plan ---- */

Test(outside, the_head_comes_after_the_layers)
{
    static const char *const containers[] = {"export.container=awq", "export.container=gptq", "export.container=dense",
                                             "export.container=compressed-tensors"};
    for (int i = 0; i < 4; i++) {
        calib_case c = case_open("llama", (const char *[]){containers[i], "weights.skip=[]", NULL});
        case_plan(&c);
        const qz_export_linear *l = planned(&c, QZ_END_HEAD);
        cr_assert(l == &c.plan.linear[2 * QZ_ROLES] && c.plan.linears == 2 * QZ_ROLES + 1, "%s", containers[i]);
        cr_assert_str_eq(l->module, "lm_head");
        cr_assert(l->n == 160 && l->k == 64 && l->layer == -1 && l->quantized && l->fused == -1 && !l->embedding);
        cr_assert(!planned(&c, QZ_END_EMBEDDING));
        case_close(&c);
    }
}

/* "*" is every linear, but never the embeddings: those must be named. */
Test(outside, embeddings_are_quantized_where_an_override_names_them)
{
    calib_case c = case_open("llama", both);
    case_plan(&c);
    const qz_export_linear *head = planned(&c, QZ_END_HEAD), *table = planned(&c, QZ_END_EMBEDDING);
    cr_assert(head && table == head + 1 && table->embedding && table->n == 160 && table->k == 64);
    cr_assert(head->scheme.format == QZ_FORMAT_INT8 && table->scheme.format == QZ_FORMAT_INT8);
    case_close(&c);
    c = case_open("llama", (const char *[]){"overrides=[{\"match\": [\"*\"], \"weights\": {\"group\": 64}}]", NULL});
    case_plan(&c);
    cr_assert(c.plan.linears == 2 * QZ_ROLES && !planned(&c, QZ_END_EMBEDDING) && !planned(&c, QZ_END_HEAD));
    case_close(&c);
    c = case_open("llama", (const char *[]){"overrides=[{\"match\": [\"embed_tokens\"], \"skip\": true}]", NULL});
    case_plan(&c);
    cr_assert(!planned(&c, QZ_END_EMBEDDING));
    case_close(&c);
}

Test(outside, containers_without_a_reader_refuse_embeddings_by_name)
{
    static const char *const sets[][5] = {
        {"export.container=awq", "overrides=[{\"match\": [\"embed_tokens\"], \"weights\": {\"group\": 64}}]", NULL},
        {"export.container=gptq", "overrides=[{\"match\": [\"model.embed_tokens\"], \"weights\": {\"group\": 64}}]"},
        {"export.container=fp8",
         "weights={\"format\": \"fp8_e4m3\", \"group\": \"tensor\", \"range\": \"minmax\", \"solver\": \"rtn\"}",
         "activations={\"format\": \"fp8_e4m3\", \"mode\": \"dynamic\"}",
         "overrides=[{\"match\": [\"embed_tokens\"], \"weights\": {}}]"},
        {"export.container=bitsandbytes", "weights={\"format\": \"nf4\", \"range\": \"minmax\", \"solver\": \"rtn\"}",
         "transforms=[]", "overrides=[{\"match\": [\"embed_tokens\"], \"weights\": {}}]"}};
    for (int i = 0; i < 4; i++)
        check_refused("llama", sets[i], "model.embed_tokens: no reader of", "use compressed-tensors");
}

Test(outside, vllm_takes_no_embeddings_with_zeros)
{
    check_refused("llama",
                  (const char *[]){"export.container=compressed-tensors", "transforms=[]",
                                   "overrides=[{\"match\": [\"embed_tokens\"], \"weights\": {\"group\": 64}}]", NULL},
                  "model.embed_tokens: found int4 with zeros", "symmetric");
}

Test(outside, one_table_for_both_ends_stays_plain)
{
    check_refused("llama_tied_rope3", (const char *[]){"weights.skip=[]", NULL},
                  "lm_head is not skipped, but the model ties it to model.embed_tokens", "untie the model");
    check_refused("llama_tied_rope3", (const char *[]){"overrides=[" EMBEDDING "]", NULL},
                  "model.embed_tokens is to be quantized, but it is the output head too", "untie the model");
}

/* ---- patterns ---- */

typedef struct heard {
    int count;
    char last[400];
} heard;

static void listen(void *context, const char *message)
{
    heard *h = context;
    h->count++;
    snprintf(h->last, sizeof h->last, "%s", message);
}

static heard warnings_of(const char *model, const char *const *sets)
{
    heard h = {0};
    calib_case c = case_open(model, sets);
    qz_log_to(listen, &h);
    qz_outside_warn_unmatched(c.recipe, c.model);
    qz_log_to(NULL, NULL);
    case_close(&c);
    return h;
}

/* The head is a module, but no linear that gets an adapter. */
Test(outside, a_target_that_matches_nothing_is_told)
{
    static const char train[] = "train={\"data\": \"a.txt\", \"steps\": 1, \"parameters\": \"adapter\", \"adapter\": "
                                "{\"targets\": [\"q_proj\", \"%s\"], \"base\": {\"format\": \"nf4\", \"group\": 64, "
                                "\"skip\": [\"%s\"]}}}";
    static const char *const cases[][3] = {
        {"w_prj", "lm_head", "train.adapter.targets: \"w_prj\" matches no linear of the layers"},
        {"lm_head", "lm_head", "train.adapter.targets: \"lm_head\" matches no linear"},
        {"v_proj", "donw_proj", "train.adapter.base.skip: \"donw_proj\" matches no module"}};
    for (int i = 0; i < 3; i++) {
        char set[512];
        snprintf(set, sizeof set, train, cases[i][0], cases[i][1]);
        heard h = warnings_of("llama", (const char *[]){set, NULL});
        cr_assert(h.count == 1 && strstr(h.last, cases[i][2]), "%d: %s", h.count, h.last);
    }
}

Test(outside, a_pattern_that_matches_nothing_is_told)
{
    heard h = warnings_of("llama", (const char *[]){"weights.skip=[\"lm_head\", \"donw_proj\"]", NULL});
    cr_assert(h.count == 1);
    cr_assert(strstr(h.last, "weights.skip: \"donw_proj\" matches no module"), "%s", h.last);
    h = warnings_of("llama", (const char *[]){
                                 "overrides=[{\"match\": [\"up_proj\", \"model.layers.7.*\"], \"skip\": true}]", NULL});
    cr_assert(h.count == 1);
    cr_assert(strstr(h.last, "overrides.0.match: \"model.layers.7.*\""), "%s", h.last);
    h = warnings_of("llama",
                    (const char *[]){"overrides=[{\"match\": [\"up_proj\"], \"weights\": {\"skip\": [\"x\"]}}]", NULL});
    cr_assert(h.count == 1);
    cr_assert(strstr(h.last, "overrides.0.weights.skip: \"x\""), "%s", h.last);
}

/* The head of a tied model, routers, embeddings, experts: all of them are there. */
Test(outside, patterns_of_what_is_there_are_not_told)
{
    cr_assert(warnings_of("llama_tied_rope3", NULL).count == 0);
    cr_assert(warnings_of("mixtral", (const char *[]){"weights.skip=[\"lm_head\", \"gate\", \"*.experts.1.w2\"]", NULL})
                  .count == 0);
    cr_assert(warnings_of("llama", both).count == 0);
}

/* ---- the run ---- */

static qz_windows no_windows(void)
{
    return (qz_windows){0};
}

typedef struct written {
    qz_ckpt *ckpt;
    qz_model *model;
} written;

static written open_written(const char *folder)
{
    written w;
    check_ok(qz_ckpt_open(&w.ckpt, folder));
    check_ok(qz_model_open(&w.model, w.ckpt, qz_backend_best(), NULL));
    return w;
}

static void close_written(written *w)
{
    qz_model_close(w->model);
    qz_ckpt_close(w->ckpt);
}

static qz_tensor matrix(qz_arena *arena, int64_t rows, int64_t cols)
{
    return qz_tensor_2d(qz_arena_calloc(arena, (size_t)(rows * cols) * sizeof(float)), QZ_F32, rows, cols);
}

/* Rows that are looked up, and logits, are those of the dequantized tables. */
static void check_ends(const qz_model *m, qz_arena *arena)
{
    enum { T = 3 };
    const int32_t ids[T] = {0, 159, 7};
    qz_linear table, head;
    qz_tensor x = matrix(arena, T, 64), logits = matrix(arena, T, 160);
    check_ok(qz_model_end(m, QZ_END_EMBEDDING, &table, arena));
    check_ok(qz_model_end(m, QZ_END_HEAD, &head, arena));
    check_ok(qz_model_embed(m, ids, &x));
    for (int t = 0; t < T; t++)
        cr_assert(memcmp(qz_f32(&x) + t * 64, qz_f32(&table.weight) + ids[t] * 64, 64 * sizeof(float)) == 0);
    check_ok(qz_model_logits(m, &x, &logits, arena));
    for (int t = 0; t < T; t++)
        for (int v = 0; v < 160; v++) {
            double sum = 0;
            for (int k = 0; k < 64; k++) sum += (double)qz_f32(&x)[t * 64 + k] * qz_f32(&head.weight)[v * 64 + k];
            cr_assert_float_eq(qz_f32(&logits)[t * 160 + v], sum, 1e-5 * (1 + fabs(sum)));
        }
}

static double perplexity_of(const qz_model *m, const qz_windows *w)
{
    qz_perplexity p;
    check_ok(qz_eval_perplexity(&p, m, w, NULL));
    return p.perplexity;
}

static void check_run(const char *label, const char *const *sets, bool embedding, bool codes)
{
    calib_case c = case_open("llama", sets);
    const char *out = case_folder(label);
    case_plan(&c);
    check_ok(case_run(&c, out, NULL));
    written w = open_written(out);
    check_ends(w.model, c.arena);
    cr_assert(qz_ckpt_is_quantized(w.ckpt, "lm_head") == codes);
    cr_assert(qz_ckpt_is_quantized(w.ckpt, "model.embed_tokens") == (codes && embedding));
    const double before = perplexity_of(c.model, &c.windows), after = perplexity_of(w.model, &c.windows);
    cr_assert(isfinite(after) && after != before && after > 0.5 * before && after < 2 * before, "%s: %g, original %g",
              label, after, before);
    close_written(&w);
    case_close(&c);
}

Test(outside, what_is_written_reads_back)
{
    check_run("awq", (const char *[]){"weights.skip=[]", NULL}, false, true);
    check_run("gptq", (const char *[]){"weights.skip=[]", "export.container=gptq", "weights.solver=gptq", NULL}, false,
              true);
    check_run("compressed", both, true, true);
    check_run("original", (const char *[]){both[0], both[1], both[2], both[3], "calibration.propagate=original", NULL},
              true, true);
    check_run("dense", (const char *[]){"transforms=[]", "export.container=dense", both[3], NULL}, true, false);
}

/* The Gram matrix of the final norm after all layers of the model as it is. */
static void check_head_record(const calib_case *c, const qz_stats *s)
{
    const int64_t tokens = c->windows.count * c->windows.length;
    qz_tensor x = matrix(c->arena, tokens, 64);
    qz_arena *scratch;
    qz_layer layer;
    check_ok(qz_arena_new(&scratch, "scratch"));
    check_ok(qz_model_embed(c->model, c->windows.ids, &x));
    for (int i = 0; i < 2; i++) {
        check_ok(qz_model_layer(c->model, i, &layer, scratch));
        check_ok(qz_layer_forward(c->model, &layer, (qz_batch){c->windows.count, c->windows.length}, &x, scratch));
        qz_arena_reset(scratch);
    }
    check_ok(qz_model_final_norm(c->model, &x, &x));
    cr_assert(s->k == 64 && s->tokens == tokens);
    for (int i = 0; i < 64; i++) {
        double sum = 0;
        for (int64_t t = 0; t < tokens; t++) sum += (double)qz_f32(&x)[t * 64 + i] * qz_f32(&x)[t * 64];
        cr_assert_float_eq(s->gram[i * 64], sum, 1e-3 + 1e-4 * fabs(sum));
    }
    qz_arena_free(scratch);
}

static qz_stats_source source_of(void)
{
    return (qz_stats_source){.program = "test", .family = "llama", .backend = "any", .layers = 2, .type = QZ_F32};
}

static void write_statistics(const calib_case *c, const char *path)
{
    qz_stats_file *f;
    const qz_stats_source source = source_of();
    check_ok(qz_stats_file_create(&f, path, &source));
    check_ok(qz_calib_run(&(qz_calib_args){
        .model = c->model, .recipe = c->recipe, .windows = &c->windows, .write = f, .report = c->report}));
    check_ok(qz_stats_file_close(f));
}

static qz_status run_from(const calib_case *c, const char *path, const char *out)
{
    qz_stats_file *f;
    const qz_windows none = no_windows();
    const qz_calib_output output = case_output(c, out);
    check_ok(qz_stats_file_open(&f, path));
    qz_status status =
        qz_calib_run(&(qz_calib_args){.model = c->model, .windows = &none, .output = &output, .outputs = 1, .read = f});
    qz_stats_file_abandon(f);
    return status;
}

static void check_same_weights(const char *a, const char *b)
{
    qz_ckpt *x, *y;
    check_ok(qz_ckpt_open(&x, a));
    check_ok(qz_ckpt_open(&y, b));
    cr_assert(qz_ckpt_count(x) == qz_ckpt_count(y));
    for (size_t i = 0; i < qz_ckpt_count(x); i++) {
        const qz_stored *s = qz_ckpt_at(x, i), *t = qz_ckpt_find(y, s->name);
        cr_assert(t && s->bytes == t->bytes && memcmp(s->view.data, t->view.data, s->bytes) == 0, "%s", s->name);
    }
    qz_ckpt_close(x);
    qz_ckpt_close(y);
}

Test(outside, a_statistics_file_has_the_head)
{
    static const char *const sets[] = {"weights.skip=[]",
                                       "weights.solver=gptq",
                                       "transforms=[]",
                                       "export.container=gptq",
                                       "weights.range=mse",
                                       "calibration.propagate=original",
                                       NULL};
    calib_case c = case_open("llama", sets);
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("s.h5"));
    const char *direct = case_folder("direct"), *from = case_folder("from");
    write_statistics(&c, path);
    qz_stats_file *f;
    qz_stats s;
    check_ok(qz_stats_file_open(&f, path));
    check_ok(qz_stats_file_read_head(&s, f, 64, (qz_stats_wants){.reservoir = 1, .histogram = true}, c.arena));
    qz_stats_file_abandon(f);
    check_head_record(&c, &s);
    case_plan(&c);
    check_ok(case_run(&c, direct, NULL));
    check_ok(run_from(&c, path, from));
    check_same_weights(direct, from);
    case_close(&c);
}

Test(outside, a_statistics_file_without_the_head_is_refused)
{
    calib_case c =
        case_open("llama", (const char *[]){"weights.skip=[]", "statistics.layers=[\"model.layers.*\"]", NULL});
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("s.h5"));
    write_statistics(&c, path);
    case_plan(&c);
    check_fails(QZ_ARG, "has no statistics of the output head", run_from(&c, path, case_folder("out")));
    cr_assert(strstr(qz_error_message(), "or skip the head"), "%s", qz_error_message());
    case_close(&c);
}

/* One output with a quantized head, one without: the second is as it would be alone. */
Test(outside, outputs_may_differ_in_it)
{
    static const char *const with[] = {"weights.skip=[]", "calibration.propagate=original", NULL};
    calib_case a = case_open("llama", with), b = case_open("llama", (const char *[]){with[1], NULL});
    const char *first = case_folder("first"), *second = case_folder("second"), *alone = case_folder("alone");
    case_plan(&a);
    case_plan(&b);
    const qz_calib_output outputs[] = {case_output(&a, first), case_output(&b, second)};
    check_ok(qz_calib_run(&(qz_calib_args){.model = a.model, .windows = &a.windows, .output = outputs, .outputs = 2}));
    check_ok(case_run(&b, alone, NULL));
    check_same_weights(second, alone);
    written w = open_written(first);
    cr_assert(qz_ckpt_is_quantized(w.ckpt, "lm_head"));
    close_written(&w);
    case_close(&a);
    case_close(&b);
}

Test(outside, tied_embeddings_are_written_once)
{
    calib_case c = case_open("llama_tied_rope3", NULL);
    const char *out = case_folder("tied");
    qz_ckpt *ckpt;
    case_plan(&c);
    check_ok(case_run(&c, out, NULL));
    check_ok(qz_ckpt_open(&ckpt, out));
    const qz_stored *table = qz_ckpt_find(ckpt, "model.embed_tokens.weight");
    cr_assert(table && qz_dtype_is_plain(table->view.dtype));
    for (size_t i = 0; i < qz_ckpt_count(ckpt); i++)
        cr_assert(!strstr(qz_ckpt_at(ckpt, i)->name, "lm_head"), "%s", qz_ckpt_at(ckpt, i)->name);
    cr_assert(qz_json_true(qz_json_get(qz_json_root(qz_ckpt_config(ckpt)), "tie_word_embeddings")));
    qz_ckpt_close(ckpt);
    case_close(&c);
}

/* A source whose ends are quantized: what the recipe leaves alone is dequantized. */
Test(outside, a_quantized_source_gives_plain_tables_back)
{
    calib_case c = case_open("llama", both);
    const char *source = case_folder("source"), *out = case_folder("out");
    case_plan(&c);
    check_ok(case_run(&c, source, NULL));
    case_close(&c);
    c = case_open_folder(source, NULL, NULL);
    case_plan(&c);
    cr_assert(c.plan.linears == 2 * QZ_ROLES + 2 && !planned(&c, QZ_END_HEAD)->quantized);
    check_ok(case_run(&c, out, NULL));
    written w = open_written(out);
    cr_assert(!qz_ckpt_is_quantized(w.ckpt, "lm_head") && !qz_ckpt_is_quantized(w.ckpt, "model.embed_tokens"));
    for (int end = 0; end < QZ_ENDS; end++) {
        qz_linear before, after;
        check_ok(qz_model_end(c.model, (qz_end)end, &before, c.arena));
        check_ok(qz_model_end(w.model, (qz_end)end, &after, c.arena));
        for (int64_t i = 0; i < 160 * 64; i++) {
            const float x = qz_f32(&before.weight)[i];
            cr_assert_float_eq(qz_f32(&after.weight)[i], x, 0x1p-11 * fabsf(x) + 0x1p-24f, "end %d at %lld", end,
                               (long long)i); /* fp16 */
        }
    }
    close_written(&w);
    case_close(&c);
}

/* ---- going on ---- */

static qz_status run_journaled(calib_case *c, const char *out, bool resume)
{
    qz_report_free(c->report);
    check_ok(qz_report_new(&c->report));
    const qz_calib_output output = case_output(c, out);
    return qz_calib_run(&(qz_calib_args){
        .model = c->model, .windows = &c->windows, .output = &output, .outputs = 1, .journal = true, .resume = resume});
}

/* The journal's first `lines` lines alone; how many it had. */
static int cut_journal(const char *folder, int lines, qz_arena *arena)
{
    char *text, *path = qz_path_join(arena, folder, QZ_JOURNAL_NAME);
    size_t size, used = 0;
    int found = 0;
    check_ok(qz_file_read(&text, &size, path, 1 << 22, arena));
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n') continue;
        if (++found == lines) used = i + 1;
    }
    test_write_file(path, text, used);
    return found;
}

static size_t rows_of(const qz_report *r)
{
    return qz_report_count(r);
}

/* As though the run had ended after each line of its journal in turn. */
static void check_resumed(const char *label, const char *const *sets)
{
    char name[64];
    calib_case c = case_open("llama", sets);
    const char *whole = case_folder(label);
    case_plan(&c);
    check_ok(run_journaled(&c, whole, false));
    const size_t rows = rows_of(c.report);
    for (int lines = 1, found = 99; lines <= found; lines++) {
        snprintf(name, sizeof name, "%s-%d", label, lines);
        const char *out = case_folder(name);
        check_ok(run_journaled(&c, out, false));
        found = cut_journal(out, lines, c.arena);
        cr_assert(found >= 4, "%d lines", found); /* identity, two layers, the head */
        check_ok(run_journaled(&c, out, true));
        check_same_weights(whole, out);
        cr_assert(rows_of(c.report) == rows, "%s: %zu rows, %zu without an interruption", name, rows_of(c.report),
                  rows);
    }
    case_close(&c);
}

Test(outside, resumed_runs_end_with_the_same_bytes)
{
    check_resumed("head", (const char *[]){"weights.skip=[]", "weights.solver=gptq", "export.container=gptq",
                                           "weights.range=minmax", NULL});
    check_resumed("both", both);
    check_resumed("plain", (const char *[]){"transforms=[]", "export.container=dense", both[3], NULL});
}
