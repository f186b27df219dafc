/* AdamW over a list of parameters against a restatement in double, clipping, groups, 8-bit moments, and that its state
 * is all that a run needs to go on. */
#include "train/optimizer.h"

#include <math.h>

#include "base/file.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { PARAMETERS = 5, STEPS = 10, MOST = 70 * 100 };

static const int64_t shapes[PARAMETERS][2] = {{70, 100}, {1, 33}, {5, 7}, {5, 6}, {3, 8}};
static const qz_parameter_group groups[PARAMETERS] = {QZ_PARAMETER_MATRIX, QZ_PARAMETER_NORM, QZ_PARAMETER_SCALE,
                                                      QZ_PARAMETER_OFFSET, QZ_PARAMETER_ADAPTER};
static const char *const names[PARAMETERS] = {"embed.weight", "norm.weight", "q.scale", "q.offset", "q.lora_A.weight"};

static const qz_optimizer_options options = {.beta1 = 0.9,
                                             .beta2 = 0.95,
                                             .epsilon = 1e-8,
                                             .clip_norm = 1,
                                             .group = {[QZ_PARAMETER_MATRIX] = {0.1, 1},
                                                       [QZ_PARAMETER_NORM] = {0, 1},
                                                       [QZ_PARAMETER_SCALE] = {0, 0.25},
                                                       [QZ_PARAMETER_OFFSET] = {0, 3},
                                                       [QZ_PARAMETER_ADAPTER] = {0.01, 2}}};

typedef struct problem {
    qz_arena *arena;
    qz_parameters parameters;
    qz_optimizer *optimizer;
} problem;

/* The values that the problem starts from and those that it is drawn to. */
static double start_of(int i, int64_t k)
{
    return sin(1 + i + 0.7 * (double)k);
}

static double goal_of(int i, int64_t k)
{
    return cos(2 * i + 0.3 * (double)k);
}

/* The gradient of the parabola with another curvature for each number; steps differ, as batches do. */
static double gradient_of(int i, int64_t k, double p, int64_t step)
{
    const double curvature = 0.01 * (1 + (double)(k % 13)), noise = 0.02 * sin((double)(step * 31 + k));
    return (float)(curvature * (p - goal_of(i, k)) + noise);
}

static problem problem_new(const qz_optimizer_options *o)
{
    problem p;
    check_ok(qz_arena_new(&p.arena, "problem"));
    check_ok(qz_parameters_new(&p.parameters, PARAMETERS, false, p.arena));
    for (int i = 0; i < PARAMETERS; i++) {
        const qz_tensor like =
            i == 1 ? qz_tensor_1d(NULL, QZ_F32, shapes[i][1]) : qz_tensor_2d(NULL, QZ_F32, shapes[i][0], shapes[i][1]);
        check_ok(qz_parameters_add(&p.parameters, names[i], groups[i], &like, p.arena));
        float *value = qz_f32(&p.parameters.list[i].value);
        for (int64_t k = 0; k < qz_tensor_count(&like); k++) value[k] = (float)start_of(i, k);
    }
    check_ok(qz_optimizer_new(&p.optimizer, qz_backend_best(), &p.parameters, o, p.arena));
    return p;
}

static double rate_of(int64_t step)
{
    return 0.01 / (double)step;
}

/* One step; the norm before it. */
static double advance(problem *p, int64_t step)
{
    double norm;
    for (int i = 0; i < PARAMETERS; i++) {
        const qz_parameter *q = &p->parameters.list[i];
        for (int64_t k = 0; k < qz_tensor_count(&q->value); k++)
            qz_f32(&q->grad)[k] = (float)gradient_of(i, k, qz_f32(&q->value)[k], step);
    }
    check_ok(qz_optimizer_norm(p->optimizer, step, &norm));
    check_ok(qz_optimizer_step(p->optimizer, step, rate_of(step), norm));
    return norm;
}

static void check_same(const problem *a, const problem *b)
{
    for (int i = 0; i < PARAMETERS; i++) {
        const qz_tensor *x = &a->parameters.list[i].value, *y = &b->parameters.list[i].value;
        cr_assert_eq(memcmp(x->data, y->data, (size_t)qz_tensor_count(x) * sizeof(float)), 0, "%s", names[i]);
    }
}

/* ---- the restatement ---- */

typedef struct numbers {
    double p[PARAMETERS][MOST], g[PARAMETERS][MOST], m[PARAMETERS][MOST], v[PARAMETERS][MOST];
} numbers;

static int64_t count_of(int i)
{
    return shapes[i][0] * shapes[i][1];
}

/* Loshchilov and Hutter 2019, algorithm 2, lines 6 to 12, with eta_t the rate and the decay multiplied by it. */
static void restate_number(numbers *n, int i, int64_t k, int64_t step, double factor)
{
    const double rate = rate_of(step) * options.group[i].rate_factor, t = (double)step;
    const double g = n->g[i][k] * factor, before = n->p[i][k];
    n->m[i][k] = options.beta1 * n->m[i][k] + (1 - options.beta1) * g;
    n->v[i][k] = options.beta2 * n->v[i][k] + (1 - options.beta2) * g * g;
    const double m = n->m[i][k] / (1 - pow(options.beta1, t)), v = n->v[i][k] / (1 - pow(options.beta2, t));
    n->p[i][k] = before - rate * (m / (sqrt(v) + options.epsilon) + options.group[i].decay * before);
}

/* The norm before the step. */
static double restate(numbers *n, int64_t step)
{
    double sum = 0;
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t k = 0; k < count_of(i); k++) {
            n->g[i][k] = gradient_of(i, k, n->p[i][k], step);
            sum += n->g[i][k] * n->g[i][k];
        }
    const double norm = sqrt(sum), factor = fmin(1, options.clip_norm / (norm + 1e-6));
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t k = 0; k < count_of(i); k++) restate_number(n, i, k, step, factor);
    return norm;
}

Test(train_optimizer, ten_steps_are_those_of_the_algorithm)
{
    static numbers n;
    problem p = problem_new(&options);
    int clipped = 0;
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t k = 0; k < count_of(i); k++) n.p[i][k] = (float)start_of(i, k);
    for (int64_t step = 1; step <= STEPS; step++) {
        const double norm = advance(&p, step), want = restate(&n, step);
        cr_assert_lt(fabs(norm - want), TOL_ADAMW_F32 * want, "step %lld: norm %.9g, expected %.9g", (long long)step,
                     norm, want);
        clipped += norm > options.clip_norm;
    }
    cr_assert_gt(clipped, 0);
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t k = 0; k < count_of(i); k++) {
            const double found = qz_f32(&p.parameters.list[i].value)[k];
            cr_assert_lt(fabs(found - n.p[i][k]), TOL_ADAMW_F32, "%s[%lld]: %.9g, expected %.9g", names[i],
                         (long long)k, found, n.p[i][k]);
        }
    qz_arena_free(p.arena);
}

Test(train_optimizer, a_group_without_decay_and_gradient_stays)
{
    problem p = problem_new(&options);
    qz_parameters_zero_gradients(&p.parameters);
    double norm;
    check_ok(qz_optimizer_norm(p.optimizer, 1, &norm));
    cr_assert_eq(norm, 0);
    check_ok(qz_optimizer_step(p.optimizer, 1, 0.5, norm));
    for (int i = 0; i < PARAMETERS; i++) {
        const float before = (float)start_of(i, 1), after = qz_f32(&p.parameters.list[i].value)[1];
        const double keep = 1 - 0.5 * options.group[i].rate_factor * options.group[i].decay;
        cr_assert_eq(after, before * (float)keep, "%s: %.9g from %.9g", names[i], after, before);
    }
    qz_arena_free(p.arena);
}

Test(train_optimizer, a_recipe_says_the_groups)
{
    const qz_recipe_train train = {.learning_rate = 1e-4,
                                   .scale_learning_rate = 3e-4,
                                   .offset_learning_rate = 7e-3,
                                   .weight_decay = 0.2,
                                   .beta1 = 0.8,
                                   .beta2 = 0.9,
                                   .epsilon = 1e-6,
                                   .clip_norm = 2,
                                   .moments_8bit = true};
    const qz_optimizer_options o = qz_optimizer_options_of(&train);
    cr_assert(o.beta1 == 0.8 && o.beta2 == 0.9 && o.epsilon == 1e-6 && o.clip_norm == 2 && o.moments_8bit);
    for (int i = 0; i < QZ_PARAMETER_GROUPS; i++) {
        const bool decayed = i == QZ_PARAMETER_MATRIX || i == QZ_PARAMETER_ADAPTER;
        cr_assert_eq(o.group[i].decay, decayed ? 0.2 : 0);
        const double factor = i == QZ_PARAMETER_SCALE ? 3 : i == QZ_PARAMETER_OFFSET ? 70 : 1;
        cr_assert_lt(fabs(o.group[i].rate_factor - factor), 1e-12);
    }
}

/* ---- the norm ---- */

Test(train_optimizer, clipping_is_torchs)
{
    problem p = problem_new(&options);
    qz_optimizer_options unclipped = options;
    unclipped.clip_norm = 0;
    problem q = problem_new(&unclipped);
    cr_assert_eq(qz_optimizer_clip(p.optimizer, 4), 1 / (4 + 1e-6));
    cr_assert_eq(qz_optimizer_clip(p.optimizer, 1), 1 / (1 + 1e-6));
    cr_assert_eq(qz_optimizer_clip(p.optimizer, 0.5), 1);
    cr_assert_eq(qz_optimizer_clip(p.optimizer, 0), 1);
    cr_assert_eq(qz_optimizer_clip(q.optimizer, 1e9), 1);
    qz_arena_free(p.arena);
    qz_arena_free(q.arena);
}

Test(train_optimizer, the_norm_is_that_of_all_parameters)
{
    problem p = problem_new(&options);
    double norm;
    qz_f32(&p.parameters.list[0].grad)[5] = 3e30f; /* whose square fp32 does not have */
    qz_f32(&p.parameters.list[3].grad)[23] = -4e30f;
    check_ok(qz_optimizer_norm(p.optimizer, 1, &norm));
    cr_assert_lt(fabs(norm - 5e30), 1e24);
    qz_arena_free(p.arena);
}

Test(train_optimizer, a_gradient_that_is_not_finite_is_named)
{
    problem p = problem_new(&options);
    double norm;
    qz_f32(&p.parameters.list[2].grad)[3] = INFINITY;
    check_fails(QZ_NUMERIC, "step 12: the gradient of q.scale is not finite (number 3 of 35)",
                qz_optimizer_norm(p.optimizer, 12, &norm));
    qz_f32(&p.parameters.list[1].grad)[7] = NAN; /* on the way back it comes later */
    check_fails(QZ_NUMERIC, "step 13: the gradient of q.scale is not finite",
                qz_optimizer_norm(p.optimizer, 13, &norm));
    qz_f32(&p.parameters.list[2].grad)[3] = 0;
    check_fails(QZ_NUMERIC, "step 13: the gradient of norm.weight is not finite (number 7 of 33)",
                qz_optimizer_norm(p.optimizer, 13, &norm));
    qz_arena_free(p.arena);
}

/* ---- 8 bits ---- */

static qz_optimizer_options in_8bit(void)
{
    qz_optimizer_options o = options;
    o.moments_8bit = true;
    return o;
}

Test(train_optimizer, moments_of_8_bits_lead_to_nearly_the_same_place)
{
    const qz_optimizer_options coded = in_8bit();
    problem p = problem_new(&options), q = problem_new(&coded);
    double way = 0, apart = 0;
    for (int64_t step = 1; step <= 50; step++) advance(&p, step), advance(&q, step);
    const float *x = qz_f32(&p.parameters.list[0].value), *y = qz_f32(&q.parameters.list[0].value);
    for (int64_t k = 0; k < count_of(0); k++) {
        way += pow(x[k] - start_of(0, k), 2);
        apart += pow(x[k] - (double)y[k], 2);
    }
    cr_assert_gt(apart, 0, "they are no moments of 8 bits");
    cr_assert_lt(sqrt(apart), TOL_ADAMW_8BIT * sqrt(way), "%.3g of a way of %.3g", sqrt(apart), sqrt(way));
    qz_arena_free(p.arena);
    qz_arena_free(q.arena);
}

/* A number with a gradient that is rare and 10,000 times smaller than its neighbours' makes steps of about the learning
 * rate, as all do: its second moment, too small for a code of its block, must not become 0 beneath a first one that has
 * a code. */
Test(train_optimizer, moments_of_8_bits_do_not_blow_up)
{
    const qz_optimizer_options coded = in_8bit();
    problem p = problem_new(&coded);
    const qz_parameter *q = &p.parameters.list[0];
    for (int64_t step = 1; step <= 20; step++) {
        double norm;
        for (int64_t k = 0; k < count_of(0); k++)
            qz_f32(&q->grad)[k] = k % 4 == 0 ? 0.01f * sinf((float)(step + k)) : step % 5 == 1 ? 1e-6f : 0;
        check_ok(qz_optimizer_norm(p.optimizer, step, &norm));
        check_ok(qz_optimizer_step(p.optimizer, step, 1e-3, norm));
    }
    for (int64_t k = 0; k < count_of(0); k++)
        cr_assert_lt(fabs(qz_f32(&q->value)[k] - start_of(0, k)), 0.03, "number %lld went from %g to %g", (long long)k,
                     start_of(0, k), qz_f32(&q->value)[k]);
    qz_arena_free(p.arena);
}

static const qz_state_tensor *tensor_of(const qz_optimizer *o, const char *name)
{
    int count;
    const qz_state_tensor *t = qz_optimizer_tensors(o, &count);
    for (int i = 0; i < count; i++)
        if (strcmp(t[i].name, name) == 0) return &t[i];
    return NULL;
}

Test(train_optimizer, only_large_parameters_have_moments_of_8_bits)
{
    const qz_optimizer_options coded = in_8bit();
    problem p = problem_new(&coded);
    const qz_state_tensor *first = tensor_of(p.optimizer, "moments/first/embed.weight"),
                          *absmax = tensor_of(p.optimizer, "moments/second_absmax/embed.weight"),
                          *norm = tensor_of(p.optimizer, "moments/second/norm.weight");
    cr_assert(first && absmax && norm);
    cr_assert_eq(first->view.dtype, QZ_U8);
    cr_assert_eq(qz_tensor_count(&first->view), 7000);
    cr_assert_eq(qz_tensor_count(&absmax->view), 28); /* blocks of 256 */
    cr_assert_eq(norm->view.dtype, QZ_F32);
    cr_assert_null(tensor_of(p.optimizer, "moments/second_absmax/norm.weight"));
    qz_arena_free(p.arena);
}

Test(train_optimizer, bytes_are_as_announced)
{
    problem p = problem_new(&options);
    cr_assert_eq(qz_optimizer_bytes(&p.parameters, false), 2 * 4 * (7000 + 33 + 35 + 30 + 24));
    cr_assert_eq(qz_optimizer_bytes(&p.parameters, true), 2 * (7000 + 28 * 4 + 4 * (33 + 35 + 30 + 24)));
    qz_arena_free(p.arena);
}

/* ---- the same bits ---- */

Test(train_optimizer, the_number_of_threads_does_not_matter)
{
    const int threads = qz_threads();
    const qz_optimizer_options kind[] = {options, in_8bit()};
    for (int i = 0; i < 2; i++) {
        problem p = problem_new(&kind[i]), q = problem_new(&kind[i]);
        for (int64_t step = 1; step <= 5; step++) {
            qz_threads_set(1);
            const double norm = advance(&p, step);
            qz_threads_set(8);
            cr_assert_eq(advance(&q, step), norm);
        }
        check_same(&p, &q);
        qz_arena_free(p.arena);
        qz_arena_free(q.arena);
    }
    qz_threads_set(threads);
}

static qz_state state_of(const problem *p)
{
    qz_state s = {0};
    s.tensor = qz_optimizer_tensors(p->optimizer, &s.tensors);
    return s;
}

Test(train_optimizer, goes_on_from_its_state)
{
    const char *folder = test_path("run");
    const qz_optimizer_options kind[] = {options, in_8bit()};
    int64_t step;
    check_ok(qz_folder_make(folder));
    for (int i = 0; i < 2; i++) {
        problem whole = problem_new(&kind[i]), first = problem_new(&kind[i]), second = problem_new(&kind[i]);
        const qz_state saved = state_of(&first), loaded = state_of(&second);
        for (int64_t s = 1; s <= STEPS; s++) advance(&whole, s);
        for (int64_t s = 1; s <= 4; s++) advance(&first, s);
        check_ok(qz_state_save(folder, &saved, 4, 1));
        check_ok(qz_state_load(&step, folder, &loaded));
        cr_assert_eq(step, 4);
        for (int64_t s = step + 1; s <= STEPS; s++) advance(&second, s);
        check_same(&whole, &second);
        qz_arena_free(whole.arena);
        qz_arena_free(first.arena);
        qz_arena_free(second.arena);
    }
}
