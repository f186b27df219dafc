/* A cache of int8 from the recipe to the server's check: trained through and calibrated, written, read back and
 * evaluated to the same figure, and told to whom it is of no use. */
#include "testing/qat_runs.h"

TestSuite(cache, .init = setup, .fini = teardown);

#define INT8_CACHE "kv_cache={\"format\": \"int8\"}"

static void check_for_vllm(const char *folder)
{
    const char *argv[] = {QCAL_PATH, "check", folder, "--for", "vllm", NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code != 0 && strstr(process.out, "a form of the cache that vllm does not read"), "%s%s",
              process.out, process.err);
}

Test(cache, int8_is_trained_through_and_read_back)
{
    const char *out = place("trained"), *plain = place("plain");
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(out), "train.init=null", "weights.format=int8",
              "export.container=compressed-tensors", INT8_CACHE);
    cr_assert(strstr(process.err, "vLLM has caches of fp8 only") != NULL, "%s", process.err);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
    check_for_vllm(out);
    check_qat("train", "recipes/qat-w3.json", FROM_ROUNDED, output(plain), "train.init=null", "weights.format=int8",
              "export.container=compressed-tensors", "kv_cache={\"format\": \"fp8_e4m3\"}");
    cr_assert(evaluated(plain) != evaluated(out), "the cache is rounded to int8");
    check_refused(2, "kv_cache.format", "plan", "recipes/qat-w3.json", FROM_ROUNDED, "kv_cache={\"format\": \"int4\"}");
}

Test(cache, int8_is_calibrated_and_read_back)
{
    const char *out = place("calibrated");
    const char *argv[] = {QCAL_PATH,
                          "run",
                          "recipes/kv-fp8.json",
                          "--quiet",
                          "--threads=1",
                          output(out),
                          "--set",
                          "kv_cache.format=int8",
                          "--set",
                          "calibration.samples=2",
                          "--set",
                          "calibration.sequence_length=32",
                          "--set",
                          "evaluate.windows=2",
                          "--set",
                          "evaluate.sequence_length=32",
                          "--set",
                          "evaluate.accept=null",
                          "--set",
                          "weights.solver=rtn",
                          "--set",
                          "weights.range=minmax",
                          NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code == 0, "%s", process.err);
    cr_assert_eq(reported(out, "result", "quantized", "perplexity"), evaluated(out));
    check_for_vllm(out);
}
