/* The static scale of an input: the candidate that wins, the errors it is judged by, and what cannot be held. */
#include "calib/activation_scale.h"

#include <math.h>

#include "testing/quant_case.h"
#include "testing/tolerances.h"

enum { N = 20, K = 48, T = 400 };

static const qz_act_scheme static_int8 = {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, true, 127};

/* Normal inputs; `spikes` rows with one value of 2000. */
static quant_case case_with(int spikes, bool histogram)
{
    quant_case c = {.backend = qz_backend_best()};
    check_ok(qz_arena_new(&c.arena, "case"));
    qz_rng_seed(&c.rng, 6, 6);
    c.w = quant_matrix(&c, N, K, 0.05);
    c.x = quant_matrix(&c, T, K, 1);
    for (int i = 0; i < spikes; i++) qz_f32(&c.x)[i * 50 * K + 7] = -2000;
    check_ok(qz_stats_new(&c.stats, K, (qz_stats_wants){.reservoir = T, .histogram = histogram}, 1, 1, c.arena));
    check_ok(qz_stats_add(&c.stats, c.backend, &c.x));
    check_ok(qz_stats_finish(&c.stats));
    return c;
}

static qz_activation_args args_of(const quant_case *c, const qz_activation_reader *reader, int observer)
{
    const qz_option *options = observer < 0 ? NULL : qz_observer_at((size_t)observer)->plugin.options;
    return (qz_activation_args){.backend = c->backend,
                                .stats = &c->stats,
                                .scheme = static_int8,
                                .observer = observer,
                                .options = qz_options_default(options),
                                .reader = reader,
                                .readers = 1};
}

static qz_activation_choice chosen(const quant_case *c, int observer, qz_report *report)
{
    const qz_activation_reader reader = {.module = "model.layers.0.mlp.down_proj", .weight = c->w};
    qz_activation_args args = args_of(c, &reader, observer);
    qz_activation_choice out;
    args.report = report;
    check_ok(qz_activation_scale(&out, &args, c->arena));
    return out;
}

Test(activation_scale, auto_takes_the_least_error_of_all_observers)
{
    for (int spikes = 0; spikes < 5; spikes += 4) {
        quant_case c = case_with(spikes, true);
        const qz_activation_choice best = chosen(&c, -1, NULL);
        for (int i = 0; i < (int)qz_observers()->count; i++) {
            const qz_activation_choice one = chosen(&c, i, NULL);
            cr_assert(one.observer == i && best.error <= one.error);
            cr_assert(i != best.observer || (best.error == one.error && best.values.scale == one.values.scale));
        }
        quant_case_free(&c);
    }
}

Test(activation_scale, minmax_is_the_largest_value_over_the_divisor)
{
    quant_case c = case_with(1, true);
    const qz_activation_choice out = chosen(&c, 0, NULL);
    cr_assert(out.values.scale == 2000.0f / 127 && out.values.zero == 0 && out.clipped == 0);
    quant_case_free(&c);
}

/* One scale holds normal inputs; with spikes neither cutting nor keeping them is good, and the note says what is. */
Test(activation_scale, what_one_scale_cannot_hold_is_proposed_to_be_dynamic)
{
    quant_case plain = case_with(0, true), spiked = case_with(4, true);
    qz_report *report;
    qz_severity severity;
    check_ok(qz_report_new(&report));
    const qz_activation_choice good = chosen(&plain, -1, report);
    check_ok(qz_activation_propose(report, plain.arena));
    cr_assert(!good.needs_dynamic && good.error < 0.01 && qz_report_notes(report) == 0, "%g", good.error);
    const qz_activation_choice bad = chosen(&spiked, -1, report);
    cr_assert(bad.needs_dynamic && bad.error > 0.05 && bad.dynamic_error < 0.01, "%g %g", bad.error, bad.dynamic_error);
    check_ok(qz_activation_propose(report, plain.arena));
    cr_assert(qz_report_notes(report) == 1);
    const char *note = qz_report_note_at(report, 0, &severity);
    cr_assert(severity == QZ_WARN);
    cr_assert(strstr(note, "\"overrides\": [{\"match\": [\"model.layers.0.mlp.down_proj\"], \"activations\": "
                           "{\"mode\": \"dynamic\"}}]"),
              "%s", note);
    qz_report_free(report);
    quant_case_free(&plain);
    quant_case_free(&spiked);
}

Test(activation_scale, is_reported_with_what_it_cuts_off)
{
    quant_case c = case_with(4, true);
    qz_report *report;
    check_ok(qz_report_new(&report));
    const int percentile = qz_plugins_find(qz_observers(), "percentile");
    const qz_activation_reader reader = {.module = "m", .weight = c.w};
    qz_activation_args args = args_of(&c, &reader, percentile);
    qz_activation_choice out;
    args.report = report;
    args.options.value[0] = 99;
    check_ok(qz_activation_scale(&out, &args, c.arena));
    const char *const what[] = {"scale", "relative_error", "dynamic_error", "clipped", "clipped_energy"};
    for (int i = 0; i < 5; i++) cr_assert(qz_report_find(report, "activation", "m", what[i]), "%s", what[i]);
    cr_assert_str_eq(qz_report_find(report, "activation", "m", "observer")->text, "percentile");
    cr_assert(out.clipped > 0.005 && out.clipped < 0.015 && out.clipped_energy > 0.9, "%g %g", out.clipped,
              out.clipped_energy);
    qz_report_free(report);
    quant_case_free(&c);
}

/* Against sums in double, with quantized weights. */
Test(activation_scale, errors_are_those_of_the_outputs)
{
    quant_case c = case_with(2, false);
    qz_qtensor q = quant_solved(&c, quant_scheme(QZ_FORMAT_INT8, 1, 0, true), "minmax");
    const float *wq = quant_values(&c, &q), *w = qz_f32(&c.w);
    const qz_activation_reader reader = {.module = "m", .weight = c.w, .quantized = &q};
    const qz_activation_args args = args_of(&c, &reader, -1);
    const qz_activation_way ways[2] = {{.scheme = {.mode = QZ_ACT_NONE}}, {static_int8, {0.05f, 0}}};
    static double error[2 * T], energy[T];
    const int64_t rows = qz_activation_rows(&c.stats);
    check_ok(qz_activation_errors(error, energy, ways, 2, &args, c.arena));
    for (int64_t t = 0; t < rows; t++) {
        const float *x = c.stats.reservoir + t * K;
        double want[2] = {0, 0}, whole = 0;
        for (int n = 0; n < N; n++) {
            double y = 0, plain = 0, rounded = 0;
            for (int k = 0; k < K; k++) {
                const double r = rint(fmin(fmax((double)(x[k] / 0.05f), -128), 127)) * (double)0.05f;
                y += (double)x[k] * w[n * K + k], plain += (double)x[k] * wq[n * K + k], rounded += r * wq[n * K + k];
            }
            want[0] += (plain - y) * (plain - y), want[1] += (rounded - y) * (rounded - y), whole += y * y;
        }
        cr_assert(fabs(energy[t] - whole) <= TOL_LAYER_ERROR * whole);
        for (int i = 0; i < 2; i++) cr_assert(fabs(error[i * rows + t] - want[i]) <= 1e-6 * whole + 1e-3 * want[i]);
    }
    quant_case_free(&c);
}

/* After a transform the rows tell, but the largest value is that of all tokens. */
Test(activation_scale, rescaled_statistics_keep_their_extremes)
{
    quant_case c = case_with(0, true);
    float scale[K];
    qz_distribution d;
    for (int k = 0; k < K; k++) scale[k] = 1 + (float)k;
    c.stats.reservoir_rows = 20;
    c.stats.absmax[3] = 900; /* seen in a row that was not kept */
    qz_stats_rescale(&c.stats, scale);
    check_ok(qz_activation_distribution(&d, &c.stats, c.backend, c.arena));
    cr_assert(fmaxf(d.high, -d.low) == 225, "%g %g", d.low, d.high);
    quant_case_free(&c);
}

/* An expert that got no token, before and after a transform. */
Test(activation_scale, an_input_that_was_never_seen_gets_one_and_a_note)
{
    quant_case c = case_with(0, true);
    qz_report *report;
    float scale[K];
    for (int k = 0; k < K; k++) scale[k] = 2;
    check_ok(qz_report_new(&report));
    check_ok(qz_stats_new(&c.stats, K, (qz_stats_wants){.reservoir = T, .histogram = true}, 1, 1, c.arena));
    for (int rescaled = 0; rescaled < 2; rescaled++) {
        const qz_activation_choice out = chosen(&c, -1, report);
        cr_assert(out.values.scale == 1 && out.needs_dynamic);
        cr_assert(qz_report_notes(report) == (size_t)rescaled + 1);
        cr_assert(strstr(qz_report_note_at(report, 0, &(qz_severity){0}), "never anything but zero"));
        qz_stats_rescale(&c.stats, scale);
    }
    qz_report_free(report);
    quant_case_free(&c);
}

Test(activation_scale, nothing_to_look_at_is_told)
{
    quant_case c = case_with(0, false);
    qz_distribution d;
    c.stats.reservoir_rows = 0;
    check_fails(QZ_ARG, "needs its histogram", qz_activation_distribution(&d, &c.stats, c.backend, c.arena));
    quant_case_free(&c);
}
