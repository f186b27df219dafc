/* qcal compare as a process: figures that agree with `eval`, a base beside itself, and models that do not belong
 * together. */
#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "testing/broken_model.h"
#include "testing/process.h"
#include "testing/testing.h"

static test_process process;

static int qcal(const char *const *arguments)
{
    const char *argv[40] = {QCAL_PATH};
    for (int n = 1; *arguments; n++) argv[n] = *arguments++;
    test_process_run(&process, argv, (test_limits){0});
    return process.exit_code;
}

#define QCAL(...) qcal((const char *const[]){__VA_ARGS__, NULL})
#define TEXT "--data", "demo/text/test.txt", "--windows", "2", "--sequence-length", "128"

/* A quantized copy of the demo model. */
static const char *quantized(void)
{
    const char *out = test_path("int4");
    cr_assert(QCAL("run", "recipes/awq-llama.json", "--output", out, "--set", "calibration.samples=4", "--set",
                   "calibration.sequence_length=64", "--set", "transforms=[]", "--set", "evaluate=null") == 0,
              "%s", process.err);
    return out;
}

static double number(const qz_json_node *object, const char *key)
{
    const qz_json_node *node = qz_json_get(object, key);
    cr_assert(qz_json_is(node, QZ_JSON_NUMBER), "%s", key);
    return qz_json_double(node);
}

static qz_json *parsed(void)
{
    qz_json *doc;
    check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
    return doc;
}

Test(compare, figures_agree_with_eval)
{
    const char *folder = quantized();
    cr_assert(QCAL("compare", "demo/model", folder, "demo/model", TEXT, "--json") == 0, "%s", process.err);
    qz_json *doc = parsed();
    const qz_json_node *models = qz_json_get(qz_json_root(doc), "models"), *base = qz_json_first(models);
    const qz_json_node *other = qz_json_next(base), *same = qz_json_next(other);
    cr_assert_eq(qz_json_count(models), 3);
    const double expected = number(other, "perplexity"), kl = number(other, "kl_mean");
    cr_assert(kl > 1e-4 && kl < 1 && number(other, "kl_99") > kl, "%g", kl);
    cr_assert(number(other, "top1_agreement") > 0.5 && number(other, "top1_agreement") < 1);
    cr_assert_float_eq(number(other, "perplexity_ratio"), expected / number(base, "perplexity"), 1e-12);
    cr_assert(number(other, "bits_per_quantized_weight") < 4.2 && number(other, "bits_per_quantized_weight") > 4.1);
    cr_assert(number(other, "folder_bytes") < number(base, "folder_bytes"));
    cr_assert(!qz_json_get(base, "kl_mean"));
    cr_assert(number(same, "kl_mean") == 0 && number(same, "top1_agreement") == 1);
    cr_assert(QCAL("eval", folder, TEXT, "--json") == 0);
    qz_json *eval = parsed();
    cr_assert(number(qz_json_root(eval), "perplexity") == expected);
    qz_json_close(eval);
    qz_json_close(doc);
}

Test(compare, table)
{
    cr_assert(QCAL("compare", "demo/model", quantized(), TEXT) == 0, "%s", process.err);
    static const char *const words[] = {
        "perplexity", "ratio", "KL mean", "KL 99 %", "top-1", "bits", "MB", "demo/model", "254 tokens in 2 windows"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        cr_assert(strstr(process.out, words[i]), "%s is not in %s", words[i], process.out);
}

Test(compare, models_of_two_vocabularies)
{
    cr_assert_eq(QCAL("compare", "demo/model", "tests/golden/models/llama", TEXT), 2);
    cr_assert(strstr(process.err, "demo/model has a vocabulary of 4096, tests/golden/models/llama one of 160"), "%s",
              process.err);
}

Test(compare, models_of_two_tokenizers)
{
    const char *other = broken_tokenizer("]?\\\\p{L}+|", "]?\\\\p{L}|");
    cr_assert_eq(QCAL("compare", "demo/model", other, TEXT), 2, "%s", process.err);
    cr_assert(strstr(process.err, "into different ids"), "%s", process.err);
}

Test(compare, what_is_missing)
{
    cr_assert_eq(QCAL("compare", "demo/model", "--data", "demo/text/test.txt"), 2);
    cr_assert(strstr(process.err, "usage: qcal compare BASE DIR..."), "%s", process.err);
    cr_assert_eq(QCAL("compare", "demo/model", "demo/model"), 2);
    cr_assert(strstr(process.err, "--data FILE is missing"), "%s", process.err);
    cr_assert_eq(QCAL("compare", "demo/model", "/nowhere", TEXT), 1);
    cr_assert(strstr(process.err, "/nowhere"), "%s", process.err);
}
