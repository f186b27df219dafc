/* SmoothQuant on a layer of a golden model: what it reports, where it folds, when it keeps the identity and when it
 * asks for dynamic inputs. That the function stays is in tests/property/calib_transforms.c. */
#include <math.h>
#include <stdio.h>

#include "calib/calib.h"
#include "testing/testing.h"

enum { TOKENS = 300 };

typedef struct setup {
    qz_arena *arena;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_layer layer;
    qz_report *report;
    qz_stats stats[QZ_STAGES];
    qz_export_linear plan[QZ_ROLES];
    qz_options options;
} setup;

static const qz_transform *smoothquant(void)
{
    return qz_transform_at((size_t)qz_plugins_find(qz_transforms(), "smoothquant"));
}

/* Normal inputs; channel 5 of each is `channel` times larger; token 9 is `token` times larger in all channels. */
static setup setup_new(const char *model, float channel, float token, qz_act_mode mode)
{
    setup s = {.options = qz_options_default(smoothquant()->plugin.options)};
    char path[200];
    snprintf(path, sizeof path, "tests/golden/models/%s", model);
    check_ok(qz_arena_new(&s.arena, "test"));
    check_ok(qz_report_new(&s.report));
    check_ok(qz_ckpt_open(&s.ckpt, path));
    check_ok(qz_model_open(&s.model, s.ckpt, qz_backend_best(), NULL));
    check_ok(qz_model_layer(s.model, 1, &s.layer, s.arena));
    qz_rng rng;
    qz_rng_seed(&rng, 3, 3);
    for (int i = 0; i < QZ_STAGES; i++) {
        const int64_t k = qz_model_input_width(s.model, 1, i);
        float *x = qz_arena_array(s.arena, float, (size_t)(TOKENS * k));
        for (int64_t j = 0; j < TOKENS * k; j++)
            x[j] = (float)qz_rng_normal(&rng) * (j % k == 5 ? channel : 1) * (j / k == 9 ? token : 1);
        const qz_tensor view = qz_tensor_2d(x, QZ_F32, TOKENS, k);
        check_ok(qz_stats_new(&s.stats[i], k, (qz_stats_wants){.reservoir = TOKENS, .histogram = true}, 1, 1, s.arena));
        check_ok(qz_stats_add(&s.stats[i], qz_backend_best(), &view));
        check_ok(qz_stats_finish(&s.stats[i]));
    }
    for (int i = 0; i < QZ_ROLES; i++) {
        s.plan[i].quantized = true;
        s.plan[i].scheme =
            (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .scale_type = QZ_F32};
        s.plan[i].activation = (qz_act_scheme){mode, QZ_FORMAT_INT8, 0, true, 127.5f};
    }
    return s;
}

static void setup_free(setup *s)
{
    qz_model_close(s->model);
    qz_ckpt_close(s->ckpt);
    qz_report_free(s->report);
    qz_arena_free(s->arena);
}

static void set(setup *s, const char *option, double value)
{
    s->options.value[qz_options_index(s->options.table, option)] = value;
}

static qz_status apply(setup *s)
{
    qz_search_weight ranges[QZ_ROLES] = {0};
    const qz_transform_args args = {.model = s->model,
                                    .layer = &s->layer,
                                    .stats = s->stats,
                                    .plan = s->plan,
                                    .ranges = ranges,
                                    .plain_type = QZ_BF16,
                                    .options = &s->options,
                                    .report = s->report};
    return smoothquant()->apply(&args, s->arena);
}

static double reported(const setup *s, const char *where, const char *what)
{
    const qz_report_row *row = qz_report_find(s->report, "smoothquant", where, what);
    return row ? row->value : NAN;
}

Test(smoothquant, a_fixed_alpha_is_folded_behind_norms)
{
    setup s = setup_new("llama", 30, 1, QZ_ACT_TOKEN);
    set(&s, "alpha", 0.6);
    check_ok(apply(&s));
    cr_assert(reported(&s, "layer 1 qkv", "alpha") == 0.6 && reported(&s, "layer 1 gate_up", "alpha") == 0.6);
    cr_assert(isnan(reported(&s, "layer 1 o", "alpha")) && isnan(reported(&s, "layer 1 down", "alpha")));
    cr_assert(s.stats[0].rescaled && !s.stats[1].rescaled && s.stats[2].rescaled && !s.stats[3].rescaled);
    setup_free(&s);
}

Test(smoothquant, linears_are_folded_where_they_are_quantized)
{
    setup s = setup_new("llama", 30, 1, QZ_ACT_TOKEN);
    set(&s, "linears", 1);
    s.plan[QZ_ROLE_UP].quantized = false;
    check_ok(apply(&s));
    cr_assert(s.stats[1].rescaled && !s.stats[3].rescaled, "up stays plain, so its rows are not divided");
    setup_free(&s);
}

/* Channels of o that one v head feeds share their factor: rescaled maxima keep their ratios within a group. */
Test(smoothquant, grouped_heads_share_factors)
{
    setup s = setup_new("llama", 30, 1, QZ_ACT_TOKEN);
    const qz_model_config *c = qz_model_config_of(s.model);
    const int64_t shared = c->heads / c->kv_heads, size = c->head_dim;
    float *before = qz_arena_array(s.arena, float, (size_t)s.stats[1].k);
    memcpy(before, s.stats[1].absmax, (size_t)s.stats[1].k * sizeof *before);
    set(&s, "linears", 1);
    check_ok(apply(&s));
    cr_assert(shared > 1);
    for (int64_t d = 0; d < size; d++) {
        const double first = (double)before[d] / (double)s.stats[1].absmax[d];
        const double next = (double)before[size + d] / (double)s.stats[1].absmax[size + d];
        cr_assert(fabs(first - next) <= 1e-6 * first, "%ld", (long)d);
    }
    setup_free(&s);
}

Test(smoothquant, search_lowers_the_error_of_an_outlier_channel)
{
    static const qz_act_mode modes[] = {QZ_ACT_TOKEN, QZ_ACT_TENSOR};
    for (int i = 0; i < 2; i++) {
        setup s = setup_new("llama", 60, 1, modes[i]);
        set(&s, "search", 1);
        check_ok(apply(&s));
        const double before = reported(&s, "layer 1 qkv", "error_before"), after = reported(&s, "layer 1 qkv", "error");
        const double alpha = reported(&s, "layer 1 qkv", "alpha");
        cr_assert(after < before / 2, "%g, %g", before, after);
        cr_assert(alpha >= 0.3 && alpha <= 0.95);
        setup_free(&s);
    }
}

/* Inputs that are not rounded and weights of 8 bits leave nothing to gain from strong factors; the search must never
 * end above the identity. */
Test(smoothquant, search_is_never_worse_than_nothing)
{
    setup s = setup_new("qwen2", 1, 1, QZ_ACT_NONE);
    set(&s, "search", 1);
    set(&s, "linears", 1);
    check_ok(apply(&s));
    static const char *const where[] = {"layer 1 qkv", "layer 1 o", "layer 1 gate_up", "layer 1 down"};
    for (int i = 0; i < 4; i++) {
        const double before = reported(&s, where[i], "error_before"), after = reported(&s, where[i], "error");
        cr_assert(after <= before && (after < before || !s.stats[i].rescaled), "%s: %g, %g", where[i], before, after);
    }
    setup_free(&s);
}

/* A token that is larger in all channels cannot be smoothed away. */
Test(smoothquant, proposes_dynamic_inputs_where_no_factor_helps)
{
    setup s = setup_new("llama", 1, 3000, QZ_ACT_TENSOR);
    set(&s, "search", 1);
    check_ok(apply(&s));
    int proposals = 0;
    for (size_t i = 0; i < qz_report_count(s.report); i++)
        proposals += strcmp(qz_report_row_at(s.report, i)->what, "proposal") == 0;
    cr_assert(proposals == 5, "%d: q k v, gate and up", proposals);
    cr_assert(qz_report_find(s.report, "activation", "model.layers.1.self_attn.k_proj", "proposal"));
    setup_free(&s);
}

Test(smoothquant, search_needs_rows)
{
    setup s = setup_new("llama", 1, 1, QZ_ACT_TENSOR);
    set(&s, "search", 1);
    s.stats[0].reservoir_rows = 0;
    check_fails(QZ_ARG, "needs sampled rows", apply(&s));
    setup_free(&s);
}
