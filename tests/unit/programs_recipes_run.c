/* Every shipped recipe runs, in small, on demo/model: it exits with 0, leaves a report, and what it wrote is read by
 * inspect and by eval, which finds the perplexity of the report. Only the amount of text and the place of the outputs
 * are changed; the limits of acceptance are for the full job. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "testing/process.h"
#include "testing/testing.h"

typedef struct shipped {
    const char *recipe;
    const char *folder[5], *container[5]; /* what it writes below out/, and as what */
} shipped;

/* X(test, recipe, container): the recipes with one output, out/RECIPE. */
#define ONE_OUTPUT(X)                                                                                                  \
    X(awq_llama, "awq-llama", "awq")                                                                                   \
    X(gptq_w4, "gptq-w4", "gptq")                                                                                      \
    X(gptq_w3, "gptq-w3", "gptq")                                                                                      \
    X(smoothquant, "smoothquant-w8a8-static", "compressed-tensors")                                                    \
    X(int8_dynamic, "int8-dynamic", "compressed-tensors")                                                              \
    X(w4a8, "w4a8", "compressed-tensors")                                                                              \
    X(fp8_static, "fp8-static", "fp8")                                                                                 \
    X(fp8_dynamic, "fp8-dynamic", "compressed-tensors")                                                                \
    X(fp8_block, "fp8-block", "fp8")                                                                                   \
    X(nf4, "nf4", "bitsandbytes")                                                                                      \
    X(kv_fp8, "kv-fp8", "compressed-tensors")

#define ROW(test, recipe, container) {recipe, {recipe}, {container}},
static const shipped all[] = {
    ONE_OUTPUT(ROW){"export-many",
                    {"export-many/awq", "export-many/gptq", "export-many/int8-dynamic", "export-many/dense"},
                    {"awq", "gptq", "compressed-tensors", "dense"}},
};

static test_process process;
static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(recipes_run, .init = setup, .fini = teardown);

static const shipped *find(const char *recipe)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].recipe, recipe) == 0) return &all[i];
    return NULL;
}

/* The recipe with "out/... replaced by the same below the test's folder. */
static const char *moved(const char *recipe)
{
    char *text;
    size_t size;
    check_ok(qz_file_read(&text, &size, qz_arena_printf(arena, "recipes/%s.json", recipe), 1 << 20, arena));
    char *path = qz_arena_printf(arena, "%s/%s.json", test_folder(), recipe);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL);
    static const char place[] = "\"out/";
    for (const char *at = text, *next; at; at = next) {
        next = strstr(at, place);
        fprintf(file, "%.*s", next ? (int)(next - at) : (int)strlen(at), at);
        if (next) next += fprintf(file, "\"%s/", test_folder()) ? sizeof place - 1 : 0;
    }
    cr_assert_eq(fclose(file), 0);
    return path;
}

static void qcal(const char *const *argv)
{
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code == 0, "%s %s: %s", argv[1], argv[2], process.err);
}

static double perplexity(const char *text, size_t size, bool report)
{
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, size));
    const qz_json_node *node = qz_json_root(doc);
    if (report) {
        cr_assert(qz_json_is(qz_json_get(node, "accepted"), QZ_JSON_NULL));
        cr_assert(qz_json_count(qz_json_get(node, "layers")) > 20);
        node = qz_json_get(qz_json_get(node, "result"), "quantized");
    }
    double found = qz_json_double(qz_json_get(node, "perplexity"));
    qz_json_close(doc);
    return found;
}

static void check_folder(const char *folder, const char *container)
{
    char *report;
    size_t size;
    const char *dir = qz_arena_printf(arena, "%s/%s", test_folder(), folder);
    check_ok(qz_file_read(&report, &size, qz_path_join(arena, dir, "report.json"), 1 << 22, arena));
    double said = perplexity(report, size, true);
    qcal((const char *const[]){QCAL_PATH, "inspect", dir, NULL});
    const char *words = qz_arena_printf(arena, "container %s", container);
    cr_assert(strstr(process.out, words), "%s is not in %s", words, process.out);
    qcal((const char *const[]){QCAL_PATH, "eval", dir, "--data", "demo/text/test.txt", "--windows", "1",
                               "--sequence-length", "64", "--json", NULL});
    double found = perplexity(process.out, strlen(process.out), false);
    cr_assert(found > 1 && found == said, "%s: %.17g, the report says %.17g", folder, found, said);
}

static void check_recipe(const char *recipe)
{
    const shipped *s = find(recipe);
    qcal((const char *const[]){QCAL_PATH, "run", moved(recipe), "--quiet", "--set", "calibration.samples=2", "--set",
                               "calibration.sequence_length=64", "--set", "evaluate.windows=1", "--set",
                               "evaluate.sequence_length=64", "--set", "evaluate.accept=null", NULL});
    for (int i = 0; s->folder[i]; i++) check_folder(s->folder[i], s->container[i]);
}

#define RUNS(test, recipe, container)                                                                                  \
    Test(recipes_run, test)                                                                                            \
    {                                                                                                                  \
        check_recipe(recipe);                                                                                          \
    }
ONE_OUTPUT(RUNS)
RUNS(export_many, "export-many", )

/* Those are for qat. */
static bool trains(const char *name)
{
    char *text;
    size_t size;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, qz_arena_printf(arena, "recipes/%s.json", name), 1 << 20, arena));
    check_ok(qz_json_parse(&doc, text, size));
    bool found = qz_json_get(qz_json_root(doc), "train") != NULL;
    qz_json_close(doc);
    return found;
}

Test(recipes_run, every_recipe_is_named_here)
{
    char **names;
    size_t count, recipes = 0;
    check_ok(qz_folder_list(&names, &count, "recipes", arena));
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(names[i]);
        if (n < 6 || strcmp(names[i] + n - 5, ".json") != 0 || strcmp(names[i], "recipe.schema.json") == 0) continue;
        names[i][n - 5] = 0;
        if (trains(names[i])) continue;
        cr_expect(find(names[i]) != NULL, "%s", names[i]);
        recipes++;
    }
    cr_assert_eq(recipes, sizeof all / sizeof *all);
}
