/* The loop over steps where it decides something: asked to stop in any step, the best evaluation, patience, a loss that
 * is not finite. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "testing/train_run.h"
#include "train/telemetry.h"

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
    world w = {.c = train_case_new(&int4, activation, NULL), .recipe = train_run_recipe(STEPS)};
    snprintf(w.data, sizeof w.data, "%s", test_path("ids.h5"));
    train_run_ids(w.data, IDS);
    train_case_batch(&w.c, 77);
    w.recipe.train.learning_rate = 1e-3;
    w.recipe.train.scale_learning_rate = 1e-3;
    w.recipe.train.offset_learning_rate = 1e-3;
    w.recipe.train.quantizer = (qz_recipe_quantizer){.wanted = true, .scales = QZ_TRAIN_DYNAMIC};
    w.recipe.train.save_every = STEPS;
    w.recipe.train.evaluate_every = 1;
    return w;
}

static const char *folder_of(world *w, const char *name)
{
    const char *folder = qz_arena_printf(w->c.arena, "%s", test_path(name));
    cr_assert(mkdir(folder, 0700) == 0);
    return folder;
}

static qz_train_result result_of(world *w, const char *folder)
{
    qz_trained *t;
    check_ok(train_run(&t, &w->recipe, &w->c, w->data, folder, NULL));
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
        cr_assert_eq(train_run(&t, &w.recipe, &w.c, w.data, cut, progress), QZ_INTERRUPTED);
        qz_progress_free(progress);
        check_ok(qz_state_newest(&step, cut));
        cr_assert_eq(step, i + 1);
    }
    const qz_train_result resumed = result_of(&w, cut);
    cr_assert_eq(resumed.last_perplexity, straight.last_perplexity);
    cr_assert(resumed.tokens == straight.tokens && resumed.tokens_of_run == 0);
    train_run_same(whole, cut, "state-00000004.h5");
    train_run_same(whole, cut, QZ_TELEMETRY_NAME);
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
    check_ok(train_run(&t, &w.recipe, &w.c, w.data, folder_of(&w, "best"), NULL));
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
