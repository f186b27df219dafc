/* The loop over steps where it decides something: asked to stop in any step, the best evaluation, patience, a loss that
 * is not finite. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/h5.h"
#include "testing/train_case.h"
#include "train/telemetry.h"
#include "train/train.h"

enum { STEPS = 4, IDS = 400 };

static const qz_scheme int4 = {
    .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F32};
static const qz_act_scheme static_int8 = {
    .mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};

typedef struct world {
    train_case c;
    qz_recipe recipe;
    char data[512];
} world;

static world world_new(const qz_act_scheme *activation)
{
    qz_h5 *file;
    int64_t ids[IDS];
    const uint64_t count = IDS;
    world w = {.c = train_case_new(&int4, activation, NULL), .recipe = {.version = 1, .text = "{}"}};
    for (int64_t i = 0; i < IDS; i++) ids[i] = i % 7 ? (ids[i - 1] * 5 + 11) % 160 : i * 13 % 160;
    snprintf(w.data, sizeof w.data, "%s", test_path("ids.h5"));
    check_ok(qz_h5_create(&file, w.data));
    check_ok(qz_h5_write(file, "ids", QZ_H5_I64, ids, 1, &count));
    check_ok(qz_h5_close(file));
    train_case_batch(&w.c, 77);
    w.recipe.train = (qz_recipe_train){.wanted = true,
                                       .parameters = QZ_TRAIN_ALL,
                                       .steps = STEPS,
                                       .batch = TRAIN_SEQUENCES,
                                       .micro_batch = TRAIN_SEQUENCES,
                                       .sequence_length = TRAIN_LENGTH,
                                       .learning_rate = 1e-3,
                                       .scale_learning_rate = 1e-3,
                                       .offset_learning_rate = 1e-3,
                                       .schedule = QZ_TRAIN_CONSTANT,
                                       .final_rate = 1,
                                       .beta1 = 0.9,
                                       .beta2 = 0.95,
                                       .epsilon = 1e-8,
                                       .clip_norm = 1,
                                       .compute = QZ_F32,
                                       .loss = {.cross_entropy = 1, .temperature = 1},
                                       .quantizer = {.wanted = true, .scales = QZ_TRAIN_DYNAMIC},
                                       .save_every = STEPS,
                                       .keep = 2,
                                       .evaluate_every = 1};
    return w;
}

static const char *folder_of(world *w, const char *name)
{
    const char *folder = qz_arena_printf(w->c.arena, "%s", test_path(name));
    cr_assert(mkdir(folder, 0700) == 0);
    return folder;
}

static qz_status run(qz_trained **out, world *w, const char *folder, qz_progress *progress)
{
    const qz_loader_rule rule = {.path = w->data,
                                 .length = TRAIN_LENGTH,
                                 .bos = -1,
                                 .eos = -1,
                                 .vocabulary = 160,
                                 .batch = TRAIN_SEQUENCES,
                                 .folder = folder};
    const qz_windows windows = {.ids = w->c.ids, .count = TRAIN_SEQUENCES, .length = TRAIN_LENGTH};
    qz_loader *loader;
    QZ_TRY(qz_loader_open(&loader, &rule, NULL));
    const qz_train_args args = {.recipe = &w->recipe,
                                .model = w->c.model,
                                .plan = &w->c.plan,
                                .loader = loader,
                                .evaluation = &windows,
                                .folder = folder,
                                .resume = true,
                                .progress = progress};
    const qz_status status = qz_train_run(out, &args);
    qz_loader_close(loader);
    return status;
}

static qz_train_result result_of(world *w, const char *folder)
{
    qz_trained *t;
    check_ok(run(&t, w, folder, NULL));
    const qz_train_result result = *qz_trained_result(t);
    qz_trained_free(t);
    return result;
}

static int stop_at_once(void *context, const qz_progress_state *state)
{
    (void)context;
    (void)state;
    return 1;
}

static void same_file(const char *a, const char *b, const char *name, qz_arena *arena)
{
    char *text[2];
    size_t size[2];
    check_ok(qz_file_read(&text[0], &size[0], qz_path_join(arena, a, name), 1 << 28, arena));
    check_ok(qz_file_read(&text[1], &size[1], qz_path_join(arena, b, name), 1 << 28, arena));
    cr_assert(size[0] == size[1] && memcmp(text[0], text[1], size[0]) == 0, "%s differs", name);
}

/* Every step is evaluated, and every run is asked to stop in its first step. */
Test(trainer, asked_to_stop_where_an_evaluation_is_due)
{
    world w = world_new(NULL);
    const char *whole = folder_of(&w, "whole"), *cut = folder_of(&w, "cut");
    const qz_train_result straight = result_of(&w, whole);
    for (int i = 0; i < STEPS; i++) {
        qz_progress *progress;
        qz_trained *t;
        int64_t step;
        check_ok(qz_progress_new(&progress, stop_at_once, NULL));
        cr_assert_eq(run(&t, &w, cut, progress), QZ_INTERRUPTED);
        qz_progress_free(progress);
        check_ok(qz_state_newest(&step, cut));
        cr_assert_eq(step, i + 1);
    }
    const qz_train_result resumed = result_of(&w, cut);
    cr_assert_eq(resumed.last_perplexity, straight.last_perplexity);
    cr_assert(resumed.tokens == straight.tokens && resumed.tokens_of_run == 0);
    same_file(whole, cut, "state-00000004.h5", w.c.arena);
    same_file(whole, cut, QZ_TELEMETRY_NAME, w.c.arena);
    train_case_free(&w.c);
}

/* Training makes it worse at once, but what it began with has no static scales, and so cannot be exported. */
Test(trainer, the_beginning_is_not_the_best_without_static_scales)
{
    world w = world_new(&static_int8);
    qz_act_values v;
    qz_trained *t;
    w.recipe.train.keep_best = true;
    w.recipe.train.learning_rate = w.recipe.train.scale_learning_rate = 1;
    check_ok(run(&t, &w, folder_of(&w, "best"), NULL));
    const qz_train_result *r = qz_trained_result(t);
    cr_assert(r->first_perplexity < r->best_perplexity && r->best_step > 0, "step %lld", (long long)r->best_step);
    check_ok(qz_student_activation(qz_trained_student(t), 0, &v));
    cr_assert_gt(v.scale, 0);
    qz_trained_free(t);
    train_case_free(&w.c);
}

Test(trainer, stopped_early_is_known_after_a_resume)
{
    world w = world_new(NULL);
    const char *folder = folder_of(&w, "early");
    w.recipe.train.patience = 2;
    w.recipe.train.learning_rate = 1;
    const qz_train_result first = result_of(&w, folder), again = result_of(&w, folder);
    cr_assert(first.stopped_early && first.steps < STEPS);
    cr_assert(again.stopped_early && again.steps == first.steps && again.tokens == first.tokens);
    train_case_free(&w.c);
}

Test(trainer, where_values_are_not_finite)
{
    char where[300];
    world w = world_new(NULL);
    const qz_student_rule rule = {.train_weights = true};
    train_case_start(&w.c, rule, TRAIN_SEQUENCES);
    const qz_step_batch batch = train_case_view(&w.c);
    qz_student_round(w.c.student, false);
    check_ok(qz_stepper_search(w.c.stepper, &batch, where, sizeof where));
    cr_assert_str_eq(where, "");
    const qz_student_linear *gate = NULL;
    for (int i = 0; i < qz_student_linears(w.c.student) && !gate; i++) {
        const qz_student_linear *l = qz_student_linear_at(w.c.student, i);
        if (strcmp(l->module, "model.layers.0.mlp.gate_proj") == 0) gate = l;
    }
    cr_assert_not_null(gate);
    qz_f32(&gate->weight)[7] = NAN;
    check_ok(qz_stepper_search(w.c.stepper, &batch, where, sizeof where));
    cr_assert_str_eq(where, "enter model.layers.0.mlp.down_proj");
    train_case_free(&w.c);
}
