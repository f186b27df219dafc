/* kill -9 at random moments, then the same command with --resume, as often as it takes: the checkpoint has the bytes of
 * an undisturbed run. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "calib/journal.h"
#include "testing/process.h"
#include "testing/testing.h"

static test_process process;

static bool exists(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

static const char *const one[] = {"transforms=[{\"method\": \"awq\", \"grid\": 2}]", NULL};
static const char *const several[] = {
    "transforms=[]", "outputs=[{\"output\": \"OUT\"}, {\"output\": \"OUT2\", \"export\": {\"container\": \"dense\"}}]",
    NULL};

/* "OUT" and "OUT2" in the settings stand for `out` and `out`2. */
static const char *fill(const char *setting, const char *out, char *text, size_t size)
{
    const char *at = strstr(setting, "OUT\""), *second = strstr(setting, "OUT2\"");
    if (!at) return setting;
    snprintf(text, size, "%.*s%s%.*s%s2%s", (int)(at - setting), setting, out, (int)(second - at - 3), at + 3, out,
             second + 4);
    return text;
}

static double run(const char *const *settings, const char *out, bool resume, double kill_after)
{
    char text[2048] = "";
    const char *argv[24] = {QCAL_PATH, "run", "recipes/awq-llama.json", "--quiet"};
    int n = 4;
    const char *common[] = {"calibration.samples=4", "calibration.sequence_length=64", "evaluate=null",
                            "weights.range=minmax", NULL};
    for (int i = 0; common[i]; i++) argv[n++] = "--set", argv[n++] = common[i];
    for (; *settings; settings++) argv[n++] = "--set", argv[n++] = fill(*settings, out, text, sizeof text);
    if (!strstr(text, out)) argv[n++] = "--output", argv[n++] = out;
    if (resume) argv[n++] = "--resume";
    const double began = qz_seconds();
    test_process_run(&process, argv, (test_limits){.kill_after = kill_after});
    return qz_seconds() - began;
}

static bool has_layers(const char *out)
{
    char path[1024];
    snprintf(path, sizeof path, "%s.partial", out);
    return exists(path) && qz_journal_peek(path) > 0;
}

static void check_same(const char *a, const char *b, const char *name)
{
    char path[2][1024], *text[2];
    size_t size[2];
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", i ? b : a, name);
        check_ok(qz_file_read(&text[i], &size[i], path[i], 1 << 26, arena));
    }
    cr_assert(size[0] == size[1] && memcmp(text[0], text[1], size[0]) == 0, "%s differs from %s", path[0], path[1]);
    qz_arena_free(arena);
}

/* Starts, and resumes where there is something to resume, with a kill each time; the last attempt is left alone. */
static int disturbed(const char *const *settings, const char *out, const char *second, double seconds, qz_rng *rng)
{
    enum { ATTEMPTS = 3 };
    int resumed = 0;
    for (int i = 0; !exists(out) || !exists(second); i++) {
        const bool resume = has_layers(out) || has_layers(second) || exists(out);
        const double moment = (double)qz_rng_below(rng, 1000) / 1000 * seconds + 0.001;
        run(settings, out, resume, i < ATTEMPTS ? moment : 0);
        resumed += resume;
        cr_assert(i < ATTEMPTS || process.exit_code == 0, "%s", process.err);
    }
    return resumed;
}

static void check_kills(const char *const *settings, const char *name, int moments, bool both)
{
    char undisturbed[1024], out[1024], second[2][1024];
    qz_rng rng;
    int resumed = 0;
    snprintf(undisturbed, sizeof undisturbed, "%s-whole", test_path(name));
    const double seconds = run(settings, undisturbed, false, 0);
    cr_assert(process.exit_code == 0, "%s", process.err);
    qz_rng_seed(&rng, 20, (uint64_t)moments);
    for (int i = 0; i < moments; i++) {
        snprintf(out, sizeof out, "%s-%d", test_path(name), i);
        snprintf(second[1], sizeof second[1], "%s%s", out, both ? "2" : "");
        resumed += disturbed(settings, out, second[1], seconds, &rng);
        check_same(undisturbed, out, "model.safetensors");
        check_same(undisturbed, out, "config.json");
        if (!both) continue;
        snprintf(second[0], sizeof second[0], "%s2", undisturbed);
        check_same(second[0], second[1], "model.safetensors");
    }
    cr_assert(resumed > 0, "no run was interrupted after a layer");
}

Test(resume, survives_kills_of_a_run_that_propagates_quantized_layers)
{
    check_kills(one, "one", 10, false);
}

Test(resume, survives_kills_of_a_run_with_several_outputs)
{
    check_kills(several, "several", 10, true);
}

Test(resume, refuses_another_recipe)
{
    char out[1024];
    snprintf(out, sizeof out, "%s", test_path("other"));
    const double seconds = run(one, test_path("whole"), false, 0);
    for (int i = 0; i < 40 && !has_layers(out) && !exists(out); i++) run(one, out, false, seconds * (0.3 + 0.015 * i));
    if (!has_layers(out)) return; /* never caught between the first layer and the end */
    const char *argv[] = {QCAL_PATH,
                          "run",
                          "recipes/awq-llama.json",
                          "--quiet",
                          "--resume",
                          "--output",
                          out,
                          "--set",
                          "calibration.samples=4",
                          "--set",
                          "calibration.sequence_length=64",
                          "--set",
                          "evaluate=null",
                          "--set",
                          "weights.range=minmax",
                          "--set",
                          "transforms=[]",
                          NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code != 0);
    cr_assert(strstr(process.err, "recipe") != NULL, "%s", process.err);
    const char *again[] = {QCAL_PATH, "run", "recipes/awq-llama.json", "--output", out, NULL};
    test_process_run(&process, again, (test_limits){0});
    cr_assert(process.exit_code != 0 && strstr(process.err, "--resume") != NULL, "%s", process.err);
}

Test(resume, needs_something_to_resume)
{
    char out[1024];
    snprintf(out, sizeof out, "%s", test_path("nothing"));
    run(one, out, true, 0);
    cr_assert(process.exit_code != 0);
    cr_assert(strstr(process.err, "nothing to resume") != NULL, "%s", process.err);
}
