/* A small model in training: golden/models/llama, a plan that rounds all linears of its layers, batches of ids. */
#ifndef QZ_TESTING_TRAIN_CASE_H
#define QZ_TESTING_TRAIN_CASE_H

#include "base/rng.h"
#include "testing/testing.h"
#include "train/optimizer.h"
#include "train/step.h"

enum { TRAIN_SEQUENCES = 2, TRAIN_LENGTH = 16, TRAIN_TOKENS = TRAIN_SEQUENCES * TRAIN_LENGTH };

typedef struct train_case {
    qz_arena *arena;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_export_plan plan;
    qz_student *student;
    qz_stepper *stepper;
    qz_optimizer *optimizer;
    int32_t ids[TRAIN_TOKENS], labels[TRAIN_TOKENS];
    qz_step_loss loss;
} train_case;

static inline qz_export_plan train_plan(const qz_model *m, const qz_scheme *scheme, const qz_act_scheme *activation,
                                        const qz_kv_scheme *kv, qz_arena *arena)
{
    const int layers = (int)qz_model_config_of(m)->layers;
    qz_export_linear *list = qz_arena_calloc(arena, 64 * sizeof *list);
    qz_export_plan plan = {.linear = list, .kv_heads = qz_model_config_of(m)->kv_heads, .layers = layers};
    if (kv) plan.kv = *kv;
    for (int i = 0; i < layers; i++) {
        for (int j = 0; j < qz_model_linears(m, i); j++) {
            const qz_linear_place *p = qz_model_linear(m, i, j);
            list[plan.linears++] = (qz_export_linear){.module = qz_model_linear_name(m, i, j),
                                                      .n = p->n,
                                                      .k = p->k,
                                                      .quantized = true,
                                                      .layer = i,
                                                      .fused = -1,
                                                      .scheme = *scheme,
                                                      .activation = activation ? *activation : (qz_act_scheme){0}};
        }
    }
    return plan;
}

static inline train_case train_case_new(const qz_scheme *scheme, const qz_act_scheme *activation,
                                        const qz_kv_scheme *kv)
{
    train_case c = {0};
    check_ok(qz_arena_new(&c.arena, "test"));
    check_ok(qz_ckpt_open(&c.ckpt, golden_path("models/llama")));
    check_ok(qz_model_open(&c.model, c.ckpt, qz_backend_best(), NULL));
    c.plan = train_plan(c.model, scheme, activation, kv, c.arena);
    return c;
}

/* The rule's plan is the case's. */
static inline void train_case_start(train_case *c, qz_student_rule rule, int64_t micro_batch)
{
    qz_optimizer_options options = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip_norm = 1};
    const qz_step_rule step = {.micro_batch = micro_batch, .cross_entropy = 1, .temperature = 1};
    for (int g = 0; g < QZ_PARAMETER_GROUPS; g++) options.group[g].rate_factor = 1;
    rule.plan = &c->plan;
    check_ok(qz_student_new(&c->student, c->model, &rule));
    check_ok(qz_stepper_new(&c->stepper, c->student, NULL, &step, false));
    check_ok(qz_optimizer_new(&c->optimizer, qz_backend_best(), qz_student_parameters(c->student), &options, c->arena));
}

static inline void train_case_stop(train_case *c)
{
    qz_stepper_free(c->stepper);
    qz_student_free(c->student);
    c->stepper = NULL;
    c->student = NULL;
}

static inline void train_case_free(train_case *c)
{
    train_case_stop(c);
    qz_model_close(c->model);
    qz_ckpt_close(c->ckpt);
    qz_arena_free(c->arena);
}

/* Batch `number`: runs of ids that a model can learn, since each follows from the one before. */
static inline void train_case_batch(train_case *c, int number)
{
    qz_rng rng;
    qz_rng_seed(&rng, 5, (uint64_t)number);
    for (int i = 0; i < TRAIN_TOKENS; i++)
        c->ids[i] = i % TRAIN_LENGTH ? (c->ids[i - 1] * 3 + 7) % 160 : (int32_t)(qz_rng_double(&rng) * 160);
    for (int i = 0; i < TRAIN_TOKENS; i++) c->labels[i] = (i + 1) % TRAIN_LENGTH ? c->ids[i + 1] : -100;
}

static inline qz_step_batch train_case_view(const train_case *c)
{
    return (qz_step_batch){c->ids, c->labels, NULL, TRAIN_SEQUENCES, TRAIN_LENGTH};
}

/* Losses and gradients of one batch. */
static inline void train_case_learn(train_case *c, int number)
{
    const qz_step_batch batch = train_case_view(c);
    train_case_batch(c, number);
    qz_parameters_zero_gradients(qz_student_parameters(c->student));
    check_ok(qz_stepper_run(c->stepper, &batch, (uint64_t)number, &c->loss));
}

/* A whole step. */
static inline void train_case_step(train_case *c, int number, double rate)
{
    double norm;
    train_case_learn(c, number);
    check_ok(qz_optimizer_norm(c->optimizer, number + 1, &norm));
    check_ok(qz_optimizer_step(c->optimizer, number + 1, rate, norm));
}

static inline double train_case_judge(train_case *c, int number)
{
    const qz_step_batch batch = train_case_view(c);
    qz_step_loss loss;
    train_case_batch(c, number);
    check_ok(qz_stepper_judge(c->stepper, &batch, &loss, NULL));
    return loss.cross_entropy;
}

#endif
