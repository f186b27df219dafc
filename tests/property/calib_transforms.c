/* A transform is a re-parametrisation: the layer computes the same function before and after it, for every row of the
 * table and every family, whether heads are grouped or not, and with biases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calib/calib.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { WINDOWS = 2, LENGTH = 24 };

typedef struct setup {
    qz_ckpt *ckpt;
    qz_model *model;
    qz_arena *arena;
    qz_layer layer;
    float *residual, *output;
    qz_stats stats[QZ_STAGES];
} setup;

static void open_model(setup *s, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "models/%s", name);
    check_ok(qz_ckpt_open(&s->ckpt, golden_path(path)));
    check_ok(qz_model_open(&s->model, s->ckpt, qz_backend_best(), NULL));
    check_ok(qz_arena_new(&s->arena, "test"));
    check_ok(qz_model_layer(s->model, 1, &s->layer, s->arena));
    int64_t n = WINDOWS * LENGTH * qz_model_config_of(s->model)->hidden;
    s->residual = qz_arena_array(s->arena, float, (size_t)n);
    s->output = qz_arena_array(s->arena, float, (size_t)n);
    qz_rng rng;
    qz_rng_seed(&rng, 5, 0);
    for (int64_t i = 0; i < n; i++) s->residual[i] = (float)(qz_rng_normal(&rng) * (i % 7 == 0 ? 6 : 1));
}

static void close_model(setup *s)
{
    qz_arena_free(s->arena);
    qz_model_close(s->model);
    qz_ckpt_close(s->ckpt);
}

/* The layer on the fixed residual; gathers statistics on the way when asked. */
static void forward(setup *s, float *out, bool gather)
{
    int64_t c = qz_model_config_of(s->model)->hidden, t = WINDOWS * LENGTH;
    qz_batch batch = {WINDOWS, LENGTH};
    qz_tensor residual = qz_tensor_2d(out, QZ_F32, t, c), x[QZ_STAGES];
    memcpy(out, s->residual, (size_t)(t * c) * sizeof *out);
    for (int i = 0; i < QZ_STAGES; i++) {
        int64_t width = qz_model_input_width(s->model, 0, i);
        x[i] = qz_tensor_2d(qz_arena_array(s->arena, float, (size_t)(t * width)), QZ_F32, t, width);
        if (gather)
            check_ok(qz_stats_new(&s->stats[i], width, (qz_stats_wants){.reservoir = 64}, 1, (uint64_t)i, s->arena));
    }
    for (int i = 0; i < QZ_STAGES; i++) {
        if (i % 2 == 0) check_ok(qz_stage_input(s->model, &s->layer, (qz_stage)i, batch, &residual, NULL, &x[i]));
        if (gather) check_ok(qz_stats_add(&s->stats[i], qz_model_backend(s->model), &x[i]));
        check_ok(qz_stage_apply(s->model, &s->layer, (qz_stage)i, batch, &x[i], &residual, i < 3 ? &x[i + 1] : NULL,
                                s->arena));
    }
    for (int i = 0; i < QZ_STAGES && gather; i++) check_ok(qz_stats_finish(&s->stats[i]));
}

static void apply_transform(setup *s, const qz_transform *transform, qz_report *report)
{
    qz_export_linear plan[QZ_ROLES] = {0};
    qz_search_weight ranges[QZ_ROLES];
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    qz_options options = qz_options_default(transform->plugin.options);
    for (int i = 0; i < QZ_ROLES; i++) {
        plan[i].scheme = (qz_scheme){.format = QZ_FORMAT_INT3, .piece_rows = 1, .piece_cols = 16, .scale_type = QZ_F16};
        plan[i].quantized = true;
        ranges[i] = (qz_search_weight){.range = minmax, .range_options = qz_options_default(minmax->plugin.options)};
    }
    qz_transform_args args = {.model = s->model,
                              .layer = &s->layer,
                              .stats = s->stats,
                              .plan = plan,
                              .ranges = ranges,
                              .plain_type = QZ_BF16,
                              .options = &options,
                              .report = report,
                              .seed = 0};
    check_ok(transform->apply(&args, s->arena));
}

static double largest_difference(const float *a, const float *b, int64_t n)
{
    double most = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - b[i]));
        sum += (double)b[i] * b[i];
    }
    return most / sqrt(sum / (double)n);
}

static void check_family(const char *name)
{
    for (size_t i = 0; i < qz_transforms()->count; i++) {
        setup s = {0};
        qz_report *report;
        check_ok(qz_report_new(&report));
        open_model(&s, name);
        int64_t n = WINDOWS * LENGTH * qz_model_config_of(s.model)->hidden;
        float *after = qz_arena_array(s.arena, float, (size_t)n);
        forward(&s, s.output, true);
        float before = qz_f32(&s.layer.linear[QZ_ROLE_Q].weight)[0];
        apply_transform(&s, qz_transform_at(i), report);
        forward(&s, after, false);
        double difference = largest_difference(after, s.output, n);
        cr_assert(difference < TOL_FOLD, "%s on %s: output moved by %g", qz_transform_at(i)->plugin.name, name,
                  difference);
        cr_assert(before != qz_f32(&s.layer.linear[QZ_ROLE_Q].weight)[0] || qz_report_count(report) > 0,
                  "%s on %s did nothing", qz_transform_at(i)->plugin.name, name);
        qz_report_free(report);
        close_model(&s);
    }
}

Test(transforms, keep_the_function_of_llama)
{
    check_family("llama");
}

Test(transforms, keep_the_function_of_mistral)
{
    check_family("mistral");
}

Test(transforms, keep_the_function_of_qwen2_with_biases)
{
    check_family("qwen2");
}

Test(transforms, keep_the_function_of_qwen3_with_wide_heads)
{
    check_family("qwen3");
}
