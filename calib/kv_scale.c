/* See kv_scale.h. One scale for all heads comes from the histogram of all values. One for each head comes from the rows
 * that were sampled, restricted to the head's channels, and from the head's largest value, which is exact. */
#include "calib/kv_scale.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calib/activation_scale.h"
#include "numeric/actgrid.h"

qz_stats_wants qz_kv_wants(void)
{
    return (qz_stats_wants){.reservoir = 256, .histogram = true, .no_gram = true};
}

qz_status qz_kv_add(qz_stats *s, const qz_backend *backend, const qz_tensor *x)
{
    const qz_tensor flat = qz_tensor_2d(x->data, QZ_F32, x->shape[0], x->shape[1] * x->shape[2]);
    return qz_stats_add(s, backend, &flat);
}

/* The channels of one head as a record of their own; the histogram of all heads does not describe them. */
static qz_status head_stats(qz_stats *out, const qz_stats *s, int64_t head, int64_t heads, qz_arena *scratch)
{
    const int64_t size = s->k / heads;
    *out = *s;
    out->k = size;
    out->absmax = s->absmax + head * size;
    out->histogram = NULL;
    out->reservoir = qz_arena_array(scratch, float, (size_t)(s->reservoir_rows * size));
    if (!out->reservoir) return qz_arena_failed(scratch);
    for (int64_t r = 0; r < s->reservoir_rows; r++)
        memcpy(out->reservoir + r * size, s->reservoir + r * s->k + head * size, (size_t)size * sizeof(float));
    return QZ_OK;
}

/* Scale of a distribution by one observer, and what it costs. */
static qz_status observe(float *scale, double *error, const qz_distribution *d, const qz_act_scheme *scheme,
                         const qz_kv_args *a, int observer)
{
    float lo, hi;
    const qz_observer *o = qz_observer_at((size_t)observer);
    const qz_options options = a->observer < 0 ? qz_options_default(o->plugin.options) : a->options;
    QZ_TRY(o->finish(&lo, &hi, d, scheme, &options));
    const qz_act_values v = qz_act_values_of(lo, hi, *scheme);
    *scale = v.scale;
    *error = qz_distribution_error_share(d, scheme, v);
    return QZ_OK;
}

/* *scale 0: nothing but zeros was seen. */
static qz_status find_scale(float *scale, double *error, const qz_stats *s, const qz_kv_args *a, qz_arena *scratch)
{
    const qz_act_scheme scheme = {.mode = QZ_ACT_TENSOR, .format = a->scheme.format, .symmetric = true, .divisor = 127};
    qz_distribution d;
    *scale = 0;
    *error = 0;
    QZ_TRY(qz_activation_distribution(&d, s, a->backend, scratch));
    if (d.low == 0 && d.high == 0) return QZ_OK;
    if (a->observer >= 0) return observe(scale, error, &d, &scheme, a, a->observer);
    *error = INFINITY;
    for (int i = 0; i < (int)qz_observers()->count; i++) {
        float found;
        double its;
        QZ_TRY(observe(&found, &its, &d, &scheme, a, i));
        if (its >= *error) continue;
        *scale = found;
        *error = its;
    }
    return QZ_OK;
}

static void settle_zero(float *scale, int64_t head, const char *what, const qz_kv_args *a)
{
    if (*scale > 0) return;
    *scale = 1;
    if (a->report)
        qz_report_note(
            a->report, QZ_WARN,
            "%s: the %s cache of %s %lld was always zero on the calibration text, so its scale is 1.0, which "
            "fits nothing in particular",
            a->module, what, a->scheme.per_head ? "head" : "all heads from", (long long)head);
}

static qz_status find_all(float *scale, const qz_stats *s, const char *what, const qz_kv_args *a, qz_arena *scratch)
{
    double worst = 0;
    for (int64_t h = 0; h < a->kv_heads; h++) {
        qz_stats own = *s;
        double error;
        if (h && !a->scheme.per_head) {
            scale[h] = scale[0];
            continue;
        }
        if (a->scheme.per_head) QZ_TRY(head_stats(&own, s, h, a->kv_heads, scratch));
        QZ_TRY_CTX(find_scale(&scale[h], &error, &own, a, scratch), "%s, %s", a->module, what);
        settle_zero(&scale[h], h, what, a);
        worst = error > worst ? error : worst;
        if (!a->report) continue;
        char name[48];
        snprintf(name, sizeof name, a->scheme.per_head ? "%s_scale_%lld" : "%s_scale", what, (long long)h);
        qz_report_add(a->report, "cache", a->module, name, (double)scale[h], "");
    }
    if (!a->report) return QZ_OK;
    char name[48];
    snprintf(name, sizeof name, "%s_error", what);
    qz_report_add(a->report, "cache", a->module, name, worst, "");
    return QZ_OK;
}

qz_status qz_kv_scales(float *key, float *value, const qz_kv_args *args, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(find_all(key, args->key, "key", args, scratch));
    QZ_TRY(find_all(value, args->value, "value", args, scratch));
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
