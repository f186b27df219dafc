/* A static scale does not depend on how the calibration data was cut, in which order the parts were merged, or on the
 * number of threads; and "auto" is never worse by its own measure than any observer, whatever the scheme. */
#include "base/parallel.h"
#include "calib/activation_scale.h"
#include "testing/quant_case.h"

enum { N = 12, K = 40, T = 240 };

static qz_stats part(quant_case *c, int64_t first, int64_t rows)
{
    qz_stats s;
    const qz_tensor x = qz_tensor_rows(&c->x, first, rows);
    check_ok(qz_stats_new(&s, K, (qz_stats_wants){.histogram = true}, 1, 1, c->arena));
    check_ok(qz_stats_add(&s, c->backend, &x));
    return s;
}

static qz_activation_choice choice_of(quant_case *c, const qz_stats *s, const qz_act_scheme *scheme, int observer)
{
    const qz_activation_reader reader = {.module = "m", .weight = c->w};
    const qz_option *options = observer < 0 ? NULL : qz_observer_at((size_t)observer)->plugin.options;
    const qz_activation_args args = {.backend = c->backend,
                                     .stats = s,
                                     .scheme = *scheme,
                                     .observer = observer,
                                     .options = qz_options_default(options),
                                     .reader = &reader,
                                     .readers = 1};
    qz_activation_choice out;
    check_ok(qz_activation_scale(&out, &args, c->arena));
    return out;
}

static const qz_act_scheme schemes[] = {{QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, true, 127.5f},
                                        {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, false, 127},
                                        {QZ_ACT_TENSOR, QZ_FORMAT_FP8_E4M3, 0, true, 0},
                                        {QZ_ACT_TENSOR, QZ_FORMAT_FP8_E5M2, 0, true, 0}};

Test(activation_property, splitting_the_data_changes_nothing)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        quant_case c = quant_case_new(N, K, T, seed);
        const qz_stats whole = part(&c, 0, T);
        const int64_t cut = 20 + (int64_t)seed * 60;
        qz_stats first = part(&c, 0, cut), last = part(&c, cut, T - cut);
        check_ok(qz_stats_merge(&last, &first, c.arena)); /* the other way round */
        for (size_t s = 0; s < 4; s++) {
            for (int o = -1; o < (int)qz_observers()->count; o++) {
                qz_threads_set(o % 2 ? 1 : 8);
                const qz_activation_choice a = choice_of(&c, &whole, &schemes[s], o);
                qz_threads_set(o % 2 ? 8 : 1);
                const qz_activation_choice b = choice_of(&c, &last, &schemes[s], o);
                cr_assert(a.values.scale == b.values.scale && a.values.zero == b.values.zero && a.error == b.error);
                cr_assert(a.clipped == b.clipped && a.observer == b.observer);
            }
        }
        quant_case_free(&c);
    }
}

Test(activation_property, auto_is_never_worse)
{
    for (uint64_t seed = 4; seed <= 6; seed++) {
        quant_case c = quant_case_new(N, K, T, seed);
        qz_stats s;
        check_ok(qz_stats_new(&s, K, (qz_stats_wants){.reservoir = 64, .histogram = true}, 1, 1, c.arena));
        check_ok(qz_stats_add(&s, c.backend, &c.x));
        for (size_t i = 0; i < 4; i++) {
            const double best = choice_of(&c, &s, &schemes[i], -1).error;
            for (int o = 0; o < (int)qz_observers()->count; o++)
                cr_assert(best <= choice_of(&c, &s, &schemes[i], o).error);
        }
        quant_case_free(&c);
    }
}
