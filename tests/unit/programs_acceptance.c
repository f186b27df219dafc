/* The verdict over what was evaluated, what is said of it, and the mark in the folder. */
#include "programs/acceptance.h"

#include <stdlib.h>

#include "base/file.h"
#include "testing/testing.h"

static const qz_perplexity original = {.perplexity = 10}, quantized = {.perplexity = 11};
static const qz_divergence divergence = {.kl_mean = 0.02, .kl_99 = 0.3, .top1 = 0.95};

static qz_report *report_of(const double *errors, int count)
{
    qz_report *r;
    check_ok(qz_report_new(&r));
    qz_report_add(r, "transform", "model.layers.0", "relative_output_error", 99, "");
    for (int i = 0; i < count; i++) {
        char module[64];
        snprintf(module, sizeof module, "model.layers.%d.mlp.down_proj", i);
        qz_report_add(r, "linear", module, "relative_output_error", errors[i], "");
        qz_report_add(r, "linear", module, "loss", 1000, "");
    }
    return r;
}

static const char *text_of(const qz_acceptance *a)
{
    static char text[4096];
    memset(text, 0, sizeof text);
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    qz_accept_print(out, "qcal: ", a);
    fclose(out);
    return text;
}

Test(acceptance, nothing_is_judged_unless_asked)
{
    const qz_recipe recipe = {0};
    qz_acceptance a;
    char note[64];
    qz_accept_judge(&a, &recipe, &original, &quantized, &divergence, NULL);
    cr_assert_eq(a.verdict, QZ_NOT_JUDGED);
    cr_assert_str_eq(qz_accept_note(note, &a, QZ_ACCEPT_KL), "");
    check_ok(qz_accept_mark(test_folder(), &a));
    cr_assert(!qz_path_exists(test_path("NOT_ACCEPTED")));
}

/* Each limit once met exactly and once missed by a little. */
Test(acceptance, each_figure_has_its_direction)
{
    const double errors[] = {0.1, 0.4};
    qz_report *report = report_of(errors, 2);
    const struct {
        double ratio, kl, top1, layer;
        qz_verdict verdict;
    } cases[] = {
        {1.1, 0, 0, 0, QZ_ACCEPTED},        {1.0999, 0, 0, 0, QZ_NOT_ACCEPTED},  {0, 0.02, 0, 0, QZ_ACCEPTED},
        {0, 0.0199, 0, 0, QZ_NOT_ACCEPTED}, {0, 0, 0.95, 0, QZ_ACCEPTED},        {0, 0, 0.9501, 0, QZ_NOT_ACCEPTED},
        {0, 0, 0, 0.4, QZ_ACCEPTED},        {0, 0, 0, 0.399, QZ_NOT_ACCEPTED},   {2, 1, 0.5, 0.5, QZ_ACCEPTED},
        {2, 1, 0.5, 0.3, QZ_NOT_ACCEPTED},  {1.01, 1, 0.5, 0.5, QZ_NOT_ACCEPTED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qz_recipe recipe = {0};
        qz_acceptance a;
        recipe.evaluate.accept_perplexity_ratio = cases[i].ratio;
        recipe.evaluate.accept_kl = cases[i].kl;
        recipe.evaluate.accept_top1 = cases[i].top1;
        recipe.evaluate.accept_layer_error = cases[i].layer;
        qz_accept_judge(&a, &recipe, &original, &quantized, &divergence, report);
        cr_assert_eq(a.verdict, cases[i].verdict, "case %zu", i);
        cr_assert((*text_of(&a) != '\0') == (a.verdict == QZ_NOT_ACCEPTED), "case %zu", i);
    }
    qz_report_free(report);
}

Test(acceptance, names_the_figure_and_the_worst_layers)
{
    const double errors[] = {0.3, 0.1, 0.5, 0.2, 0.4, 0.05, 0.5};
    static const char *const order[] = {"layers.2.", "layers.6.", "layers.4.", "layers.0.", "layers.3."};
    qz_recipe recipe = {0};
    qz_acceptance a;
    qz_report *report = report_of(errors, 7);
    recipe.evaluate.accept_kl = 0.01;
    recipe.evaluate.accept_top1 = 0.5;
    qz_accept_judge(&a, &recipe, &original, &quantized, &divergence, report);
    const char *text = text_of(&a), *at = text;
    cr_assert(strstr(text, "qcal: not accepted: mean KL divergence from the original 0.02 nats is above the recipe's "
                           "limit 0.01\n"),
              "%s", text);
    cr_assert(!strstr(text, "top-1") && !strstr(text, "perplexity"), "%s", text);
    for (int i = 0; i < 5; i++) cr_assert((at = strstr(at, order[i])) != NULL, "%s in %s", order[i], text);
    cr_assert(!strstr(text, "layers.1.") && !strstr(text, "layers.5."), "%s", text);
    check_ok(qz_accept_mark(test_folder(), &a));
    qz_arena *arena;
    char *file;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&file, &size, test_path("NOT_ACCEPTED"), 1 << 16, arena));
    cr_assert(strstr(file, "not accepted: mean KL") == file && strstr(file, "worst layer model.layers.2."), "%s", file);
    qz_arena_free(arena);
    qz_report_free(report);
}

Test(acceptance, what_was_not_measured_is_not_met)
{
    qz_recipe recipe = {0};
    qz_acceptance a;
    recipe.evaluate.accept_layer_error = 1;
    qz_accept_judge(&a, &recipe, &original, &quantized, &divergence, NULL);
    cr_assert_eq(a.verdict, QZ_NOT_ACCEPTED);
    cr_assert(strstr(text_of(&a), "was not measured"), "%s", text_of(&a));
}

Test(acceptance, json_has_every_limit)
{
    const double errors[] = {0.3};
    qz_recipe recipe = {0};
    qz_acceptance a;
    qz_json_writer *w;
    const char *text;
    size_t size;
    qz_json *doc;
    qz_report *report = report_of(errors, 1);
    recipe.evaluate.accept_perplexity_ratio = 1.05;
    recipe.evaluate.accept_layer_error = 1;
    qz_accept_judge(&a, &recipe, &original, &quantized, &divergence, report);
    check_ok(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_accept_put(w, &a);
    qz_json_end(w);
    check_ok(qz_json_writer_finish(w, &text, &size));
    check_ok(qz_json_parse(&doc, text, size));
    const qz_json_node *root = qz_json_root(doc), *acceptance = qz_json_get(root, "acceptance");
    const qz_json_node *limits = qz_json_get(acceptance, "limits"), *first = qz_json_first(limits);
    cr_assert(qz_json_is(qz_json_get(root, "accepted"), QZ_JSON_BOOL) && !qz_json_true(qz_json_get(root, "accepted")));
    cr_assert_eq(qz_json_count(limits), 2);
    cr_assert_str_eq(qz_json_text(qz_json_get(first, "figure")), "perplexity_ratio");
    cr_assert_float_eq(qz_json_double(qz_json_get(first, "found")), 1.1, 1e-12);
    cr_assert(!qz_json_true(qz_json_get(first, "met")) && qz_json_true(qz_json_get(qz_json_next(first), "met")));
    cr_assert_eq(qz_json_count(qz_json_get(acceptance, "worst_layers")), 1);
    qz_json_close(doc);
    qz_json_writer_free(w);
    qz_report_free(report);
}
