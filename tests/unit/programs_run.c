/* qcal as a process, from the recipe to the folder: what it writes, prints and answers. Small jobs on demo/model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "testing/broken_model.h"
#include "testing/process.h"
#include "testing/testing.h"

static test_process process;

/* qcal COMMAND RECIPE with a small job's settings and the given further arguments. The search for scales, which takes
 * most of the time under ASan, is left to the tests that look at it: AWQ puts it back. */
static int small(const char *command, const char *output, const char *const *more)
{
    const char *argv[40] = {QCAL_PATH, command, "recipes/awq-llama.json", "--output", output};
    static const char *const settings[] = {
        "calibration.samples=8", "calibration.sequence_length=64", "transforms=[]",
        "evaluate.windows=2",    "evaluate.sequence_length=128",   "evaluate.accept.perplexity_ratio=2"};
    int n = 5;
    for (int i = 0; i < 6; i++) {
        argv[n++] = "--set";
        argv[n++] = settings[i];
    }
    for (; more && *more; more++) argv[n++] = *more;
    test_process_run(&process, argv, (test_limits){0});
    return process.exit_code;
}

#define AWQ "--set", "transforms=[{\"method\": \"awq\", \"grid\": 4}]"
#define MORE(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool exists(const char *folder, const char *name)
{
    char path[1024];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return lstat(path, &s) == 0;
}

static qz_json *parse(const char *text)
{
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    return doc;
}

static const qz_json_node *member(const qz_json_node *node, const char *a, const char *b)
{
    node = qz_json_get(node, a);
    return b ? qz_json_get(node, b) : node;
}

Test(run, writes_a_checkpoint_and_a_table)
{
    const char *out = test_path("a/out");
    cr_assert(small("run", out, MORE(AWQ)) == 0, "%s", process.err);
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json",
                                        "report.json"};
    for (size_t i = 0; i < 5; i++) cr_assert(exists(out, files[i]), "%s", files[i]);
    cr_assert(!exists(out, ".qcal-partial") && !exists(test_path("a"), "out.partial"));
    static const char *const words[] = {"bf16",      "perplexity", "accepted (limit 2)", "bits per weight", "on disk",
                                        "calibrate", "time",       "peak memory",        "memory",          "GFLOP/s"};
    for (size_t i = 0; i < 10; i++) cr_assert(strstr(process.out, words[i]) != NULL, "%s: %s", words[i], process.out);
}

Test(run, json_is_the_report)
{
    const char *out = test_path("out");
    cr_assert(small("run", out, MORE("--json")) == 0, "%s", process.err);
    qz_arena *arena;
    char *file;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&file, &size, test_path("out/report.json"), 1 << 22, arena));
    cr_assert_str_eq(process.out, file);
    qz_json *doc = parse(file);
    const qz_json_node *root = qz_json_root(doc);
    cr_assert_str_eq(qz_json_text(member(root, "program", NULL)), "qcal");
    cr_assert_eq(qz_json_double(member(root, "report_version", NULL)), 1);
    cr_assert_eq(qz_json_double(qz_json_get(member(root, "recipe", "calibration"), "samples")), 8);
    cr_assert(qz_json_true(member(root, "accepted", NULL)));
    cr_assert(qz_json_count(member(root, "layers", NULL)) > 20);
    cr_assert(qz_json_is(member(root, "inputs", "model_hash"), QZ_JSON_STRING));
    cr_assert(qz_json_is(member(root, "inputs", "calibration_hash"), QZ_JSON_STRING));
    cr_assert(qz_json_is(member(root, "environment", "arithmetic"), QZ_JSON_STRING));
    cr_assert(qz_json_double(member(root, "memory", "anonymous_peak")) > 1e6);
    cr_assert(qz_json_double(member(root, "phases", "calibrate")) > 0);
    cr_assert_eq(qz_json_count(member(root, "warnings", NULL)), 0);
    double bits = qz_json_double(member(root, "result", "bits_per_quantized_weight"));
    cr_assert(bits > 4.1 && bits < 4.2, "%g", bits); /* 4 + (16 + 4) / 128 */
    double kl = qz_json_double(member(root, "result", "kl_mean"));
    double top1 = qz_json_double(member(root, "result", "top1_agreement"));
    cr_assert(kl > 0 && kl < qz_json_double(member(root, "result", "kl_99")) && top1 > 0.5 && top1 < 1);
    qz_json_close(doc);
    qz_arena_free(arena);
}

/* What run says of the folder is what eval finds in it. */
Test(run, eval_agrees)
{
    const char *out = test_path("out");
    cr_assert(small("run", out, MORE("--json")) == 0, "%s", process.err);
    qz_json *doc = parse(process.out);
    const qz_json_node *result = qz_json_get(qz_json_root(doc), "result");
    double original = qz_json_double(member(result, "original", "perplexity"));
    double quantized = qz_json_double(member(result, "quantized", "perplexity"));
    qz_json_close(doc);
    const char *const folders[] = {"demo/model", out};
    double expected[] = {original, quantized};
    for (int i = 0; i < 2; i++) {
        const char *const argv[] = {QCAL_PATH,   "eval", folders[i],          "--data", "demo/text/test.txt",
                                    "--windows", "2",    "--sequence-length", "128",    "--json",
                                    NULL};
        test_process_run(&process, argv, (test_limits){0});
        cr_assert(process.exit_code == 0, "%s", process.err);
        doc = parse(process.out);
        double found = qz_json_double(qz_json_get(qz_json_root(doc), "perplexity"));
        cr_assert(found == expected[i], "%.17g, expected %.17g", found, expected[i]);
        cr_assert_eq(qz_json_double(qz_json_get(qz_json_root(doc), "tokens")), 254);
        qz_json_close(doc);
    }
    cr_assert(quantized != original && fabs(quantized / original - 1) < 0.5);
}

Test(run, inspect_shows_the_scheme)
{
    const char *out = test_path("out");
    cr_assert(small("run", out, NULL) == 0, "%s", process.err);
    const char *const argv[] = {QCAL_PATH, "inspect", out, NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(strstr(process.out, "model.layers.0.mlp.up_proj.qweight") != NULL, "%s", process.out);
    cr_assert(strstr(process.out, "int4 group 128") && strstr(process.out, "container awq"), "%s", process.out);
    const char *const file[] = {QCAL_PATH, "inspect", "demo/model/model.safetensors", "--json", NULL};
    test_process_run(&process, file, (test_limits){0});
    qz_json *doc = parse(process.out);
    cr_assert_eq(qz_json_double(qz_json_get(qz_json_root(doc), "bytes")), 8393216);
    qz_json_close(doc);
}

Test(run, not_accepted)
{
    const char *out = test_path("out");
    cr_assert_eq(small("run", out, MORE("--set", "evaluate.accept.perplexity_ratio=0.5")), 3);
    cr_assert(strstr(process.err, "not accepted: perplexity ratio") != NULL, "%s", process.err);
    cr_assert(strstr(process.err, "worst layer model.layers.") != NULL, "%s", process.err);
    cr_assert(exists(out, "model.safetensors") && exists(out, "report.json") && exists(out, "NOT_ACCEPTED"));
    qz_arena *arena;
    char *file;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&file, &size, test_path("out/report.json"), 1 << 22, arena));
    cr_assert(strstr(file, "\"accepted\": false") != NULL);
    qz_arena_free(arena);
}

/* Every other figure alone, once within its limit and once beyond it. */
Test(run, each_limit_counts)
{
    static const char *const limits[][2] = {
        {"evaluate.accept={\"kl\": 5}", "evaluate.accept={\"kl\": 1e-6}"},
        {"evaluate.accept={\"top1_agreement\": 0.1}", "evaluate.accept={\"top1_agreement\": 1}"},
        {"evaluate.accept={\"layer_error\": 5}", "evaluate.accept={\"layer_error\": 1e-6}"}};
    char out[512];
    snprintf(out, sizeof out, "%s", test_path("out"));
    for (int i = 0; i < 3; i++) {
        cr_assert(small("run", out, MORE("--set", limits[i][0], "--overwrite")) == 0, "%s %s", limits[i][0],
                  process.err);
        cr_assert(!exists(out, "NOT_ACCEPTED"));
        cr_assert(small("run", out, MORE("--set", limits[i][1], "--overwrite")) == 3, "%s %s", limits[i][1],
                  process.err);
        cr_assert(exists(out, "NOT_ACCEPTED") && strstr(process.err, "not accepted: "), "%s", process.err);
    }
}

Test(run, without_evaluation_nothing_is_judged)
{
    cr_assert(small("run", test_path("out"), MORE("--set", "evaluate=null", "--json")) == 0, "%s", process.err);
    cr_assert(strstr(process.out, "\"accepted\": null") && !strstr(process.out, "perplexity_ratio\": 1"));
}

Test(run, overwrite)
{
    const char *out = test_path("out");
    cr_assert_eq(small("run", out, MORE("--quiet")), 0);
    cr_assert_str_eq(process.err, "");
    cr_assert_eq(small("run", out, NULL), 1);
    cr_assert(strstr(process.err, "--overwrite") != NULL, "%s", process.err);
    test_write_file(test_path("out/old"), "x", 1);
    cr_assert_eq(small("run", out, MORE("--overwrite")), 0);
    cr_assert(!exists(out, "old") && exists(out, "report.json"));
}

/* The same bytes for any number of threads, and again. */
Test(run, bytes_are_the_same)
{
    static const char *const threads[] = {"1", "2", "8", "2"};
    char first[QZ_HASH_TEXT], hash[QZ_HASH_TEXT];
    for (int i = 0; i < 4; i++) {
        cr_assert(small("run", test_path("out"), MORE(AWQ, "--threads", threads[i], "--overwrite")) == 0, "%s",
                  process.err);
        check_ok(qz_hash_file(i ? hash : first, test_path("out/model.safetensors")));
        cr_assert(i == 0 || strcmp(hash, first) == 0, "%s threads", threads[i]);
    }
}

Test(run, interrupt_leaves_nothing)
{
    char partial[512];
    const char *out = test_path("out");
    snprintf(partial, sizeof partial, "%s", test_path("out.partial"));
    const char *argv[] = {QCAL_PATH, "run", "recipes/awq-llama.json", "--output", out, NULL};
    test_process_run(&process, argv, (test_limits){.stop_on = partial});
    cr_assert(process.exit_code == 130, "%d %s", process.exit_code, process.err);
    cr_assert(!exists(test_folder(), "out") && !exists(test_folder(), "out.partial"));
}

Test(run, interrupt_keeps_the_old_folder)
{
    char partial[512];
    const char *out = test_path("out");
    snprintf(partial, sizeof partial, "%s", test_path("out.partial"));
    cr_assert_eq(small("run", out, NULL), 0);
    test_write_file(test_path("out/old"), "x", 1);
    const char *argv[] = {QCAL_PATH, "run", "recipes/awq-llama.json", "--output", out, "--overwrite", NULL};
    test_process_run(&process, argv, (test_limits){.stop_on = partial});
    cr_assert(process.exit_code == 130, "%d %s", process.exit_code, process.err);
    cr_assert(exists(out, "old") && !exists(test_folder(), "out.partial"));
}

Test(run, demo_text_on_another_model)
{
    const char *model = broken_config("max_position_embeddings", "4096");
    cr_assert(small("run", test_path("out"), MORE("--model", model, "--json")) == 0, "%s", process.err);
    cr_assert(strstr(process.err, "qcal: warning: the calibration text demo/text/calib.txt is the demo's") != NULL);
    qz_json *doc = parse(process.out);
    cr_assert_eq(qz_json_count(qz_json_get(qz_json_root(doc), "warnings")), 1);
    qz_json_close(doc);
}

Test(run, an_input_is_not_replaced)
{
    const char *out = test_path("out");
    cr_assert_eq(small("run", out, NULL), 0);
    cr_assert_eq(small("run", test_path("out/../out"), MORE("--overwrite", "--model", out)), 2);
    cr_assert(strstr(process.err, "which is read, lies there") != NULL, "%s", process.err);
}

Test(plan, needs_no_output)
{
    cr_assert(small("plan", test_path("out"), NULL) == 0, "%s", process.err);
    cr_assert(strstr(process.out, "memory") && strstr(process.out, "disk") && strstr(process.out, "time"));
    cr_assert(!exists(test_folder(), "out") && !exists(test_folder(), "out.partial"));
    cr_assert(small("plan", test_path("out"), MORE("--json")) == 0, "%s", process.err);
    qz_json *doc = parse(process.out);
    cr_assert(qz_json_true(qz_json_get(qz_json_root(doc), "fits")));
    qz_json_close(doc);
}

Test(plan, refuses_what_does_not_fit)
{
    cr_assert_eq(small("plan", test_path("out"),
                       MORE("--set", "calibration.samples=1000000", "--set", "calibration.sequence_length=512")),
                 1);
    cr_assert(strstr(process.err, "qcal: error: ") && strstr(process.err, "samples"), "%s", process.err);
    cr_assert(strstr(process.out, "memory") != NULL);
}
