/* The log: every line parses and gives the numbers back, and a run that goes on finds it as it left it. */
#include "train/telemetry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "testing/testing.h"

static const char *new_folder(void)
{
    const char *folder = test_path("run");
    check_ok(qz_folder_make(folder));
    return folder;
}

static const char *log_path(const char *folder)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/" QZ_TELEMETRY_NAME, folder);
    return path;
}

/* The whole log, to be freed with the arena. */
static char *read_log(const char *folder, qz_arena *arena)
{
    char *text;
    size_t size;
    check_ok(qz_file_read(&text, &size, log_path(folder), 1 << 24, arena));
    return text;
}

static qz_step_figures figures_of(int64_t step)
{
    const double x = (double)step;
    return (qz_step_figures){.step = step,
                             .loss = 3 + 1 / (3 * x),
                             .cross_entropy = 0.1 + x,
                             .divergence = NAN,
                             .gradient_norm = 5e-324,
                             .learning_rate = 0.1 * 3e-4,
                             .tokens = 4096 * step,
                             .tokens_per_second = 12345.678,
                             .seconds = x / 7,
                             .memory_bytes = 5000000000u};
}

static qz_layer_figures layer_of(int64_t step)
{
    return (qz_layer_figures){step, "model.layers.3.mlp.up_proj", 0.004, 1.0 / 3, 2e-17, 0, 0.25};
}

static qz_telemetry *open_log(const char *folder, int64_t step, bool times)
{
    qz_telemetry *t;
    check_ok(qz_telemetry_open(&t, folder, step, times));
    return t;
}

/* A step's lines; every second one has an evaluation. */
static void log_step(qz_telemetry *t, int64_t step)
{
    const qz_step_figures f = figures_of(step);
    const qz_layer_figures l = layer_of(step);
    check_ok(qz_telemetry_step(t, &f));
    check_ok(qz_telemetry_layer(t, &l));
    if (step % 2 == 0)
        check_ok(qz_telemetry_evaluation(t, &(qz_evaluation_figures){step, 3.25, exp(3.25), step == 2, 0.5}));
}

static void log_steps(const char *folder, int64_t from, int64_t to)
{
    qz_telemetry *t = open_log(folder, from - 1, false);
    for (int64_t step = from; step <= to; step++) log_step(t, step);
    check_ok(qz_telemetry_sync(t));
    qz_telemetry_close(t);
}

/* ---- lines ---- */

static double number_in(const qz_json_node *line, const char *key)
{
    const qz_json_node *n = qz_json_get(line, key);
    cr_assert(qz_json_is(n, QZ_JSON_NUMBER), "%s", key);
    return qz_json_double(n);
}

static void check_step_line(const char *line, const qz_step_figures *f)
{
    qz_json *doc;
    check_ok(qz_json_parse(&doc, line, strcspn(line, "\n")));
    const qz_json_node *root = qz_json_root(doc);
    cr_assert_str_eq(qz_json_text(qz_json_get(root, "kind")), "step");
    cr_assert_eq(number_in(root, "step"), f->step);
    cr_assert_eq(number_in(root, "loss"), f->loss);
    cr_assert_eq(number_in(root, "cross_entropy"), f->cross_entropy);
    cr_assert_null(qz_json_get(root, "divergence"));
    cr_assert_eq(number_in(root, "gradient_norm"), f->gradient_norm);
    cr_assert_eq(number_in(root, "learning_rate"), f->learning_rate);
    cr_assert_eq(number_in(root, "tokens"), f->tokens);
    cr_assert_eq(number_in(root, "tokens_per_second"), f->tokens_per_second);
    cr_assert_eq(number_in(root, "memory_bytes"), f->memory_bytes);
    cr_assert_eq(number_in(root, "seconds"), f->seconds);
    qz_json_close(doc);
}

static const char *next_line(const char *text)
{
    const char *end = strchr(text, '\n');
    cr_assert_not_null(end);
    return end + 1;
}

Test(train_telemetry, numbers_read_back_equal)
{
    const char *folder = new_folder();
    qz_arena *arena;
    qz_json *doc;
    check_ok(qz_arena_new(&arena, "test"));
    qz_telemetry *t = open_log(folder, 0, true);
    log_step(t, 2);
    qz_telemetry_close(t);
    const qz_step_figures f = figures_of(2);
    const qz_layer_figures l = layer_of(2);
    const char *line = read_log(folder, arena);
    check_step_line(line, &f);
    line = next_line(line);
    check_ok(qz_json_parse(&doc, line, strcspn(line, "\n")));
    const qz_json_node *root = qz_json_root(doc);
    cr_assert_str_eq(qz_json_text(qz_json_get(root, "layer")), l.layer);
    cr_assert_eq(number_in(root, "flipped"), l.flipped);
    cr_assert_eq(number_in(root, "oscillation"), l.oscillation);
    cr_assert_eq(number_in(root, "scale_drift"), l.scale_drift);
    cr_assert_eq(number_in(root, "saturation"), l.saturation);
    cr_assert_eq(number_in(root, "frozen"), l.frozen);
    qz_json_close(doc);
    line = next_line(line);
    check_ok(qz_json_parse(&doc, line, strcspn(line, "\n")));
    root = qz_json_root(doc);
    cr_assert_eq(number_in(root, "perplexity"), exp(3.25));
    cr_assert(qz_json_true(qz_json_get(root, "best")));
    qz_json_close(doc);
    cr_assert_eq(*next_line(line), '\0');
    qz_arena_free(arena);
}

Test(train_telemetry, without_times_two_runs_are_equal)
{
    const char *folder = new_folder();
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    log_steps(folder, 1, 3);
    const char *text = read_log(folder, arena);
    cr_assert_null(strstr(text, "second"));
    cr_assert_null(strstr(text, "memory"));
    cr_assert_not_null(strstr(text, "\"gradient_norm\""));
    qz_arena_free(arena);
}

/* ---- going on ---- */

static char warnings[1024];

static void keep_warning(void *context, const char *message)
{
    (void)context;
    strncat(warnings, message, sizeof warnings - strlen(warnings) - 1);
}

/* A log of `done` steps with `tail` behind it, gone on with after step 4, becomes that of an undisturbed run. */
static void check_goes_on(int64_t done, const char *tail)
{
    const char *folder = new_folder();
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    log_steps(folder, 1, 9);
    const char *want = read_log(folder, arena);
    log_steps(folder, 1, done);
    FILE *f = fopen(log_path(folder), "a");
    fputs(tail, f);
    fclose(f);
    log_steps(folder, 5, 9);
    cr_assert_str_eq(read_log(folder, arena), want, "after \"%s\"", tail);
    cr_assert_str_eq(warnings, "");
    qz_arena_free(arena);
}

Test(train_telemetry, lines_of_later_steps_are_written_again)
{
    qz_log_to(keep_warning, NULL);
    check_goes_on(4, "");
    check_goes_on(9, "");
    check_goes_on(4, "{\"kind\":\"step\",\"step\":5,\"lo");
    check_goes_on(7, "{\"kind\":\"step\",\"step\":8,\"loss\":3}"); /* whole but for its end */
    check_goes_on(4, "no JSON\n");
}

Test(train_telemetry, a_log_that_is_too_short_is_told)
{
    const char *folder = new_folder();
    qz_log_to(keep_warning, NULL);
    log_steps(folder, 1, 3);
    qz_telemetry_close(open_log(folder, 8, true));
    cr_assert_not_null(strstr(warnings, "ends with step 3, and the run goes on after step 8"), "%s", warnings);
}

Test(train_telemetry, a_new_run_begins_a_new_log)
{
    const char *folder = new_folder();
    uint64_t size;
    log_steps(folder, 1, 3);
    qz_telemetry_close(open_log(folder, 0, true));
    check_ok(qz_file_size(log_path(folder), &size));
    cr_assert_eq(size, 0);
}

Test(train_telemetry, a_folder_that_is_not_there)
{
    qz_telemetry *t;
    check_fails(QZ_IO, "log.jsonl: cannot be written", qz_telemetry_open(&t, test_path("none"), 0, true));
    cr_assert_null(t);
}

Test(train_telemetry, the_live_line)
{
    char text[96], small[12];
    qz_step_figures f = figures_of(1);
    f.gradient_norm = 0.914;
    cr_assert_str_eq(qz_telemetry_text(text, sizeof text, &f), "loss 3.333, 12.3k tokens/s, |g| 0.91, rate 3.0e-05");
    f.tokens_per_second = 812;
    cr_assert_not_null(strstr(qz_telemetry_text(text, sizeof text, &f), " 812 tokens/s"));
    f.tokens_per_second = 2.5e6;
    cr_assert_not_null(strstr(qz_telemetry_text(text, sizeof text, &f), " 2.5M tokens/s"));
    cr_assert_str_eq(qz_telemetry_text(small, sizeof small, &f), "loss 3.333,");
}
