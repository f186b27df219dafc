/* What training will take, before it is taken: a step is walked through on dry tapes, so the bytes are those of the
 * step itself. */
#include <math.h>

#include "base/memory.h"
#include "train/train_rules.h"

typedef struct walk {
    qz_student *student;
    qz_guide *guide;
    qz_stepper *stepper;
} walk;

static void walk_free(walk *w)
{
    qz_stepper_free(w->stepper);
    qz_guide_free(w->guide);
    qz_student_free(w->student);
}

static qz_status walk_step(walk *w, const qz_train_args *args, const qz_train_rules *rules)
{
    const qz_recipe_train *how = &args->recipe->train;
    const qz_step_batch batch = {.sequences = how->batch, .length = how->sequence_length};
    const qz_step_batch judged = {.sequences = how->micro_batch, .length = how->validation.sequence_length};
    qz_step_loss loss;
    QZ_TRY(qz_student_new(&w->student, args->model, &rules->student));
    if (args->teacher) QZ_TRY(qz_guide_new(&w->guide, args->teacher, true));
    QZ_TRY(qz_stepper_new(&w->stepper, w->student, w->guide, &rules->step, true));
    if (how->validation.wanted) QZ_TRY(qz_stepper_judge(w->stepper, &judged, &loss, NULL)); /* first, as in the run */
    return qz_stepper_run(w->stepper, &batch, 0, &loss);
}

static void add_row(qz_train_plan *out, const char *tier, uint64_t bytes)
{
    if (!bytes) return;
    out->memory[out->rows++] = (qz_train_plan_row){tier, bytes};
    out->memory_bytes += bytes;
}

static void add_rows(qz_train_plan *out, const walk *w, const qz_train_args *args)
{
    const qz_recipe_train *how = &args->recipe->train;
    const qz_parameters *p = qz_student_parameters(w->student);
    const uint64_t trained = (uint64_t)qz_parameters_numbers(p) * sizeof(float);
    const uint64_t kept = trained + qz_student_tensor_bytes(w->student);
    add_row(out, "parameters and gradients", 2 * trained);
    add_row(out, "frozen weights, rounded weights", qz_student_bytes(w->student) - 2 * trained);
    add_row(out, "moments", qz_optimizer_bytes(p, how->moments_8bit));
    add_row(out, "values and gradients of a micro-batch", qz_stepper_bytes(w->stepper));
    add_row(out, "teacher", w->guide ? qz_guide_bytes(w->guide) : 0);
    add_row(out, "best parameters so far", how->keep_best ? kept : 0);
    out->parameters = qz_parameters_numbers(p);
    out->state_bytes = kept + qz_optimizer_bytes(p, how->moments_8bit) + (how->keep_best ? kept : 0);
}

/* How often what is due every so many steps, and after the last, is done. */
static int64_t times_due(const qz_recipe_train *how, int64_t every)
{
    return 1 + (every > 0 ? (how->steps - 1) / every : 0);
}

/* A state is there before the oldest is removed, and an interruption writes one more. */
static int64_t count_states(const qz_recipe_train *how)
{
    const int64_t saved = times_due(how, how->save_every);
    return (saved < how->keep ? saved : how->keep) + 1;
}

/* Numbers of all matrices that a token is multiplied by. */
static double matrix_numbers(const qz_model *m)
{
    const qz_model_config *c = qz_model_config_of(m);
    double numbers = (double)c->vocabulary * (double)c->hidden;
    for (int i = 0; i < c->layers; i++) {
        for (int j = 0; j < qz_model_linears(m, i); j++) {
            const qz_linear_place *p = qz_model_linear(m, i, j);
            numbers += (double)p->n * (double)p->k;
        }
    }
    return numbers;
}

/* Operations of a forward pass for one token: two for each number, and the products of causal attention. */
static double forward_flops(const qz_model *m, int64_t length)
{
    const qz_model_config *c = qz_model_config_of(m);
    return 2 * matrix_numbers(m) + 2 * (double)c->layers * (double)(c->heads * c->head_dim) * (double)length;
}

/* The gradient of a weight costs as much as the forward pass, that of its input as much again. */
static bool has_weight_gradients(const qz_recipe_train *how)
{
    return how->parameters != QZ_TRAIN_ADAPTER || how->adapter.merge_aware;
}

/* Operations of a step for one token. */
static double step_flops(const qz_train_args *args, int64_t trained)
{
    const qz_recipe_train *how = &args->recipe->train;
    const double forward = forward_flops(args->model, how->sequence_length);
    double flops = forward * (has_weight_gradients(how) ? 3 : 2) + (how->recompute ? forward : 0);
    if (how->parameters == QZ_TRAIN_ADAPTER) flops += 6 * (double)trained; /* two and their gradients */
    if (args->teacher) flops += forward_flops(args->teacher, how->sequence_length);
    return flops;
}

/* Operations of the evaluations on train.validation: at the start, every so many steps and at the end. How long a whole
 * text is (windows 0) is not known yet, and it counts as nothing. */
static double judging_flops(const qz_train_args *args)
{
    const qz_recipe_train *how = &args->recipe->train;
    if (!how->validation.wanted) return 0;
    const int64_t times = 1 + times_due(how, how->evaluate_every);
    const int64_t tokens = times * how->validation.windows * how->validation.sequence_length;
    return forward_flops(args->model, how->validation.sequence_length) * (double)tokens;
}

/* The rest of a step are attention, losses, rounding and AdamW: of the demo model, 54 to 68 % of the time are the
 * operations above at the rate of sgemm (docs/training.md). */
static const double share_of_products = 0.6;

static qz_status check_memory(const qz_train_plan *p)
{
    if (!p->memory_available || p->memory_bytes <= p->memory_available) return QZ_OK;
    return QZ_FAIL(QZ_MEMORY,
                   "training needs %.1f GB of memory, this machine has %.1f GB free: a smaller "
                   "train.micro_batch, train.recompute true, or train.moments \"int8\" need less",
                   (double)p->memory_bytes * 1e-9, (double)p->memory_available * 1e-9);
}

qz_status qz_train_plan_make(qz_train_plan *out, const qz_train_args *args, double gflops)
{
    const qz_recipe_train *how = &args->recipe->train;
    qz_train_rules rules;
    walk w = {0};
    *out = (qz_train_plan){0};
    QZ_TRY(qz_train_rules_make(&rules, args, true));
    qz_status status = walk_step(&w, args, &rules);
    if (status == QZ_OK) add_rows(out, &w, args);
    walk_free(&w);
    QZ_TRY(status);
    out->tokens = how->steps * how->batch * how->sequence_length;
    out->states = count_states(how);
    out->flops = step_flops(args, out->parameters) * (double)out->tokens + judging_flops(args);
    out->seconds = gflops > 0 ? out->flops / (share_of_products * gflops * 1e9) : 0;
    out->memory_available = qz_memory_available();
    return check_memory(out);
}
