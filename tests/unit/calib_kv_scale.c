/* Scales of the cache per tensor and per head, against the largest values; heads that never fired. */
#include "calib/kv_scale.h"

#include <math.h>
#include <stdio.h>

#include "testing/quant_case.h"

enum { HEADS = 3, SIZE = 8, T = 500 };

typedef struct kv_case {
    qz_arena *arena;
    qz_report *report;
    qz_stats key, value;
    float most_key[HEADS], most_value[HEADS];
} kv_case;

/* Heads of different size; values of head 1 are zero when `silent`. */
static void fill(qz_stats *s, float *most, float factor, bool silent, qz_arena *arena, uint64_t seed)
{
    qz_rng r;
    float *x = qz_arena_array(arena, float, T *HEADS *SIZE);
    qz_rng_seed(&r, seed, 1);
    for (int h = 0; h < HEADS; h++) most[h] = 0;
    for (int i = 0; i < T * HEADS * SIZE; i++) {
        const int h = i / SIZE % HEADS;
        x[i] = silent && h == 1 ? 0 : (float)qz_rng_normal(&r) * factor * (float)(h + 1);
        most[h] = fmaxf(most[h], fabsf(x[i]));
    }
    const qz_tensor view = qz_tensor_3d(x, QZ_F32, T, HEADS, SIZE);
    check_ok(qz_stats_new(s, HEADS * SIZE, qz_kv_wants(), seed, 2, arena));
    check_ok(qz_kv_add(s, qz_backend_best(), &view));
    check_ok(qz_stats_finish(s));
}

static kv_case case_new(bool silent)
{
    kv_case c;
    check_ok(qz_arena_new(&c.arena, "case"));
    check_ok(qz_report_new(&c.report));
    fill(&c.key, c.most_key, 3, false, c.arena, 1);
    fill(&c.value, c.most_value, 0.2f, silent, c.arena, 2);
    return c;
}

static void case_free(kv_case *c)
{
    qz_report_free(c->report);
    qz_arena_free(c->arena);
}

static void scales(float *key, float *value, kv_case *c, qz_format format, bool per_head, int observer)
{
    const qz_option *options = observer < 0 ? NULL : qz_observer_at((size_t)observer)->plugin.options;
    const qz_kv_args args = {.backend = qz_backend_best(),
                             .scheme = {true, format, per_head},
                             .observer = observer,
                             .options = qz_options_default(options),
                             .module = "model.layers.0.self_attn",
                             .key = &c->key,
                             .value = &c->value,
                             .kv_heads = HEADS,
                             .report = c->report};
    check_ok(qz_kv_scales(key, value, &args, c->arena));
}

Test(kv_scale, minmax_is_the_largest_over_the_largest_code)
{
    static const struct {
        qz_format format;
        float largest;
    } kinds[] = {{QZ_FORMAT_FP8_E4M3, 448}, {QZ_FORMAT_FP8_E5M2, 57344}, {QZ_FORMAT_INT8, 127}};
    kv_case c = case_new(false);
    float key[HEADS], value[HEADS];
    for (int i = 0; i < 3; i++) {
        scales(key, value, &c, kinds[i].format, true, 0);
        for (int h = 0; h < HEADS; h++) {
            cr_assert(key[h] == c.most_key[h] / kinds[i].largest, "%g", key[h]);
            cr_assert(value[h] == c.most_value[h] / kinds[i].largest);
        }
        scales(key, value, &c, kinds[i].format, false, 0);
        const float all = fmaxf(fmaxf(c.most_key[0], c.most_key[1]), c.most_key[2]);
        for (int h = 0; h < HEADS; h++) cr_assert(key[h] == all / kinds[i].largest);
    }
    case_free(&c);
}

Test(kv_scale, observers_may_cut_and_auto_takes_the_least_error)
{
    kv_case c = case_new(false);
    float key[HEADS], value[HEADS], best[HEADS], best_value[HEADS];
    scales(key, value, &c, QZ_FORMAT_INT8, true, qz_plugins_find(qz_observers(), "mse"));
    scales(best, best_value, &c, QZ_FORMAT_INT8, true, -1);
    for (int h = 0; h < HEADS; h++) {
        cr_assert(key[h] <= c.most_key[h] / 127 && key[h] > 0.3f * c.most_key[h] / 127);
        cr_assert(best[h] <= c.most_key[h] / 127 && best[h] > 0);
    }
    case_free(&c);
}

Test(kv_scale, a_silent_head_gets_one_and_a_note)
{
    kv_case c = case_new(true);
    qz_severity severity;
    float key[HEADS], value[HEADS];
    scales(key, value, &c, QZ_FORMAT_FP8_E4M3, true, 0);
    cr_assert(value[1] == 1 && value[0] < 1);
    cr_assert(qz_report_notes(c.report) == 1);
    cr_assert(strstr(qz_report_note_at(c.report, 0, &severity), "value cache of head 1 was always zero"));
    cr_assert(severity == QZ_WARN);
    cr_assert(qz_report_find(c.report, "cache", "model.layers.0.self_attn", "key_scale_2")->value == (double)key[2]);
    cr_assert(qz_report_find(c.report, "cache", "model.layers.0.self_attn", "key_error")->value > 0);
    case_free(&c);
}
