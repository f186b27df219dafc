/* Gradients of whole models: the loss of a step and, for a few numbers of every parameter, its derivative, against a
 * decoder written down in double (testing/plain_decoder.h) and its central differences. One model of each family; so
 * soft caps, norms behind the stages, a tied and scaled table, biases, norms of heads, fused matrices, windows and
 * rotations of two lengths all are on the way. */
#include <stdio.h>

#include "base/rng.h"
#include "testing/plain_decoder.h"
#include "testing/tolerances.h"
#include "train/step.h"

enum { SEQUENCES = 2, LENGTH = 13, TOKENS = SEQUENCES * LENGTH, PICKS = 3 };

typedef struct fixture {
    const char *folder;
    qz_arena *arena, *scratch;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_student *student;
    int32_t ids[TOKENS], labels[TOKENS], first[TOKENS];
    plain_decoder plain;
} fixture;

static void fill_batch(fixture *f)
{
    qz_rng rng;
    qz_rng_seed(&rng, 3, 0);
    for (int i = 0; i < TOKENS; i++) {
        f->ids[i] = (int32_t)qz_rng_below(&rng, 160);
        f->labels[i] = i % 5 == 3 ? -100 : (int32_t)qz_rng_below(&rng, 160);
        f->first[i] = i % LENGTH < 4 ? 0 : 4; /* phi3_long: one short document, one long */
    }
}

static double run_step(const fixture *f, int64_t micro_batch, bool documents)
{
    const qz_step_rule rule = {.micro_batch = micro_batch, .cross_entropy = 1, .temperature = 1};
    const qz_step_batch batch = {f->ids, f->labels, documents ? f->first : NULL, SEQUENCES, LENGTH};
    qz_stepper *stepper;
    qz_step_loss loss;
    qz_parameters_zero_gradients(qz_student_parameters(f->student));
    check_ok(qz_stepper_new(&stepper, f->student, NULL, &rule, false));
    check_ok(qz_stepper_run(stepper, &batch, 0, &loss));
    qz_stepper_free(stepper);
    return loss.loss;
}

static void start_plain(fixture *f, bool documents)
{
    const qz_parameters *p = qz_student_parameters(f->student);
    f->plain = (plain_decoder){.m = f->model,
                               .c = qz_model_config_of(f->model),
                               .p = p,
                               .sequences = SEQUENCES,
                               .length = LENGTH,
                               .ids = f->ids,
                               .labels = f->labels,
                               .first = documents ? f->first : NULL,
                               .arena = f->scratch};
    f->plain.value = qz_arena_calloc(f->arena, (size_t)p->count * sizeof(double *));
    for (int i = 0; i < p->count; i++) {
        const int64_t count = qz_tensor_count(&p->list[i].value);
        f->plain.value[i] = qz_arena_array(f->arena, double, (size_t)count);
        for (int64_t j = 0; j < count; j++) f->plain.value[i][j] = qz_f32(&p->list[i].value)[j];
    }
    check_ok(qz_model_rotation(&f->plain.rotation, f->model, (qz_batch){SEQUENCES, LENGTH}, f->plain.first, f->arena));
}

static double difference(fixture *f, int parameter, int64_t at)
{
    const double h = 1e-5;
    double *x = &f->plain.value[parameter][at], middle = *x;
    *x = middle + h;
    const double above = plain_loss(&f->plain);
    *x = middle - h;
    const double below = plain_loss(&f->plain);
    *x = middle;
    return (above - below) / (2 * h);
}

static int64_t largest(const float *g, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++) best = fabsf(g[i]) > fabsf(g[best]) ? i : best;
    return best;
}

/* The largest gradient, and some others; of a table mostly rows that were looked up. */
static void check_parameter(fixture *f, int i, qz_rng *rng)
{
    const qz_parameter *p = &qz_student_parameters(f->student)->list[i];
    const int64_t count = qz_tensor_count(&p->value);
    const float *g = qz_f32(&p->grad);
    int64_t at = largest(g, count);
    const double most = fabs((double)g[at]);
    cr_assert(most > 0, "%s: %s has no gradient", f->folder, p->name);
    for (int pick = 0; pick < PICKS; pick++) {
        const double d = difference(f, i, at);
        cr_assert(fabs((double)g[at] - d) <= TOL_MODEL_GRADIENT * most, "%s: %s, number %lld: %.9g, should be %.9g",
                  f->folder, p->name, (long long)at, (double)g[at], d);
        for (int again = 0; again < 20; again++) {
            at = (int64_t)qz_rng_below(rng, (uint64_t)count);
            if (g[at] != 0) break;
        }
    }
}

static void check_gradients(fixture *f, bool documents)
{
    qz_rng rng;
    const double loss = run_step(f, SEQUENCES, documents);
    qz_rng_seed(&rng, 4, 0);
    start_plain(f, documents);
    const double should = plain_loss(&f->plain);
    cr_assert(fabs(loss - should) <= TOL_TRAIN_LOSS * should, "%s: loss %.9g, should be %.9g", f->folder, loss, should);
    for (int i = 0; i < qz_student_parameters(f->student)->count; i++) check_parameter(f, i, &rng);
}

static void open_student(fixture *f, bool recompute)
{
    qz_student_free(f->student);
    check_ok(qz_student_new(&f->student, f->model, &(qz_student_rule){.train_weights = true, .recompute = recompute}));
}

static float *all_gradients(const fixture *f)
{
    const qz_parameters *p = qz_student_parameters(f->student);
    float *out = qz_arena_array(f->arena, float, (size_t)qz_parameters_numbers(p)), *to = out;
    for (int i = 0; i < p->count; i++) {
        const int64_t count = qz_tensor_count(&p->list[i].grad);
        memcpy(to, p->list[i].grad.data, (size_t)count * sizeof(float));
        to += count;
    }
    return out;
}

/* Layers computed again give the bits that they gave. */
static void check_recomputation(fixture *f)
{
    run_step(f, 1, false);
    const float *kept = all_gradients(f);
    const size_t bytes = (size_t)qz_parameters_numbers(qz_student_parameters(f->student)) * sizeof(float);
    open_student(f, true);
    run_step(f, 1, false);
    cr_assert(memcmp(kept, all_gradients(f), bytes) == 0, "%s: recomputed", f->folder);
}

static void check_model(const char *folder)
{
    fixture f = {.folder = folder};
    check_ok(qz_arena_new(&f.arena, "test"));
    check_ok(qz_arena_new(&f.scratch, "plain"));
    check_ok(qz_ckpt_open(&f.ckpt, golden_path(folder)));
    check_ok(qz_model_open(&f.model, f.ckpt, qz_backend_best(), NULL));
    fill_batch(&f);
    open_student(&f, false);
    check_gradients(&f, false);
    check_gradients(&f, true);
    check_recomputation(&f);
    qz_student_free(f.student);
    qz_model_close(f.model);
    qz_ckpt_close(f.ckpt);
    qz_arena_free(f.scratch);
    qz_arena_free(f.arena);
}

#define MODEL_TEST(name)                                                                                               \
    Test(models, name)                                                                                                 \
    {                                                                                                                  \
        check_model("models/" #name);                                                                                  \
    }

MODEL_TEST(gemma2)
MODEL_TEST(llama_tied_rope3)
MODEL_TEST(mistral)
MODEL_TEST(phi3)
MODEL_TEST(phi3_long)
MODEL_TEST(qwen2)
MODEL_TEST(qwen3)
