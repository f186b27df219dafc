/* See activation_scale.h. A candidate range is judged by the larger of two shares:
 *
 *     sum over all values of (x - round(x))^2 / sum x^2          from the histogram, so no token is missed
 *     mean over rows t of |round(x_t) Wq^T - x_t W^T|^2 / |x_t W^T|^2
 *
 * The second sees what a step too coarse for ordinary tokens does. The first sees the few tokens (often the first of a
 * text) whose values are a thousand times larger and on which attention rests: cutting them off costs little in a mean
 * over tokens and ruins the model (Sun et al. 2024, "Massive activations in large language models"). Where both cannot
 * be had, the input needs a scale of its own for each token, and an override is proposed. */
#include "calib/activation_scale.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "numeric/actgrid.h"

enum { MOST_OBSERVERS = 16 };
/* A static scale is given up above this error, if it is also so many times that of a dynamic one. */
static const double TOO_LARGE = 0.05, TIMES_DYNAMIC = 10;

/* ---- the distribution ---- */

/* Extremes of a histogram, to the edge of a bin; the larger is exact, since the channels' largest magnitudes are. */
static void find_extremes(qz_distribution *d, const uint64_t *counts, float most)
{
    enum { SIDE = QZ_HISTOGRAM_BINS / 2 };
    for (int side = 0; side < 2; side++) {
        int bin = SIDE - 1;
        while (bin > 0 && !counts[side * SIDE + bin]) bin--;
        float edge = bin ? qz_bits_float((uint32_t)(bin + 1) << QZ_HISTOGRAM_SHIFT) : 0;
        edge = edge < most ? edge : most;
        if (side)
            d->low = -edge;
        else
            d->high = edge;
    }
}

/* From the rows, each standing for tokens / rows of them, and the largest value of every channel, which may have been
 * in none of these rows; its sign is that of the channel's largest in the rows. */
static qz_status count_rows(uint64_t *counts, const qz_stats *s, const qz_backend *backend, qz_arena *scratch)
{
    const uint64_t each = (uint64_t)(s->tokens / s->reservoir_rows);
    const qz_tensor rows = qz_tensor_2d(s->reservoir, QZ_F32, s->reservoir_rows, s->k);
    qz_arena_mark mark = qz_arena_save(scratch);
    float *largest = qz_arena_calloc(scratch, (size_t)s->k * sizeof *largest);
    if (!largest) return qz_arena_failed(scratch);
    QZ_TRY(qz_op_histogram(backend, counts, &rows));
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) counts[i] *= each ? each : 1;
    for (int64_t r = 0; r < s->reservoir_rows; r++)
        for (int64_t k = 0; k < s->k; k++) {
            const float x = s->reservoir[r * s->k + k];
            largest[k] = fabsf(x) > fabsf(largest[k]) ? x : largest[k];
        }
    for (int64_t k = 0; k < s->k; k++)
        counts[qz_float_bits(copysignf(s->absmax[k], largest[k])) >> QZ_HISTOGRAM_SHIFT]++;
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

qz_status qz_activation_distribution(qz_distribution *out, const qz_stats *stats, const qz_backend *backend,
                                     qz_arena *arena)
{
    float most = 0;
    *out = (qz_distribution){.histogram = stats->histogram};
    for (int64_t k = 0; k < stats->k; k++) most = stats->absmax[k] > most ? stats->absmax[k] : most;
    if (!stats->histogram || stats->rescaled) {
        if (!stats->reservoir_rows && stats->tokens)
            return QZ_FAIL(QZ_ARG, "the range of an input needs its histogram%s, and the statistics have none",
                           stats->rescaled ? " or, after a transform, sampled rows" : "");
        uint64_t *counts = qz_arena_calloc(arena, QZ_HISTOGRAM_BINS * sizeof *counts);
        if (!counts) return qz_arena_failed(arena);
        if (stats->reservoir_rows) QZ_TRY(count_rows(counts, stats, backend, arena));
        out->histogram = counts;
    }
    find_extremes(out, out->histogram, most);
    return QZ_OK;
}

/* ---- candidates ---- */

typedef struct candidates {
    int count, observer[MOST_OBSERVERS];
    qz_activation_way way[MOST_OBSERVERS + 1]; /* the last: a scale for each token */
    float lo[MOST_OBSERVERS], hi[MOST_OBSERVERS];
} candidates;

static qz_status add_candidate(candidates *c, const qz_activation_args *a, const qz_distribution *d, int observer)
{
    const qz_observer *o = qz_observer_at((size_t)observer);
    const qz_options options = a->observer < 0 ? qz_options_default(o->plugin.options) : a->options;
    const int i = c->count++;
    QZ_TRY(o->finish(&c->lo[i], &c->hi[i], d, &a->scheme, &options));
    c->observer[i] = observer;
    c->way[i] = (qz_activation_way){a->scheme, qz_act_values_of(c->lo[i], c->hi[i], a->scheme)};
    return QZ_OK;
}

static qz_status find_candidates(candidates *c, const qz_activation_args *a, const qz_distribution *d)
{
    const int all = (int)qz_observers()->count;
    *c = (candidates){0};
    if (a->observer >= 0)
        QZ_TRY(add_candidate(c, a, d, a->observer));
    else
        for (int i = 0; i < all && i < MOST_OBSERVERS; i++) QZ_TRY(add_candidate(c, a, d, i));
    c->way[c->count] = (qz_activation_way){.scheme = a->scheme};
    c->way[c->count].scheme.mode = QZ_ACT_TOKEN;
    return QZ_OK;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Picks the least error. Without rows only the histogram judges. */
static qz_status judge(qz_activation_choice *out, const candidates *c, const qz_activation_args *a,
                       const qz_distribution *d, qz_arena *scratch)
{
    const int64_t rows = qz_activation_rows(a->stats);
    double *error = qz_arena_array(scratch, double, (size_t)((c->count + 1) * rows)),
           *energy = qz_arena_array(scratch, double, (size_t)rows);
    if (!error || !energy) return qz_arena_failed(scratch);
    if (rows) QZ_TRY(qz_activation_errors(error, energy, c->way, c->count + 1, a, scratch));
    int best = -1;
    for (int i = 0; i < c->count; i++) {
        const double cut = qz_distribution_error_share(d, &a->scheme, c->way[i].values);
        const double total = larger(cut, qz_activation_mean_share(error + i * rows, energy, rows));
        if (best >= 0 && total >= out->error) continue;
        best = i;
        out->error = total;
    }
    out->values = c->way[best].values;
    out->observer = c->observer[best];
    out->dynamic_error = qz_activation_mean_share(error + c->count * rows, energy, rows);
    out->needs_dynamic = rows > 0 && qz_activation_needs_dynamic(out->error, out->dynamic_error);
    qz_distribution_clipped(&out->clipped, &out->clipped_energy, d, c->lo[best], c->hi[best]);
    return QZ_OK;
}

/* ---- report ---- */

bool qz_activation_needs_dynamic(double error, double dynamic_error)
{
    return error > TOO_LARGE && error > TIMES_DYNAMIC * dynamic_error;
}

void qz_activation_report_need(qz_report *report, const char *module)
{
    if (report && !qz_report_find(report, "activation", module, "proposal"))
        qz_report_text(report, "activation", module, "proposal", "dynamic");
}

static void report(const qz_activation_choice *c, const qz_activation_args *a)
{
    const char *section = "activation";
    for (int i = 0; a->report && i < a->readers; i++) {
        const char *module = a->reader[i].module;
        if (c->needs_dynamic) qz_activation_report_need(a->report, module);
        if (i) continue; /* the figures once for an input, under its first linear */
        qz_report_add(a->report, section, module, "scale", (double)c->values.scale, "");
        if (!a->scheme.symmetric) qz_report_add(a->report, section, module, "zero", c->values.zero, "");
        qz_report_text(a->report, section, module, "observer", qz_observer_at((size_t)c->observer)->plugin.name);
        qz_report_add(a->report, section, module, "relative_error", c->error, "");
        qz_report_add(a->report, section, module, "dynamic_error", c->dynamic_error, "");
        qz_report_add(a->report, section, module, "clipped", c->clipped, "");
        qz_report_add(a->report, section, module, "clipped_energy", c->clipped_energy, "");
    }
}

/* Nothing but zeros was seen (an expert without tokens): no scale can be right. */
static void settle_unseen(qz_activation_choice *out, const qz_activation_args *a)
{
    out->values = (qz_act_values){.scale = 1, .zero = 0};
    out->observer = a->observer < 0 ? 0 : a->observer;
    out->needs_dynamic = true;
    if (a->report && a->readers)
        qz_report_note(a->report, QZ_WARN,
                       "%s: its input was never anything but zero on the calibration text, so the static scale 1.0 "
                       "fits nothing in particular; more text, or dynamic inputs",
                       a->reader[0].module);
}

qz_status qz_activation_scale(qz_activation_choice *out, const qz_activation_args *args, qz_arena *scratch)
{
    candidates c;
    qz_distribution d;
    *out = (qz_activation_choice){0};
    qz_arena_mark mark = qz_arena_save(scratch);
    const char *module = args->readers ? args->reader[0].module : "";
    QZ_TRY_CTX(qz_activation_distribution(&d, args->stats, args->backend, scratch), "%s", module);
    if (d.low == 0 && d.high == 0) {
        settle_unseen(out, args);
    } else {
        QZ_TRY_CTX(find_candidates(&c, args, &d), "%s", module);
        QZ_TRY_CTX(judge(out, &c, args, &d, scratch), "%s", module);
    }
    report(out, args);
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

static bool is_proposal(const qz_report_row *r)
{
    return strcmp(r->section, "activation") == 0 && strcmp(r->what, "proposal") == 0;
}

qz_status qz_activation_propose(qz_report *report, qz_arena *scratch)
{
    size_t size = 1, used = 0, count = 0;
    for (size_t i = 0; i < qz_report_count(report); i++)
        if (is_proposal(qz_report_row_at(report, i))) size += strlen(qz_report_row_at(report, i)->where) + 4, count++;
    if (!count) return QZ_OK;
    char *list = qz_arena_alloc(scratch, size);
    if (!list) return qz_arena_failed(scratch);
    for (size_t i = 0; i < qz_report_count(report); i++) {
        const qz_report_row *r = qz_report_row_at(report, i);
        if (!is_proposal(r)) continue;
        used += (size_t)snprintf(list + used, size - used, "%s\"%s\"", used ? ", " : "", r->where);
    }
    qz_report_note(
        report, QZ_WARN,
        "one static scale cannot hold the inputs of %zu linears (a few tokens are far larger than the rest); "
        "a scale for each token can. Consider \"overrides\": [{\"match\": [%s], \"activations\": {\"mode\": "
        "\"dynamic\"}}]",
        count, list);
    return QZ_OK;
}
