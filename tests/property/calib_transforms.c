/* A transform is a re-parametrisation: the layer computes the same function before and after it, for every row of the
 * table and every family, whether heads are grouped or not, and with biases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calib/calib.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { WINDOWS = 2, LENGTH = 24, MOST_LINEARS = 32 };

typedef struct setup {
    qz_ckpt *ckpt;
    qz_model *model;
    qz_arena *arena;
    qz_layer layer;
    float *residual, *output;
    qz_stats stats[MOST_LINEARS];
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

static qz_status look(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    setup *s = context;
    if (point != QZ_POINT_INPUT) return QZ_OK;
    return qz_stats_add(&s->stats[input], qz_model_backend(s->model), x);
}

/* The layer on the fixed residual; gathers statistics on the way when asked. */
static void forward(setup *s, float *out, bool gather)
{
    int64_t c = qz_model_config_of(s->model)->hidden, t = WINDOWS * LENGTH;
    const int inputs = qz_model_inputs(s->model, s->layer.index);
    qz_tensor residual = qz_tensor_2d(out, QZ_F32, t, c);
    memcpy(out, s->residual, (size_t)(t * c) * sizeof *out);
    for (int i = 0; i < inputs && gather; i++)
        check_ok(qz_stats_new(&s->stats[i], qz_model_input_width(s->model, s->layer.index, i),
                              (qz_stats_wants){.reservoir = 64, .histogram = true}, 1, (uint64_t)i, s->arena));
    s->layer.tap = gather ? (qz_tap){look, s} : (qz_tap){NULL, NULL};
    check_ok(qz_layer_forward(s->model, &s->layer, (qz_batch){WINDOWS, LENGTH}, &residual, s->arena));
    for (int i = 0; i < inputs && gather; i++) check_ok(qz_stats_finish(&s->stats[i]));
}

/* `all_on`: every switch of the transform is on, and inputs are static int8; else defaults, and inputs stay. */
static void apply_transform(setup *s, const qz_transform *transform, bool all_on, qz_report *report)
{
    qz_export_linear plan[MOST_LINEARS] = {0};
    qz_search_weight ranges[MOST_LINEARS];
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    qz_options options = qz_options_default(transform->plugin.options);
    cr_assert(s->layer.linears <= MOST_LINEARS);
    for (int i = 0; all_on && options.table && options.table[i].name; i++)
        if (options.table[i].type == QZ_OPT_BOOL) options.value[i] = 1;
    for (int i = 0; i < s->layer.linears; i++) {
        plan[i].scheme = (qz_scheme){.format = QZ_FORMAT_INT3, .piece_rows = 1, .piece_cols = 16, .scale_type = QZ_F16};
        plan[i].quantized = true;
        if (all_on) plan[i].activation = (qz_act_scheme){QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, true, 127.5f};
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
    for (size_t v = 0; v < 2 * qz_transforms()->count; v++) {
        const size_t i = v / 2;
        setup s = {0};
        qz_report *report;
        check_ok(qz_report_new(&report));
        open_model(&s, name);
        int64_t n = WINDOWS * LENGTH * qz_model_config_of(s.model)->hidden;
        float *after = qz_arena_array(s.arena, float, (size_t)n);
        forward(&s, s.output, true);
        float before = qz_f32(&s.layer.linear[QZ_ROLE_Q].weight)[0];
        apply_transform(&s, qz_transform_at(i), v % 2, report);
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

Test(transforms, keep_the_function_of_gemma2_whose_norms_add_one)
{
    check_family("gemma2");
}

Test(transforms, keep_the_function_of_phi3_with_fused_linears)
{
    check_family("phi3");
}

Test(transforms, keep_the_function_of_mixtral_with_experts)
{
    check_family("mixtral");
}

Test(transforms, keep_the_function_of_qwen3_moe_with_experts)
{
    check_family("qwen3_moe");
}
