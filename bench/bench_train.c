/* Training steps on random tokens: bench_train MODEL [full|qat|lora|qlora [batch [tokens [steps [fp32|bf16]]]]], as
 * torch_train.py measures them: what is timed is forward, backward, clipping and AdamW. Prints one JSON line.
 *
 *     full   every weight    qat    the same, linears rounded to int4 groups of 32 and their inputs to int8 per token
 *     lora   rank 16 beside every linear of a frozen model    qlora    the same on NF4 with double quantization */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/parallel.h"
#include "base/rng.h"
#include "train/optimizer.h"
#include "train/step.h"

enum { MOST_STEPS = 256, WARM = 2, RANK = 16 };

typedef struct bench {
    const char *mode;
    int64_t batch, tokens, steps;
    bool bf16;
    qz_arena *arena;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_student *student;
    qz_stepper *stepper;
    qz_optimizer *optimizer;
    int32_t *ids, *labels;
    double seconds[MOST_STEPS];
} bench;

static bool is(const bench *b, const char *mode)
{
    return strcmp(b->mode, mode) == 0;
}

static bool every(void *context, const char *module)
{
    (void)context;
    (void)module;
    return true;
}

static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32, .double_quant = true};

static qz_export_linear planned_linear(const bench *b, int layer, int i)
{
    const qz_linear_place *p = qz_model_linear(b->model, layer, i);
    return (qz_export_linear){.module = qz_model_linear_name(b->model, layer, i),
                              .n = p->n,
                              .k = p->k,
                              .quantized = true,
                              .layer = layer,
                              .scheme = {.format = QZ_FORMAT_INT4,
                                         .piece_rows = 1,
                                         .piece_cols = 32,
                                         .symmetric = true,
                                         .scale_type = QZ_F32},
                              .activation = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .divisor = 127.5f}};
}

static qz_status plan_of(const bench *b, qz_export_plan *plan)
{
    const int layers = (int)qz_model_config_of(b->model)->layers;
    size_t room = 0;
    for (int i = 0; i < layers; i++) room += (size_t)qz_model_linears(b->model, i);
    qz_export_linear *list = qz_arena_calloc(b->arena, room * sizeof *list);
    if (!list) return qz_arena_failed(b->arena);
    *plan = (qz_export_plan){.linear = list};
    for (int i = 0; i < layers; i++)
        for (int j = 0; j < qz_model_linears(b->model, i); j++) list[plan->linears++] = planned_linear(b, i, j);
    return QZ_OK;
}

static qz_status make_student(bench *b)
{
    const qz_student_adapters adapters = {
        .rank = RANK, .factor = 2, .wanted = every, .base = is(b, "qlora") ? &nf4 : NULL};
    const bool frozen = is(b, "lora") || is(b, "qlora");
    qz_export_plan plan;
    qz_student_rule rule = {.train_weights = !frozen, .adapters = frozen ? &adapters : NULL};
    QZ_TRY(plan_of(b, &plan));
    if (is(b, "qat")) {
        rule.plan = &plan;
        rule.rounding = (qz_student_rounding){.fit = true, .rule = QZ_STE_PASS};
    }
    return qz_student_new(&b->student, b->model, &rule);
}

static qz_status make_ids(bench *b)
{
    const int64_t count = b->batch * b->tokens;
    qz_rng rng;
    b->ids = qz_arena_array(b->arena, int32_t, (size_t)count);
    b->labels = qz_arena_array(b->arena, int32_t, (size_t)count);
    if (!b->ids || !b->labels) return qz_arena_failed(b->arena);
    qz_rng_seed(&rng, 0, 0);
    for (int64_t i = 0; i < count; i++) {
        b->ids[i] = (int32_t)qz_rng_below(&rng, (uint64_t)qz_model_config_of(b->model)->vocabulary);
        b->labels[i] = (int32_t)qz_rng_below(&rng, (uint64_t)qz_model_config_of(b->model)->vocabulary);
    }
    return QZ_OK;
}

static qz_status prepare(bench *b, const char *folder)
{
    const qz_step_rule rule = {.micro_batch = b->batch, .cross_entropy = 1, .temperature = 1, .bf16 = b->bf16};
    qz_optimizer_options options = {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .clip_norm = 1};
    for (int g = 0; g < QZ_PARAMETER_GROUPS; g++) options.group[g].rate_factor = 1;
    options.group[QZ_PARAMETER_MATRIX].decay = 0.1;
    QZ_TRY(qz_arena_new(&b->arena, "bench"));
    QZ_TRY(qz_ckpt_open(&b->ckpt, folder));
    QZ_TRY(qz_model_open(&b->model, b->ckpt, qz_backend_best(), NULL));
    QZ_TRY(make_student(b));
    QZ_TRY(qz_stepper_new(&b->stepper, b->student, NULL, &rule, false));
    QZ_TRY(qz_optimizer_new(&b->optimizer, qz_backend_best(), qz_student_parameters(b->student), &options, b->arena));
    return make_ids(b);
}

static qz_status step(bench *b, int64_t number)
{
    const qz_step_batch batch = {b->ids, b->labels, NULL, b->batch, b->tokens};
    qz_step_loss loss;
    double norm;
    qz_parameters_zero_gradients(qz_student_parameters(b->student));
    QZ_TRY(qz_stepper_run(b->stepper, &batch, (uint64_t)number, &loss));
    QZ_TRY(qz_optimizer_norm(b->optimizer, number + 1, &norm));
    return qz_optimizer_step(b->optimizer, number + 1, 1e-4, norm);
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static qz_status run(bench *b, const char *folder)
{
    QZ_TRY(prepare(b, folder));
    for (int64_t i = 0; i < WARM + b->steps; i++) {
        const double began = qz_seconds();
        QZ_TRY(step(b, i));
        if (i >= WARM) b->seconds[i - WARM] = qz_seconds() - began;
    }
    qsort(b->seconds, (size_t)b->steps, sizeof *b->seconds, ascending);
    return QZ_OK;
}

static void print(const bench *b)
{
    struct rusage usage;
    const double tokens = (double)(b->batch * b->tokens);
    getrusage(RUSAGE_SELF, &usage);
    printf(
        "{\"mode\": \"%s\", \"precision\": \"%s\", \"batch\": %lld, \"tokens\": %lld, \"tokens_per_s_median\": %.1f, "
        "\"tokens_per_s_best\": %.1f, \"peak_rss_mb\": %ld, \"buffers_mb\": %.1f, \"student_mb\": %.1f}\n",
        b->mode, b->bf16 ? "bf16" : "fp32", (long long)b->batch, (long long)b->tokens,
        tokens / b->seconds[b->steps / 2], tokens / b->seconds[0], usage.ru_maxrss / 1024,
        (double)qz_stepper_bytes(b->stepper) / 1e6, (double)qz_student_bytes(b->student) / 1e6);
}

int main(int argc, char **argv)
{
    bench b = {.mode = argc > 2 ? argv[2] : "full",
               .batch = argc > 3 ? atoll(argv[3]) : 8,
               .tokens = argc > 4 ? atoll(argv[4]) : 512,
               .steps = argc > 5 ? atoll(argv[5]) : 8,
               .bf16 = argc > 6 && strcmp(argv[6], "bf16") == 0};
    if (argc < 2 || b.steps < 1 || b.steps > MOST_STEPS) {
        fprintf(stderr, "bench_train MODEL [full|qat|lora|qlora [batch [tokens [steps [fp32|bf16]]]]]\n");
        return 2;
    }
    qz_status status = run(&b, argv[1]);
    if (status == QZ_OK)
        print(&b);
    else
        fprintf(stderr, "bench_train: %s\n", qz_error_message());
    qz_stepper_free(b.stepper);
    qz_student_free(b.student);
    qz_model_close(b.model);
    qz_ckpt_close(b.ckpt);
    qz_arena_free(b.arena);
    return status == QZ_OK ? 0 : 1;
}
