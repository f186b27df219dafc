/* A small golden model with a recipe, windows of random ids and a report: what tests of calib/ run on. */
#ifndef QZ_TESTING_CALIB_CASE_H
#define QZ_TESTING_CALIB_CASE_H

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "calib/calib.h"
#include "testing/testing.h"

enum { CASE_WINDOWS = 5, CASE_LENGTH = 24, CASE_VOCABULARY = 160, CASE_SETS = 8 };

typedef struct calib_case {
    qz_arena *arena;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_recipe *recipe;
    qz_export_plan plan;
    qz_windows windows;
    qz_report *report;
} calib_case;

static const char case_recipe[] =
    "{\"version\": 1, \"model\": \"in\", \"output\": \"/tmp\", \"calibration\": {\"data\": \"a.txt\"},"
    " \"transforms\": [{\"method\": \"awq\", \"grid\": 5}],"
    " \"weights\": {\"format\": \"int4\", \"group\": 32, \"range\": {\"method\": \"clip\", \"grid\": 8},"
    "               \"solver\": \"rtn\"},"
    " \"export\": {\"container\": \"awq\"}}";

/* case_recipe with "path=value" settings: NULL, or an array that ends with NULL. */
static inline qz_recipe *case_parse(qz_arena *arena, const char *const *sets)
{
    const qz_recipe_catalog catalog = {qz_transforms(), qz_ranges(),    qz_solvers(), qz_containers(),
                                       qz_backends(),   qz_observers(), NULL};
    qz_override overrides[CASE_SETS];
    int count = 0;
    for (; sets && sets[count]; count++) {
        const char *equals = strchr(sets[count], '=');
        cr_assert(count < CASE_SETS && equals);
        overrides[count] = (qz_override){qz_arena_printf(arena, "%.*s", (int)(equals - sets[count]), sets[count]),
                                         equals + 1, sets[count], false};
    }
    qz_recipe *recipe;
    check_ok(qz_recipe_parse(&recipe, case_recipe, strlen(case_recipe), "recipe", &catalog, overrides, count, arena));
    return recipe;
}

static inline qz_windows case_windows(qz_arena *arena, int64_t count, int64_t length)
{
    qz_windows w = {.count = count, .length = length};
    w.ids = qz_arena_array(arena, int32_t, (size_t)(count * length));
    qz_rng rng;
    qz_rng_seed(&rng, 3, 0);
    for (int64_t i = 0; i < count * length; i++) w.ids[i] = (int32_t)qz_rng_below(&rng, CASE_VOCABULARY);
    return w;
}

/* `folder`: a model; `pass_through` as for qz_model_open. The export plan is left to the test. */
static inline calib_case case_open_folder(const char *folder, const char *const *sets, const char *const *pass_through)
{
    calib_case c = {0};
    check_ok(qz_arena_new(&c.arena, "case"));
    check_ok(qz_report_new(&c.report));
    check_ok(qz_ckpt_open(&c.ckpt, folder));
    check_ok(qz_model_open(&c.model, c.ckpt, qz_backend_best(), pass_through));
    c.recipe = case_parse(c.arena, sets);
    c.windows = case_windows(c.arena, CASE_WINDOWS, CASE_LENGTH);
    return c;
}

static inline calib_case case_open(const char *name, const char *const *sets)
{
    char path[256];
    snprintf(path, sizeof path, "tests/golden/models/%s", name);
    return case_open_folder(path, sets, NULL);
}

static inline void case_plan(calib_case *c)
{
    check_ok(qz_calib_export_plan(&c->plan, c->recipe, c->model, c->arena));
}

static inline void case_close(calib_case *c)
{
    qz_model_close(c->model);
    qz_ckpt_close(c->ckpt);
    qz_report_free(c->report);
    qz_arena_free(c->arena);
}

/* A new folder of the test's own. */
static inline const char *case_folder(const char *name)
{
    const char *path = test_path(name);
    cr_assert(mkdir(path, 0777) == 0, "%s", path);
    return path;
}

static inline qz_calib_output case_output(const calib_case *c, const char *folder)
{
    return (qz_calib_output){.recipe = c->recipe, .plan = &c->plan, .folder = folder, .report = c->report};
}

static inline qz_status case_run(const calib_case *c, const char *folder, qz_progress *progress)
{
    const qz_calib_output output = case_output(c, folder);
    const qz_calib_args args = {
        .model = c->model, .windows = &c->windows, .output = &output, .outputs = 1, .progress = progress};
    return qz_calib_run(&args);
}

/* A copy of tests/golden/models/llama (fp32) in `folder`, whose values `edit` may change; it may hold one tensor more
 * (`extra`, I32 of 3 elements; NULL: none). */
static inline void case_copy_llama(const char *folder, void (*edit)(const char *name, float *x, int64_t count),
                                   const char *extra)
{
    static const int32_t extra_data[] = {7, -8, 9};
    qz_ckpt *from;
    qz_shards *to;
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "copy"));
    check_ok(qz_ckpt_open(&from, "tests/golden/models/llama"));
    check_ok(qz_shards_new(&to, folder, 0));
    for (size_t i = 0; i < qz_ckpt_count(from); i++) {
        const qz_stored *t = qz_ckpt_at(from, i);
        check_ok(qz_shards_declare(to, t->name, t->name, t->view.dtype, t->view.ndim, t->view.shape));
    }
    if (extra) check_ok(qz_shards_declare(to, extra, extra, QZ_I32, 1, (int64_t[]){3}));
    check_ok(qz_shards_begin(to));
    for (size_t i = 0; i < qz_ckpt_count(from); i++) {
        const qz_stored *t = qz_ckpt_at(from, i);
        float *x = qz_arena_alloc(arena, t->bytes);
        memcpy(x, t->view.data, t->bytes);
        if (edit) edit(t->name, x, (int64_t)(t->bytes / sizeof *x));
        check_ok(qz_shards_write(to, t->name, x, t->bytes));
    }
    if (extra) check_ok(qz_shards_write(to, extra, extra_data, sizeof extra_data));
    check_ok(qz_shards_finish(to));
    qz_shards_free(to);
    char *config = qz_path_join(arena, folder, "config.json");
    check_ok(qz_file_copy(config, "tests/golden/models/llama/config.json"));
    qz_ckpt_close(from);
    qz_arena_free(arena);
}

#endif
