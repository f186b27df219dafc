/* The learning rate of a step: the rise, the peak, the falls and their ends. */
#include "train/schedule.h"

#include <math.h>

#include "testing/testing.h"

static const qz_schedule cosine = {QZ_TRAIN_COSINE, 3e-4, 0.05, 0.1, 2000};

static void near(double found, double want)
{
    cr_assert(fabs(found - want) <= 1e-15 * fabs(want) + 1e-20, "%.17g, expected %.17g", found, want);
}

Test(train_schedule, rises_by_equal_steps_to_the_peak)
{
    cr_assert_eq(qz_schedule_warmup(&cosine), 100);
    near(qz_schedule_rate(&cosine, 1), 3e-6);
    near(qz_schedule_rate(&cosine, 50), 1.5e-4);
    cr_assert_eq(qz_schedule_rate(&cosine, 100), 3e-4);
}

Test(train_schedule, cosine_falls_to_the_final_rate)
{
    /* a quarter of the fall: (1 + cos(pi / 4)) / 2 = 0.85355339059327376 is left of it */
    near(qz_schedule_rate(&cosine, 575), 3e-4 * (0.1 + 0.9 * 0.85355339059327376));
    near(qz_schedule_rate(&cosine, 1050), 3e-4 * 0.55);
    near(qz_schedule_rate(&cosine, 2000), 3e-5);
    for (int64_t step = 101; step <= 2000; step++)
        cr_assert_lt(qz_schedule_rate(&cosine, step), qz_schedule_rate(&cosine, step - 1));
}

Test(train_schedule, linear_falls_on_a_line)
{
    const qz_schedule s = {QZ_TRAIN_LINEAR, 1e-3, 0.1, 0, 110};
    cr_assert_eq(qz_schedule_warmup(&s), 11);
    near(qz_schedule_rate(&s, 11), 1e-3);
    near(qz_schedule_rate(&s, 44), 1e-3 * 2 / 3);
    near(qz_schedule_rate(&s, 110), 0);
}

Test(train_schedule, constant_stays_at_the_peak)
{
    const qz_schedule s = {QZ_TRAIN_CONSTANT, 1e-3, 0.5, 0.1, 10};
    near(qz_schedule_rate(&s, 4), 8e-4);
    for (int64_t step = 5; step <= 10; step++) near(qz_schedule_rate(&s, step), 1e-3);
}

Test(train_schedule, the_ends_of_the_warm_up)
{
    /* none, a run of one step, a run that is all warm-up: no division by zero, no step without effect */
    const qz_schedule none = {QZ_TRAIN_COSINE, 1, 0, 0.1, 5}, one = {QZ_TRAIN_LINEAR, 1, 0.05, 0, 1},
                      all = {QZ_TRAIN_COSINE, 1, 1, 0, 4};
    cr_assert_eq(qz_schedule_rate(&none, 1), 1);
    near(qz_schedule_rate(&none, 5), 0.1);
    cr_assert_eq(qz_schedule_rate(&one, 1), 1);
    near(qz_schedule_rate(&all, 3), 0.75);
    cr_assert_eq(qz_schedule_rate(&all, 4), 1);
}

Test(train_schedule, a_recipe_says_it)
{
    const qz_recipe_train train = {
        .schedule = QZ_TRAIN_LINEAR, .learning_rate = 2e-3, .warmup = 0.2, .final_rate = 0.5, .steps = 10};
    const qz_schedule s = qz_schedule_of(&train);
    near(qz_schedule_rate(&s, 1), 1e-3);
    near(qz_schedule_rate(&s, 6), 1.5e-3);
    near(qz_schedule_rate(&s, 10), 1e-3);
}
