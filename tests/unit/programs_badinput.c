/* What bad input gets: a message that names the thing, exit code 2 for usage and recipe and 1 otherwise, and no trace
 * on disk. Each test is a row of the list that the project promises. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing/broken_model.h"
#include "testing/process.h"
#include "testing/testing.h"

/* The `run` of a small job; NULL takes what the shipped recipe says. */
typedef struct job {
    const char *recipe, *model, *output, *data, *set;
    unsigned long file_size;
} job;

static test_process process;

static void run(job j)
{
    const char *argv[24] = {QCAL_PATH, "run", j.recipe ? j.recipe : "recipes/awq-llama.json", "--quiet"};
    int n = 4;
    const char *settings[] = {"calibration.samples=4", "calibration.sequence_length=64", "evaluate=null", j.set};
    for (int i = 0; i < 4 && settings[i]; i++) {
        argv[n++] = "--set";
        argv[n++] = settings[i];
    }
    argv[n++] = "--output";
    argv[n++] = j.output ? j.output : test_path("made/out");
    if (j.model) argv[n++] = "--model";
    if (j.model) argv[n++] = j.model;
    if (j.data) argv[n++] = "--data";
    if (j.data) argv[n++] = j.data;
    test_process_run(&process, argv, (test_limits){.file_size = j.file_size});
}

static bool exists(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

/* The job fails with `code`, says `part`, and leaves nothing behind. */
static void check_refused(int code, const char *part, job j)
{
    run(j);
    cr_assert(process.exit_code == code, "exit code %d, expected %d: %s", process.exit_code, code, process.err);
    cr_assert(strstr(process.err, "qcal: error: ") != NULL, "%s", process.err);
    cr_assert(strstr(process.err, part) != NULL, "\"%s\" is not in: %s", part, process.err);
    cr_assert(!exists(test_path("made")), "something was left behind");
}

static const char *text_file(const char *name, const void *data, size_t size)
{
    test_write_file(test_path(name), data, size);
    return test_path(name);
}

static const char *recipe_file(const char *text)
{
    return text_file("r.json", text, strlen(text));
}

/* The same command on sound input works, so the tests below fail for the reason that they name. */
Test(badinput, sound_input_is_accepted)
{
    run((job){0});
    cr_assert(process.exit_code == 0, "%s", process.err);
    cr_assert(exists(test_path("made/out/report.json")) && !exists(test_path("made/out.partial")));
}

Test(badinput, a_copy_of_the_model_is_sound)
{
    run((job){.model = broken_header(NULL, NULL, 0, 0)});
    cr_assert(process.exit_code == 0, "%s", process.err);
}

/* ---- usage and recipe: 2 ---- */

Test(badinput, malformed_recipe)
{
    check_refused(2, "line 2, column", (job){.recipe = recipe_file("{ \"version\": 1,\n  \"model\" \"x\" }")});
    check_refused(2, "line 1, column", (job){.recipe = recipe_file("{ \"version\": 1, \"model\": \"x")});
    check_refused(2, "line 1", (job){.recipe = recipe_file("")});
    check_refused(2, "no/such/recipe.json", (job){.recipe = "no/such/recipe.json"});
}

Test(badinput, unknown_key)
{
    check_refused(2, "weights.groop: unknown key; did you mean \"group\"?", (job){.set = "weights.groop=64"});
}

Test(badinput, group_that_does_not_divide)
{
    check_refused(2, "96", (job){.set = "weights.group=96"});
    cr_assert(strstr(process.err, "model.layers.0.") && strstr(process.err, "128"), "%s", process.err);
}

Test(badinput, usage)
{
    const char *argv[] = {QCAL_PATH, "run", "recipes/awq-llama.json", "--overwite", NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert_eq(process.exit_code, 2);
    cr_assert(strstr(process.err, "did you mean --overwrite?") != NULL);
}

/* ---- safetensors ---- */

Test(badinput, weights_are_missing)
{
    check_refused(1, "model.safetensors", (job){.model = broken_folder("model.safetensors")});
}

Test(badinput, model_is_missing)
{
    check_refused(1, "no/such/model", (job){.model = "no/such/model"});
}

Test(badinput, weights_are_truncated)
{
    check_refused(1, "model.safetensors", (job){.model = broken_header(NULL, NULL, 0, 1000)});
}

Test(badinput, weights_overlap)
{
    check_refused(1, "model.safetensors",
                  (job){.model = broken_header("[2097152,2097664]", "[2097150,2097662]", 0, 0)});
}

Test(badinput, header_of_2_to_the_60)
{
    check_refused(1, "header", (job){.model = broken_header(NULL, NULL, (uint64_t)1 << 60, 0)});
}

Test(badinput, offsets_past_the_end)
{
    check_refused(1, "model.safetensors",
                  (job){.model = broken_header("[2097152,2097664]", "[2097152,99999999999]", 0, 0)});
}

Test(badinput, wrong_dtype)
{
    check_refused(1, "model.embed_tokens.weight",
                  (job){.model = broken_header("{\"dtype\":\"BF16\",\"shape\":[4096,256]",
                                               "{\"dtype\":\"I16\",\"shape\":[4096,256]", 0, 0)});
}

Test(badinput, wrong_shape)
{
    check_refused(1, "model.layers.0.mlp.down_proj.weight",
                  (job){.model = broken_header("{\"dtype\":\"BF16\",\"shape\":[256,768]",
                                               "{\"dtype\":\"BF16\",\"shape\":[768,256]", 0, 0)});
}

/* Three layers by the config, four in the file. */
Test(badinput, unknown_tensor)
{
    check_refused(1, "model.layers.3.", (job){.model = broken_config("num_hidden_layers", "3")});
}

/* ---- config.json ---- */

Test(badinput, config_is_missing)
{
    check_refused(1, "config.json", (job){.model = broken_folder("config.json")});
}

Test(badinput, config_is_malformed)
{
    check_refused(1, "config.json", (job){.model = broken_config_text("{ \"architectures\": [")});
    cr_assert(strstr(process.err, "line 1") != NULL, "%s", process.err);
}

Test(badinput, unknown_architecture)
{
    check_refused(1, "Mamba", (job){.model = broken_config("architectures", "[\"MambaForCausalLM\"]")});
    cr_assert(strstr(process.err, "LlamaForCausalLM") != NULL, "%s", process.err);
}

Test(badinput, config_field_is_missing)
{
    check_refused(1, "hidden_size", (job){.model = broken_config("hidden_size", NULL)});
}

Test(badinput, config_field_is_negative)
{
    check_refused(1, "num_attention_heads", (job){.model = broken_config("num_attention_heads", "-4")});
}

Test(badinput, config_field_is_text)
{
    check_refused(1, "intermediate_size", (job){.model = broken_config("intermediate_size", "\"large\"")});
}

Test(badinput, config_field_is_absurd)
{
    check_refused(1, "num_hidden_layers", (job){.model = broken_config("num_hidden_layers", "1e300")});
}

Test(badinput, config_says_another_shape)
{
    check_refused(1, "weight", (job){.model = broken_config("intermediate_size", "1024")});
}

/* ---- numbers ---- */

Test(badinput, nan_in_weights)
{
    check_refused(1, "model.layers.2.mlp.up_proj.weight",
                  (job){.model = broken_weight("model.layers.2.mlp.up_proj.weight", 300, 1, 0x7FC0)});
    cr_assert(strstr(process.err, "300") || strstr(process.err, "[1, 44]"), "%s", process.err);
}

Test(badinput, infinity_in_weights)
{
    check_refused(1, "model.layers.3.self_attn.o_proj.weight",
                  (job){.model = broken_weight("model.layers.3.self_attn.o_proj.weight", 5, 1, 0xFF80)});
}

/* Finite weights whose product is not: 2^127 in a norm. */
Test(badinput, infinity_in_activations)
{
    check_refused(1, "layer",
                  (job){.model = broken_weight("model.layers.1.post_attention_layernorm.weight", 0, 256, 0x7F00)});
    cr_assert(strstr(process.err, "1") && strstr(process.err, "token"), "%s", process.err);
}

/* ---- tokenizer and text ---- */

Test(badinput, tokenizer_of_another_model)
{
    check_refused(1, "4096", (job){.model = broken_tokenizer(": 4095", ": 70000")});
    cr_assert(strstr(process.err, "tokenizer.json") != NULL, "%s", process.err);
}

Test(badinput, tokenizer_with_an_unknown_part)
{
    check_refused(1, "Sequins", (job){.model = broken_tokenizer("\"type\": \"Sequence\"", "\"type\": \"Sequins\"")});
}

Test(badinput, tokenizer_is_missing)
{
    check_refused(1, "tokenizer.json", (job){.model = broken_folder("tokenizer.json")});
}

Test(badinput, text_is_missing)
{
    check_refused(1, "no/such.txt", (job){.data = "no/such.txt"});
}

Test(badinput, text_is_empty)
{
    check_refused(1, "empty.txt", (job){.data = text_file("empty.txt", "", 0)});
}

Test(badinput, text_is_binary)
{
    check_refused(1, "binary.txt", (job){.data = text_file("binary.txt", "abc\xff\xfe\x00\x01xyz", 10)});
}

Test(badinput, text_is_too_short)
{
    check_refused(1, "short.txt", (job){.data = text_file("short.txt", "Call me Ishmael.", 16)});
    cr_assert(strstr(process.err, "tokens") != NULL, "%s", process.err);
}

/* ---- output ---- */

Test(badinput, output_is_not_empty)
{
    const char *folder = test_path("mine");
    cr_assert_eq(mkdir(folder, 0777), 0);
    text_file("mine/novel.txt", "chapter one", 11);
    check_refused(1, "exists and is not empty", (job){.output = folder});
    cr_assert(exists(test_path("mine/novel.txt")) && !exists(test_path("mine.partial")));
}

Test(badinput, output_is_a_file)
{
    check_refused(1, "is no folder", (job){.output = text_file("file", "x", 1)});
    check_refused(1, "is no folder", (job){.output = test_path("file/out")});
    cr_assert(exists(test_path("file")));
}

Test(badinput, output_cannot_be_written)
{
    check_refused(1, "/proc", (job){.output = "/proc/out"});
}

/* A limit on the size of files stands for a full disk: every write beyond it fails. */
Test(badinput, disk_is_full)
{
    check_refused(1, "model.safetensors", (job){.file_size = 500000});
}
