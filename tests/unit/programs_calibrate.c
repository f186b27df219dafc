/* qcal calibrate as a process: the file it writes, and what it refuses. Small jobs on demo/model. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "calib/stats_file.h"
#include "testing/process.h"
#include "testing/testing.h"

static test_process process;

#define MORE(...) ((const char *const[]){__VA_ARGS__, NULL})

/* qcal calibrate with 4 windows of 64 tokens, into `file` when one is given. */
static int calibrate(const char *file, const char *const *more)
{
    const char *argv[40] = {QCAL_PATH,
                            "calibrate",
                            "recipes/gptq-w4.json",
                            "--set",
                            "calibration.samples=4",
                            "--set",
                            "calibration.sequence_length=64"};
    int n = 7;
    if (file) {
        argv[n++] = "--statistics";
        argv[n++] = file;
    }
    for (; more && *more; more++) argv[n++] = *more;
    test_process_run(&process, argv, (test_limits){0});
    return process.exit_code;
}

Test(calibrate, writes_every_input)
{
    qz_stats_file *f;
    qz_stats s;
    qz_arena *arena;
    double announced = 0;
    char unit[8];
    const char *path = test_path("s.h5");
    cr_assert(calibrate(path, NULL) == 0, "%s", process.err);
    cr_assert(sscanf(strstr(process.out, "takes up to "), "takes up to %lf %7s", &announced, unit) == 2);
    cr_assert_str_eq(unit, "MB");
    uint64_t bytes;
    check_ok(qz_file_size(path, &bytes));
    cr_assert((double)bytes <= announced * 1e6 && !qz_path_exists(test_path("s.h5.tmp")));
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_stats_file_open(&f, path));
    const qz_stats_source *source = qz_stats_file_source(f);
    cr_assert(source->samples == 4 && source->sequence_length == 64 && source->layers == 4 && source->experts <= 1);
    cr_assert(strlen(source->model_hash) == 32 && strlen(source->tokenizer_hash) == 32 &&
              strlen(source->data_hash) == 32);
    for (int layer = 0; layer < 4; layer++)
        for (int input = 0; input < QZ_STAGES; input++) {
            const int64_t k = input == QZ_STAGE_DOWN ? 768 : 256;
            check_ok(
                qz_stats_file_read(&s, f, layer, input, k, (qz_stats_wants){.reservoir = 1, .histogram = true}, arena));
            cr_assert(s.tokens == 256 && s.gram[k * k - 1] > 0);
        }
    check_ok(qz_stats_file_close(f));
    qz_arena_free(arena);
}

Test(calibrate, half_the_size_and_some_layers)
{
    qz_stats_file *f;
    uint64_t whole, part;
    cr_assert(calibrate(test_path("a.h5"), NULL) == 0, "%s", process.err);
    cr_assert(calibrate(test_path("b.h5"), MORE("--set", "statistics.type=f16", "--set",
                                                "statistics.layers=[\"model.layers.1\"]", "--json")) == 0,
              "%s", process.err);
    check_ok(qz_file_size(test_path("a.h5"), &whole));
    check_ok(qz_file_size(test_path("b.h5"), &part));
    cr_assert(part * 3 < whole);
    check_ok(qz_stats_file_open(&f, test_path("b.h5")));
    cr_assert(qz_stats_file_source(f)->type == QZ_F16);
    cr_assert(qz_stats_file_has(f, 1, 0) && !qz_stats_file_has(f, 0, 0));
    check_ok(qz_stats_file_close(f));
    qz_json *doc;
    int64_t bytes;
    check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
    check_ok(qz_json_int(qz_json_get(qz_json_root(doc), "bytes"), "bytes", 1, 1 << 30, &bytes));
    cr_assert((uint64_t)bytes == part);
    qz_json_close(doc);
}

Test(calibrate, files_are_kept)
{
    char path[512], text[512];
    snprintf(path, sizeof path, "%s", test_path("s.h5"));
    snprintf(text, sizeof text, "%s", test_path("notes.txt"));
    test_write_file(text, "mine", 4);
    cr_assert(calibrate(text, NULL) == 1);
    cr_assert(strstr(process.err, "notes.txt: exists; choose another file") != NULL, "%s", process.err);
    cr_assert(calibrate(text, MORE("--overwrite")) == 1);
    cr_assert(strstr(process.err, "--overwrite replaces statistics files only") != NULL, "%s", process.err);
    uint64_t size;
    check_ok(qz_file_size(text, &size));
    cr_assert(size == 4);
    cr_assert(calibrate(path, NULL) == 0, "%s", process.err);
    cr_assert(calibrate(path, NULL) == 1, "%s", process.err);
    cr_assert(calibrate(path, MORE("--overwrite")) == 0, "%s", process.err);
}

Test(calibrate, what_it_needs)
{
    const char *path = test_path("s.h5");
    cr_assert(calibrate(NULL, NULL) == 2);
    cr_assert(strstr(process.err, "--statistics FILE is needed") != NULL, "%s", process.err);
    cr_assert(calibrate(path, MORE("--set", "calibration.propagate=quantized")) == 2);
    cr_assert(strstr(process.err, "calibration.propagate: found \"quantized\"") != NULL, "%s", process.err);
    cr_assert(calibrate(test_path("none/s.h5"), NULL) == 1);
    cr_assert(strstr(process.err, "none/s.h5") != NULL, "%s", process.err);
    cr_assert(!qz_path_exists(path));
}

/* ---- qcal run --statistics ---- */

static int run(const char *output, const char *const *more)
{
    const char *argv[40] = {QCAL_PATH,
                            "run",
                            "recipes/gptq-w4.json",
                            "--quiet",
                            "--output",
                            output,
                            "--set",
                            "calibration.samples=4",
                            "--set",
                            "calibration.sequence_length=64",
                            "--set",
                            "evaluate=null",
                            "--set",
                            "calibration.propagate=original"};
    int n = 14;
    for (; more && *more; more++) argv[n++] = *more;
    test_process_run(&process, argv, (test_limits){0});
    return process.exit_code;
}

/* From the text in "original" mode and from the file: the same bytes, also for a scheme that the file was not made for.
 */
Test(calibrate, a_run_from_the_file_gives_the_same_bytes)
{
    static const char *const schemes[][3] = {
        {NULL},
        {"--set", "weights.group=64", NULL},
    };
    char file[1024], name[1024], out[2][1024], hash[2][33];
    snprintf(file, sizeof file, "%s", test_path("s.h5"));
    cr_assert(calibrate(file, NULL) == 0, "%s", process.err);
    for (int i = 0; i < 2; i++) {
        for (int from_file = 0; from_file < 2; from_file++) {
            const char *more[8];
            int n = 0;
            for (int j = 0; schemes[i][j]; j++) more[n++] = schemes[i][j];
            if (from_file) more[n++] = "--statistics", more[n++] = file;
            more[n] = NULL;
            snprintf(name, sizeof name, "out-%d-%d", i, from_file);
            snprintf(out[from_file], sizeof out[0], "%s", test_path(name));
            cr_assert(run(out[from_file], more) == 0, "%s", process.err);
            snprintf(name, sizeof name, "%s/model.safetensors", out[from_file]);
            check_ok(qz_hash_file(hash[from_file], name));
        }
        cr_assert_str_eq(hash[0], hash[1]);
    }
}

Test(calibrate, a_run_refuses_the_file_of_another_text)
{
    char file[1024], out[1024], text[1024];
    snprintf(file, sizeof file, "%s", test_path("s.h5"));
    snprintf(out, sizeof out, "%s", test_path("out"));
    snprintf(text, sizeof text, "%s", test_path("other.txt"));
    cr_assert(calibrate(file, NULL) == 0, "%s", process.err);
    test_write_file(text, "another text", 12);
    cr_assert(run(out, MORE("--statistics", file, "--data", text)) != 0);
    cr_assert(strstr(process.err, "text") != NULL || strstr(process.err, "data") != NULL, "%s", process.err);
    cr_assert(run(out, MORE("--statistics", file, "--set", "calibration.propagate=quantized")) != 0);
    cr_assert(strstr(process.err, "propagate") != NULL, "%s", process.err);
    cr_assert(!qz_path_exists(out));
}
