/* qat train when something goes wrong: asked to stop at any time, a disk that is full, a state that is cut off, a text
 * that changed, and recipes that do not fit model or text. What was learned is kept, and no half output is left. */
#include <stdio.h>
#include <unistd.h>

#include "testing/qat_runs.h"

TestSuite(train_faults, .init = setup, .fini = teardown);

/* The states are small and the steps fast. */
#define RECIPE "recipes/qlora.json"

static const char *copy(const char *name, const char *from)
{
    const char *path = place(name);
    check_ok(qz_file_copy(path, from));
    return path;
}

/* Until there is `state` in OUTPUT.partial; false: it was finished before the signal came. */
static bool stopped(const char *out, const char *state, const char *steps, const char *data)
{
    const char *path = qz_arena_printf(arena, "%s.partial/training/%s", out, state);
    const char *const settings[] = {steps, data, output(out), NULL};
    qat_list("train", RECIPE, (test_limits){.stop_on = path}, settings);
    if (process.exit_code == 0) return false;
    cr_assert(process.exit_code == 130, "exit code %d: %s", process.exit_code, process.err);
    cr_assert(strstr(process.err, "keeps the state after step") != NULL, "%s", process.err);
    cr_assert_not(qz_path_exists(out));
    return true;
}

#define DATA "train.data=demo/text/valid.txt"

/* The signal comes when training is over: while it exports, measures, or writes its report. */
Test(train_faults, stopped_while_exporting)
{
    const char *whole = place("whole"), *out = place("export");
    check_qat("train", RECIPE, output(whole), DATA);
    if (!stopped(out, "state-00000002.h5", "train.steps=2", DATA)) return;
    cr_assert(strstr(process.err, "keeps the state after step 2") != NULL, "%s", process.err);
    check_qat("train", RECIPE, output(out), DATA, "--resume");
    check_same_file(below(whole, "adapter_model.safetensors"), below(out, "adapter_model.safetensors"));
    cr_assert_eq(reported(out, "training", NULL, "resumed_from"), 2);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"),
                 reported(whole, "result", "quantized", "perplexity"));
}

Test(train_faults, stopped_while_it_reads_the_text)
{
    const char *out = place("reading");
    const char *const settings[] = {"train.steps=1000", output(out), NULL};
    qat_list("train", RECIPE, (test_limits){.stop_on = qz_arena_printf(arena, "%s.partial", out)}, settings);
    cr_assert(process.exit_code == 130, "exit code %d: %s", process.exit_code, process.err);
    cr_assert_not(qz_path_exists(out));
}

/* The newest state lost its end: the one before is used, and said. */
Test(train_faults, a_state_that_is_cut_off)
{
    const char *whole = place("whole"), *out = place("cut");
    check_qat("train", RECIPE, output(whole), DATA, "train.steps=3");
    if (!stopped(out, "state-00000003.h5", "train.steps=3", DATA)) return;
    const char *state = qz_arena_printf(arena, "%s.partial/training/state-00000003.h5", out);
    uint64_t size;
    check_ok(qz_file_size(state, &size));
    cr_assert_eq(truncate(state, (off_t)(size - 100)), 0);
    check_qat("train", RECIPE, output(out), DATA, "train.steps=3", "--resume");
    cr_assert(strstr(process.err, "state-00000003.h5: is no whole state file") != NULL, "%s", process.err);
    cr_assert(strstr(process.err, "the state before it is used") != NULL, "%s", process.err);
    cr_assert_eq(reported(out, "training", NULL, "resumed_from"), 2);
    check_same_file(below(whole, "adapter_model.safetensors"), below(out, "adapter_model.safetensors"));
}

/* Such a rate and decay multiply weights by -99 a step: what was learned before that overflows is kept. */
#define DIVERGING "train.warmup=0", "train.clip_norm=0", "train.weight_decay=10", "train.steps=60"

Test(train_faults, a_run_that_diverges)
{
    const char *out = place("diverged");
    check_refused(1, ".partial keeps the state after step", "train", RECIPE, output(out), DATA, DIVERGING,
                  "train.learning_rate=10", "train.schedule=constant");
    cr_assert(strstr(process.err, "--resume goes on from there") != NULL, "%s", process.err);
    cr_assert_not(qz_path_exists(out));
    check_refused(2, "train.beta1 changed", "train", RECIPE, output(out), DATA, DIVERGING, "train.learning_rate=1e-3",
                  "train.beta1=0.8", "--resume");
    const char *const qcal[] = {QCAL_PATH, "run",
                                RECIPE,    output(out),
                                "--set",   "train=null",
                                "--set",   "weights.solver=rtn",
                                "--set",   "calibration=null",
                                "--quiet", "--resume",
                                NULL};
    test_process_run(&process, qcal, (test_limits){0});
    cr_assert(process.exit_code == 2 && strstr(process.err, "interrupted run of qat train"), "%s", process.err);
    check_refused(2, "train.steps: is 1, but", "train", RECIPE, output(out), DATA, "train.steps=1", "--resume");
}

/* Other rates and steps, another way to spell a path: gone on with, and said. */
Test(train_faults, what_the_state_does_not_depend_on_may_change)
{
    const char *out = place("milder");
    if (!stopped(out, "state-00000001.h5", "train.steps=1000", DATA)) return;
    check_qat("train", RECIPE, output(out), "train.data=demo/./text/valid.txt", "train.steps=100",
              "train.save_every=50", "train.learning_rate=0.001", "--resume");
    cr_assert(strstr(process.err, "train.steps: 1000 in the state, 100 now") != NULL, "%s", process.err);
    cr_assert(strstr(process.err, "train.learning_rate: 0.0002 in the state, 0.001 now") != NULL, "%s", process.err);
    cr_assert(strstr(process.err, "train.data") == NULL, "%s", process.err);
    cr_assert_eq(reported(out, "training", NULL, "steps"), 100);
}

Test(train_faults, a_text_that_changed)
{
    const char *out = place("changed"), *text = copy("text.txt", "demo/text/valid.txt");
    const char *data = qz_arena_printf(arena, "train.data=%s", text);
    if (!stopped(out, "state-00000001.h5", "train.steps=1000", data)) return;
    FILE *file = fopen(text, "r+");
    fputs("Another text.", file);
    cr_assert_eq(fclose(file), 0);
    check_refused(2, "training text changed", "train", RECIPE, output(out), data, "train.steps=1000", "--resume");
    const char *partial = qz_arena_printf(arena, "%s.partial/training", out);
    cr_assert(qz_path_exists(partial), "what was learned is gone");
}

Test(train_faults, a_validation_text_that_changed)
{
    const char *out = place("judged"), *text = copy("judge.txt", "demo/text/valid.txt");
    const char *judge = qz_arena_printf(arena,
                                        "train.validation={\"data\": \"%s\", \"windows\": 1, "
                                        "\"sequence_length\": 16}",
                                        text);
    const char *const settings[] = {DATA, judge, "train.steps=1000", output(out), NULL};
    const char *state = qz_arena_printf(arena, "%s.partial/training/state-00000001.h5", out);
    qat_list("train", RECIPE, (test_limits){.stop_on = state}, settings);
    cr_assert(process.exit_code == 130, "exit code %d: %s", process.exit_code, process.err);
    FILE *file = fopen(text, "r+");
    fputs("Another text.", file);
    cr_assert_eq(fclose(file), 0);
    check_refused(2, "validation text changed", "train", RECIPE, DATA, judge, "train.steps=1000", output(out),
                  "--resume");
}

/* 6 MB hold the text and what is evaluated, and no state of the whole model. */
Test(train_faults, a_disk_that_is_full)
{
    const char *out = place("full");
    const char *const settings[] = {DATA, output(out), NULL};
    qat_list("train", "recipes/pretrain-demo.json", (test_limits){.file_size = 6000000}, settings);
    cr_assert(process.exit_code == 1, "exit code %d: %s", process.exit_code, process.err);
    cr_assert(strstr(process.err, "state-00000001.h5") && strstr(process.err, "cannot be written"), "%s", process.err);
    cr_assert_not(qz_path_exists(out));
    cr_assert_not(qz_path_exists(qz_arena_printf(arena, "%s.partial", out)));
}

Test(train_faults, what_does_not_fit_the_model_is_refused)
{
    const char *out = output(place("refused"));
    check_refused(2, "q_proj: rank 4000 is larger than the matrix (256, 256)", "train", RECIPE, out, DATA,
                  "train.adapter.rank=4000");
    check_refused(2, "train.adapter.targets: none of them matches a linear of the model", "train", RECIPE, out, DATA,
                  "train.adapter.targets=[\"no_proj\"]");
    check_refused(2, "train.loss.teacher: tests/golden/models/llama has a vocabulary of", "train", RECIPE, out, DATA,
                  "train.loss={\"divergence\": 1, \"teacher\": \"tests/golden/models/llama\"}");
    cr_assert_not(qz_path_exists(place("refused")));
}

Test(train_faults, a_text_shorter_than_a_batch)
{
    const char *out = output(place("refused")), *text = place("short.txt");
    test_write_file(text, "A few words, and no more of them than fill a window or two of this length.", 74);
    const char *data = qz_arena_printf(arena, "train.data=%s", text);
    check_refused(1, "a batch takes 16", "train", RECIPE, out, data, "train.batch=16");
    check_refused(1, "less than one window", "train", RECIPE, out, data, "train.sequence_length=512");
    cr_assert_not(qz_path_exists(place("refused")));
}

Test(train_faults, the_plan_for_programs)
{
    qz_json *doc;
    int64_t bytes = 0;
    check_qat("plan", RECIPE, DATA, "--json");
    check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
    const qz_json_node *root = qz_json_root(doc), *tiers = qz_json_get(root, "memory");
    for (const qz_json_node *m = qz_json_first(tiers); m; m = qz_json_next(m))
        bytes += (int64_t)qz_json_double(qz_json_get(m, "bytes"));
    /* A and B of rank 16 for the seven linears of four layers */
    cr_assert_eq(qz_json_double(qz_json_get(root, "trained_numbers")), 311296);
    cr_assert(qz_json_count(tiers) >= 4 && bytes >= (int64_t)qz_json_double(qz_json_get(root, "memory_bytes")));
    cr_assert(qz_json_double(qz_json_get(root, "flops")) > 0 && qz_json_double(qz_json_get(root, "seconds")) > 0);
    qz_json_close(doc);
    check_refused(2, "train.steps", "plan", RECIPE, "--json", "train.steps=0");
}

static double planned(const char *key, const char *first, const char *second)
{
    qz_json *doc;
    check_qat("plan", RECIPE, DATA, "--json", "train.steps=10", "evaluate.data=demo/text/train.txt", first, second);
    check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
    const double found = qz_json_double(qz_json_get(qz_json_root(doc), key));
    qz_json_close(doc);
    return found;
}

/* At the start, every so many steps and at the end. */
Test(train_faults, the_plan_counts_evaluations_while_training)
{
    const char *const text = "train.validation={\"data\": \"demo/text/test.txt\", \"windows\": 3}";
    const double none = planned("flops", "train.validation=null", "train.evaluate_every=0");
    const double two = planned("flops", text, "train.evaluate_every=0") - none;
    cr_assert(two > 2 * 3 * 512 * 2 * 3e6, "two passes over three windows: %g", two);
    cr_assert_float_eq(planned("flops", text, "train.evaluate_every=5") - none, 1.5 * two, 1e-6 * two);
    cr_assert_float_eq(planned("flops", text, "train.evaluate_every=4") - none, 2 * two, 1e-6 * two);
}

/* No more states than are written, however many may be kept. */
Test(train_faults, the_plan_counts_states_that_are_written)
{
    const double two = planned("disk_bytes", "train.keep=1", "train.save_every=0"),
                 three = planned("disk_bytes", "train.keep=2", "train.save_every=4"), state = three - two;
    cr_assert(state > 3 * 4 * 311296.0, "parameters and moments: %g", state);
    cr_assert_eq(planned("disk_bytes", "train.keep=1000", "train.save_every=0"), two);
    cr_assert_eq(planned("disk_bytes", "train.keep=1000", "train.save_every=4"), three + state);
    cr_assert_eq(planned("disk_bytes", "train.keep=1000", "train.save_every=5"), three);
    cr_assert_eq(planned("disk_bytes", "train.keep=1", "train.save_every=1"), two);
}

/* Products are not all of a step. */
Test(train_faults, the_plan_of_the_time)
{
    const char *const many = "train.steps=100000", *const beside = "train.adapter.merge_aware=false";
    qz_json *doc;
    double flops[2];
    for (int i = 0; i < 2; i++) {
        check_qat("plan", RECIPE, DATA, "--json", many, i ? beside : "train.adapter.merge_aware=true");
        check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
        const qz_json_node *root = qz_json_root(doc);
        const double rate = 1e9 * qz_json_double(qz_json_get(root, "gflops_measured"));
        flops[i] = qz_json_double(qz_json_get(root, "flops"));
        cr_assert_float_eq(qz_json_double(qz_json_get(root, "seconds")) * rate / flops[i], 1 / 0.6, 0.01);
        qz_json_close(doc);
    }
    cr_assert(flops[0] > 1.3 * flops[1], "a merged weight has a gradient of its own: %g, %g", flops[0], flops[1]);
}
