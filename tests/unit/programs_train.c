/* qat train and qat merge as a user runs them, in small: what they leave is what qcal reads, an interrupted run goes on
 * to the same bytes, and what cannot be is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "testing/qat_runs.h"
#include "testing/tolerances.h"

TestSuite(train, .init = setup, .fini = teardown);

Test(train, a_quantized_model_is_what_qcal_reads)
{
    const char *out = place("w3");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(out));
    cr_assert(strstr(process.out, "quantized, not trained") && strstr(process.out, "quantized and trained"), "%s",
              process.out);
    cr_assert_eq(reported(out, "training", NULL, "steps"), 2);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
    cr_assert(qz_path_exists(below(out, "training/log.jsonl")));
    cr_assert(qz_path_exists(below(out, "training/state-00000002.h5")));
    cr_assert_not(qz_path_exists(below(out, "start")));
}

Test(train, an_interrupted_run_goes_on_to_the_same_bytes)
{
    const char *whole = place("whole"), *out = place("stopped");
    const char *state = qz_arena_printf(arena, "%s.partial/training/state-00000001.h5", out);
    const char *const settings[] = {FROM_ROUNDED, "train.steps=4", output(out), NULL};
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, "train.steps=4", output(whole));
    qat_list("train", "recipes/qat-w3.json", (test_limits){.stop_on = state}, settings);
    if (process.exit_code != 0) {
        cr_assert(process.exit_code == 130, "%s", process.err);
        cr_assert(strstr(process.err, "keeps the state after step") != NULL, "%s", process.err);
        check_refused(1, "go on with --resume", "train", "recipes/qat-w3.json", FROM_ROUNDED, "train.steps=4",
                      output(out));
        check_refused(2, "train.beta1", "train", "recipes/qat-w3.json", FROM_ROUNDED, "train.steps=4",
                      "train.beta1=0.8", output(out), "--resume");
        check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, "train.steps=4", output(out), "--resume",
                  "--threads=2");
    }
    check_same_file(below(whole, "model.safetensors"), below(out, "model.safetensors"));
}

Test(train, an_adapter_merges_into_what_was_trained)
{
    const char *out = place("lora"), *merged = place("merged");
    check_qat("train", "recipes/qlora.json", output(out), "train.learning_rate=0.01");
    cr_assert(qz_path_exists(below(out, "adapter_config.json")));
    cr_assert(qz_path_exists(below(out, "adapter_model.safetensors")));
    cr_assert_not(qz_path_exists(below(out, "model.safetensors")));
    const char *const check[] = {QCAL_PATH, "check", out, "--for", "vllm", NULL};
    test_process_run(&process, check, (test_limits){0});
    cr_assert(process.exit_code == 1 && strstr(process.err, "is an adapter"), "%d: %s", process.exit_code, process.err);
    const char *adapter = qz_arena_printf(arena, "--adapter=%s", out);
    check_qat("merge", "recipes/qlora.json", adapter, output(merged), "train.learning_rate=0.01");
    cr_assert(strstr(process.out, "gain of the adapter") != NULL, "%s", process.out);
    cr_assert(strstr(process.out, "with the adapter, rounded") != NULL, "%s", process.out);
    const double trained = reported(out, "result", "quantized", "perplexity"), found = evaluated(merged);
    cr_assert_eq(reported(merged, "result", "quantized", "perplexity"), found);
    cr_assert(fabs(found / trained - 1) < 1e-5, "%.9g, trained %.9g", found, trained);
    const double rounded = reported(merged, "merge", NULL, "rounded_loss");
    cr_assert(fabs(exp(rounded) / trained - 1) < 1e-9, "%.9g, trained %.9g", exp(rounded), trained);
}

/* What is next to nothing is not divided by; a grid that was not trained for is said. */
Test(train, a_merge_that_says_what_it_cannot_keep)
{
    const char *out = place("noise"), *adapter = qz_arena_printf(arena, "--adapter=%s", out);
    check_qat("train", "recipes/qlora.json", output(out), "train.learning_rate=1e-8");
    check_qat("merge", "recipes/qlora.json", adapter, output(place("same")));
    cr_assert(strstr(process.out, "there is no gain to keep") != NULL, "%s", process.out);
    cr_assert(strstr(process.err, "the adapter was trained with") == NULL, "%s", process.err);
    check_qat("merge", "recipes/qlora.json", adapter, output(place("other")), "weights.group=64",
              "train.adapter.base.format=fp4");
    cr_assert(strstr(process.err, "weights.group: the adapter was trained with 128, the merge has 64") &&
                  strstr(process.err, "train.adapter.base.format: the adapter was trained with \"nf4\""),
              "%s", process.err);
}

/* Static scales of inputs and cache follow the training's text; merging takes those, not others. */
Test(train, static_scales_are_merged_as_trained)
{
    static const char *const rounds[][2] = {
        {"activations={\"format\": \"int8\", \"mode\": \"static\"}", "inputs"},
        {"kv_cache={\"format\": \"fp8_e4m3\", \"granularity\": \"head\"}", "cache"}};
    for (int i = 0; i < 2; i++) {
        const char *out = place(rounds[i][1]), *merged = place(qz_arena_printf(arena, "%s-merged", rounds[i][1]));
        const char *adapter = qz_arena_printf(arena, "--adapter=%s", out);
        const char *const format = "weights.format=int8", *const group = "weights.group=\"channel\"";
        check_qat("train", "recipes/qlora.json", output(out), rounds[i][0], format, group, "train.learning_rate=0.01");
        check_qat("merge", "recipes/qlora.json", adapter, output(merged), rounds[i][0], format, group);
        const double trained = reported(out, "result", "quantized", "perplexity"), found = evaluated(merged);
        cr_assert(fabs(found / trained - 1) < 1e-5, "%s: %.9g, trained %.9g", rounds[i][1], found, trained);
        cr_assert_eq(remove(below(out, "activation_scales.safetensors")), 0);
        check_refused(2, "there are no static scales of activations or cache beside the adapter", "merge",
                      "recipes/qlora.json", adapter, output(place("none")), rounds[i][0], format, group);
    }
}

/* Unrounded in training: the sum is quantized by the recipe's solver, or written as it is. */
Test(train, a_plain_adapter_merges_into_any_container)
{
    const char *out = place("beside");
    const char *const merges[][3] = {{"weights.format=int8", "export.container=gptq", "quantized"},
                                     {"weights=null", "export.container=dense", "sum"}};
    check_qat("train", "recipes/qlora.json", output(out), "train.adapter.merge_aware=false",
              "train.learning_rate=0.01");
    const char *adapter = qz_arena_printf(arena, "--adapter=%s", out);
    for (int i = 0; i < 2; i++) {
        const char *merged = place(merges[i][2]);
        check_qat("merge", "recipes/qlora.json", adapter, output(merged), "train.adapter.merge_aware=false",
                  merges[i][0], merges[i][1]);
        const double adapted = exp(reported(merged, "merge", NULL, "adapted_loss"));
        cr_assert(fabs(evaluated(merged) / adapted - 1) < 0.02, "%s: %g", merges[i][2], adapted);
        cr_assert_not(qz_path_exists(below(merged, "sum")));
    }
}

/* The base that merging finds is the one that LoftQ left in training, and not the rounded weight. */
Test(train, loftq_finds_its_base_again)
{
    const char *out = test_path("loftq"), *sum = test_path("loftq-sum");
    const char *const start = "train.adapter.start=loftq", *const turns = "train.adapter.loftq_iterations=3";
    check_qat("train", "recipes/qlora.json", output(out), "train.adapter.merge_aware=false", start, turns);
    const char *adapter = qz_arena_printf(arena, "--adapter=%s", out);
    check_qat("merge", "recipes/qlora.json", adapter, output(sum), "train.adapter.merge_aware=false", start, turns,
              "weights=null", "export.container=dense");
    const double trained = reported(out, "result", "quantized", "perplexity");
    cr_assert(fabs(exp(reported(sum, "merge", NULL, "adapted_loss")) / trained - 1) < 1e-9);
    cr_assert(fabs(evaluated(sum) / trained - 1) < 2e-3, "%g, trained %g", evaluated(sum), trained); /* bf16 */
}

/* With a rate of next to nothing, what is written is what it went on from. */
Test(train, an_adapter_is_gone_on_from)
{
    const char *first = test_path("first"), *second = test_path("second");
    const char *from = qz_arena_printf(arena, "train.adapter.from=%s", first);
    check_qat("train", "recipes/qlora.json", output(first), "train.learning_rate=0.01");
    check_qat("train", "recipes/qlora.json", output(second), from, "train.learning_rate=1e-9");
    const double before = reported(first, "result", "quantized", "perplexity"),
                 after = reported(second, "result", "quantized", "perplexity");
    cr_assert(fabs(after / before - 1) < 1e-5, "%.9g, before %.9g", after, before);
    check_refused(2, "train.adapter.from: ", "train", "recipes/qlora.json", output(test_path("third")), from,
                  "train.adapter.rank=8");
}

Test(train, from_random_weights)
{
    const char *out = place("random");
    check_qat("train", "recipes/pretrain-demo.json", output(out));
    const double first = reported(out, "training", "start", "perplexity"), found = evaluated(out);
    cr_assert(first > 1000 && found > 100, "%g, then %g", first, found);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), found);
}

/* The gradient's norm in the first line of a training's log. */
static double first_norm(const char *folder)
{
    char *text, *end;
    size_t size;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, below(folder, "training/log.jsonl"), 1 << 20, arena));
    end = memchr(text, '\n', size);
    cr_assert(end != NULL);
    check_ok(qz_json_parse(&doc, text, (size_t)(end - text)));
    const double norm = qz_json_double(qz_json_get(qz_json_root(doc), "gradient_norm"));
    qz_json_close(doc);
    return norm;
}

/* Products of rounded factors in training; what is printed at the end is fp32, as qcal computes it. */
Test(train, bf16_compute)
{
    const char *exact = test_path("f32"), *out = test_path("bf16");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(exact), "train.compute=f32");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(out), "train.compute=bf16");
    const double want = first_norm(exact), found = first_norm(out);
    cr_assert(found != want && fabs(found / want - 1) < TOL_TRAIN_BF16_GRAD, "%.9g, in fp32 %.9g", found, want);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
}

/* Plain weights keep no scales, so the start is in another container. */
Test(train, trained_from_a_quantized_start_and_written_plain)
{
    const char *out = place("plain");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(out), "export.container=dense", "train.steps=1");
    cr_assert(strstr(process.out, "quantized, not trained") != NULL, "%s", process.out);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
}

/* Choices are made on one text, and the table is of another. */
Test(train, the_best_state_is_chosen_on_the_validation_text)
{
    const char *out = place("best");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(out), "train.learning_rate=0.02", "train.steps=4",
              "train.clip_norm=0", "train.keep_best=true", "train.patience=2", "train.evaluate_every=1",
              "train.validation={\"data\": \"demo/text/valid.txt\", \"windows\": 1, \"sequence_length\": 16}");
    cr_assert(strstr(process.out, "perplexity on demo/text/valid.txt:") != NULL, "%s", process.out);
    cr_assert(strstr(process.out, "stopped early: no gain in 2 evaluations") != NULL, "%s", process.out);
    cr_assert_eq(reported(out, "training", "validation", "best_step"), 0);
    cr_assert(reported(out, "training", "validation", "last_perplexity") >
              reported(out, "training", "validation", "best_perplexity"));
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
}

#define LONG "and then he went down to the river, and up to the hill, and down to the river once more"

static const char *first_window_of(const char *text)
{
    return qz_arena_printf(arena, "train.validation={\"data\": \"%s\", \"windows\": 1, \"sequence_length\": 16}", text);
}

/* A training that is judged by the first window of these lines. */
static double judged_by(const char *name, const char *lines)
{
    const char *text = place(name), *out = place("judged");
    check_ok(qz_file_write(text, lines, strlen(lines)));
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, "--overwrite", output(out), "train.steps=1",
              first_window_of(text));
    return reported(out, "training", "validation", "first_perplexity");
}

/* Prompts count neither as targets nor as what another document sees. */
Test(train, it_is_judged_by_answers)
{
    const double answers = judged_by("a.jsonl", "{\"prompt\": \"She said\", \"completion\": \" that it was.\"}\n"
                                                "{\"prompt\": \"" LONG "\", \"completion\": \"!\"}\n");
    const double again = judged_by("b.jsonl", "{\"prompt\": \"She said\", \"completion\": \" that it was.\"}\n"
                                              "{\"prompt\": \"But " LONG "\", \"completion\": \"!\"}\n");
    const double all = judged_by("c.jsonl", "{\"text\": \"She said that it was.\"}\n{\"text\": \"" LONG "\"}\n");
    cr_assert(answers > 1 && answers == again, "%.17g, with other prompts %.17g", answers, again);
    cr_assert(fabs(answers - all) > 1, "%.17g, with prompts that count %.17g", answers, all);
}

Test(train, a_validation_text_has_answers)
{
    const char *text = place("d.jsonl"), *lines = "{\"prompt\": \"" LONG "\", \"completion\": \" " LONG "\"}\n";
    check_ok(qz_file_write(text, lines, strlen(lines)));
    check_refused(1, "d.jsonl: nothing is to be predicted in the first 1 windows of 16 ids", "train",
                  "recipes/qat-w3.json", FROM_ROUNDED, output(place("none")), first_window_of(text));
}

Test(train, the_plan_is_printed)
{
    check_qat("plan", "recipes/qat-w3.json", FROM_ROUNDED);
    cr_assert(strstr(process.out, "numbers, in 2 steps of 32 tokens") != NULL, "%s", process.out);
}

Test(train, what_cannot_be_is_refused)
{
    const char *out = output(place("refused"));
    check_refused(2, "only an \"adapter\" can be merged", "merge", "recipes/qat-w3.json", FROM_ROUNDED, out);
    check_refused(1, "no/adapter", "merge", "recipes/qlora.json", "--adapter=no/adapter", out);
    check_refused(2, "train.init: demo/model is not quantized", "train", "recipes/qat-w3.json", FROM_ROUNDED,
                  "train.init=demo/model", out);
    check_refused(2, "train.loss.teacher: tests/golden/models/llama has a vocabulary of", "train",
                  "recipes/qat-w3.json", FROM_ROUNDED, "train.loss.teacher=tests/golden/models/llama", out);
    check_refused(2, "lm_head: training rounds the linears of the layers only", "train", "recipes/qat-w3.json",
                  "train.init=null", FROM_ROUNDED, "model=tests/golden/models/llama", "weights.skip=[]",
                  "weights.group=channel", out);
    check_refused(1, "train.data", "train", "recipes/qat-w3.json", FROM_ROUNDED, "train.data=no/text.txt", out);
}

Test(train, a_recipe_without_training_is_qcals)
{
    const char *argv[] = {QAT_PATH, "train", "recipes/gptq-w4.json", NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code == 2, "%s", process.err);
    cr_assert(strstr(process.err, "train: missing: this recipe does not train; `qcal run") != NULL, "%s", process.err);
}

Test(train, an_adapter_of_another_recipe_is_refused)
{
    const char *out = place("other");
    check_qat("train", "recipes/qlora.json", output(out), "train.adapter.targets=[\"q_proj\"]");
    const char *adapter = qz_arena_printf(arena, "--adapter=%s", out), *merged = output(place("never"));
    check_refused(2, "the recipe says 8: set train.adapter.rank", "merge", "recipes/qlora.json", adapter, merged,
                  "train.adapter.targets=[\"q_proj\"]", "train.adapter.rank=8");
    check_refused(2, "train.adapter.targets must name what has an adapter", "merge", "recipes/qlora.json", adapter,
                  merged);
    cr_assert_not(qz_path_exists(place("never")));
}
