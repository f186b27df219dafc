/* SmoothQuant on golden/methods (float64 numpy): the factors, and the loss of W8A8 with them, weights per row and
 * activations per token, both amax / 127.5. */
#include <math.h>
#include <stdio.h>

#include "base/file.h"
#include "base/json.h"
#include "calib/activation_scale.h"
#include "calib/smoothquant.h"
#include "checkpoints/checkpoints.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fixture {
    qz_arena *arena;
    qz_safetensors *inputs, *scales;
    qz_json *json;
    const qz_backend *backend;
    qz_tensor w, x;
    qz_stats stats;
    float *absmax_w;
} fixture;

static qz_tensor widened(fixture *f, const char *name)
{
    const qz_stored *s = qz_safetensors_find(f->inputs, name);
    const int64_t count = qz_tensor_count(&s->view);
    float *data = qz_arena_array(f->arena, float, (size_t)count);
    check_ok(qz_convert(data, QZ_F32, s->view.data, s->view.dtype, count));
    return qz_tensor_2d(data, QZ_F32, s->view.shape[0], s->view.shape[1]);
}

static void setup(fixture *f)
{
    char *text, path[1024];
    size_t size;
    *f = (fixture){.backend = qz_backend_best()};
    check_ok(qz_arena_new(&f->arena, "golden"));
    check_ok(qz_safetensors_open(&f->inputs, golden_path("methods/inputs.safetensors")));
    check_ok(qz_safetensors_open(&f->scales, golden_path("methods/scales.safetensors")));
    snprintf(path, sizeof path, "%s", golden_path("methods/losses.json"));
    check_ok(qz_file_read(&text, &size, path, 1 << 20, f->arena));
    check_ok(qz_json_parse(&f->json, text, size));
    f->w = widened(f, "W"), f->x = widened(f, "X");
    const int64_t k = f->w.shape[1];
    check_ok(qz_stats_new(&f->stats, k, (qz_stats_wants){.reservoir = f->x.shape[0]}, 1, 1, f->arena));
    check_ok(qz_stats_add(&f->stats, f->backend, &f->x));
    f->absmax_w = qz_arena_calloc(f->arena, (size_t)k * sizeof(float));
    for (int64_t i = 0; i < f->w.shape[0] * k; i++)
        f->absmax_w[i % k] = fmaxf(f->absmax_w[i % k], fabsf(qz_f32(&f->w)[i]));
}

static void teardown(fixture *f)
{
    qz_json_close(f->json);
    qz_safetensors_close(f->inputs);
    qz_safetensors_close(f->scales);
    qz_arena_free(f->arena);
}

/* Calls `check` for each alpha that the files have. */
static void for_each_alpha(fixture *f, void (*check)(fixture *f, double alpha, const double *scales))
{
    int seen = 0;
    for (int i = 1; i < 20; i++) {
        char name[64];
        const double alpha = i / 20.0;
        snprintf(name, sizeof name, "smoothquant_%g.scales", alpha);
        const qz_stored *s = qz_safetensors_find(f->scales, name);
        if (!s) continue;
        cr_assert(s->view.dtype == QZ_F64 && qz_tensor_count(&s->view) == f->w.shape[1]);
        check(f, alpha, s->view.data);
        seen++;
    }
    cr_assert(seen > 0, "scales.safetensors has no smoothquant_*.scales");
}

static void check_scales(fixture *f, double alpha, const double *wanted)
{
    const int64_t k = f->w.shape[1];
    float *s = qz_arena_array(f->arena, float, (size_t)k);
    qz_smoothquant_scales(s, f->stats.absmax, f->absmax_w, k, alpha);
    for (int64_t j = 0; j < k; j++)
        cr_assert(fabs((double)s[j] - wanted[j]) <= TOL_ONE_PRODUCT * wanted[j], "alpha %g, channel %ld: %.9g, %.9g",
                  alpha, (long)j, (double)s[j], wanted[j]);
}

Test(golden_smoothquant, scales)
{
    fixture f;
    setup(&f);
    for_each_alpha(&f, check_scales);
    teardown(&f);
}

/* Sum of squares of the outputs' error under W8A8, all tokens, with W s and x / s. */
static double w8a8_loss(fixture *f, const double *s)
{
    static const qz_scheme int8 = {.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .scale_type = QZ_F32};
    const int64_t n = f->w.shape[0], k = f->w.shape[1], t = f->x.shape[0];
    qz_tensor w = widened(f, "W"), x = widened(f, "X");
    qz_act_scheme token = {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, true, 127.5f};
    qz_qtensor q;
    float *wq = qz_arena_array(f->arena, float, (size_t)(n * k));
    for (int64_t i = 0; s && i < n * k; i++) qz_f32(&w)[i] = (float)((double)qz_f32(&w)[i] * s[i % k]);
    for (int64_t i = 0; s && i < t * k; i++) qz_f32(&x)[i] = (float)((double)qz_f32(&x)[i] / s[i % k]);
    check_ok(qz_qtensor_alloc(&q, &int8, n, k, f->arena));
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    check_ok(minmax->choose(&q, f->backend, &w, NULL, NULL));
    qz_round_to_nearest(&q, &w);
    qz_qtensor_dequantize(wq, &q, 0, n);
    check_ok(qz_op_round_activations(f->backend, &x, &x, &token, NULL));
    double sum = 0;
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < n; j++) {
            double e = 0;
            for (int64_t c = 0; c < k; c++)
                e += (double)qz_f32(&x)[i * k + c] * (double)wq[j * k + c] -
                     (double)qz_f32(&f->x)[i * k + c] * (double)qz_f32(&f->w)[j * k + c];
            sum += e * e;
        }
    return sum;
}

static double golden_loss(const fixture *f, const char *name)
{
    double out;
    const qz_json_node *losses = qz_json_get(qz_json_root(f->json), "losses");
    check_ok(qz_json_number(qz_json_get(losses, name), name, 0, 1e300, &out));
    return out;
}

static void at_most(const char *name, double ours, double theirs)
{
    printf("%-20s ours %.8g, reference %.8g, ratio %.5f\n", name, ours, theirs, ours / theirs);
    cr_assert(ours <= theirs * (1 + TOL_METHOD_LOSS), "%s: %.9g is %.4f of %.9g", name, ours, ours / theirs, theirs);
}

static void check_loss(fixture *f, double alpha, const double *scales)
{
    char name[64];
    snprintf(name, sizeof name, "w8a8_smooth_%g", alpha);
    at_most(name, w8a8_loss(f, scales), golden_loss(f, name));
}

Test(golden_smoothquant, losses)
{
    fixture f;
    setup(&f);
    at_most("w8a8_plain", w8a8_loss(&f, NULL), golden_loss(&f, "w8a8_plain"));
    for_each_alpha(&f, check_loss);
    teardown(&f);
}

/* The search's own measure agrees on which factors are better. */
Test(golden_smoothquant, its_own_error_orders_the_factors)
{
    fixture f;
    double plain, half, most;
    setup(&f);
    const qz_smoothing_linear linear = {
        f.w, {.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .scale_type = QZ_F32}};
    qz_smoothing s = {.backend = f.backend,
                      .stats = &f.stats,
                      .linear = &linear,
                      .linears = 1,
                      .activation = {QZ_ACT_TOKEN, QZ_FORMAT_INT8, 0, true, 127.5f}};
    float *scale = qz_arena_array(f.arena, float, (size_t)f.w.shape[1]);
    check_ok(qz_smoothing_begin(&s, f.arena));
    check_ok(qz_smoothing_error(&plain, &s, NULL, f.arena));
    qz_smoothquant_scales(scale, f.stats.absmax, f.absmax_w, f.w.shape[1], 0.5);
    check_ok(qz_smoothing_error(&half, &s, scale, f.arena));
    qz_smoothquant_scales(scale, f.stats.absmax, f.absmax_w, f.w.shape[1], 1);
    check_ok(qz_smoothing_error(&most, &s, scale, f.arena));
    cr_assert(half < plain && half < most, "%g: %g, %g", half, plain, most);
    teardown(&f);
}
