/* Each figure is a row: its name, where its limit stands in the recipe, and whether more is better. */
#include "programs/acceptance.h"

#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/file.h"

typedef struct figure_row {
    const char *key, *name, *unit;
    bool least; /* the limit is the least that is accepted */
    size_t limit;
} figure_row;

#define LIMIT(member) offsetof(qz_recipe, evaluate.member)
static const figure_row rows[QZ_ACCEPT_FIGURES] = {
    [QZ_ACCEPT_PERPLEXITY] = {"perplexity_ratio", "perplexity ratio", "", false, LIMIT(accept_perplexity_ratio)},
    [QZ_ACCEPT_KL] = {"kl", "mean KL divergence from the original", " nats", false, LIMIT(accept_kl)},
    [QZ_ACCEPT_TOP1] = {"top1_agreement", "top-1 agreement with the original", "", true, LIMIT(accept_top1)},
    [QZ_ACCEPT_LAYER] = {"layer_error", "largest relative output error of a layer", "", false,
                         LIMIT(accept_layer_error)},
};

/* ---- the verdict ---- */

static void set_figure(qz_acceptance *a, qz_accept_figure figure, double found)
{
    a->figure[figure].known = true;
    a->figure[figure].found = found;
}

static bool is_layer_error(const qz_report_row *row)
{
    return !row->text && *row->where && strcmp(row->section, "linear") == 0 &&
           strcmp(row->what, "relative_output_error") == 0;
}

/* Keeps the largest ones, those that came first before equals. */
static void add_layer(qz_acceptance *a, const char *module, double error)
{
    int at = a->worst_count;
    while (at > 0 && a->worst[at - 1].error < error) at--;
    if (at == QZ_ACCEPT_WORST) return;
    if (a->worst_count < QZ_ACCEPT_WORST) a->worst_count++;
    for (int i = a->worst_count - 1; i > at; i--) a->worst[i] = a->worst[i - 1];
    a->worst[at].module = module;
    a->worst[at].error = error;
}

static void find_layers(qz_acceptance *a, const qz_report *report)
{
    for (size_t i = 0; report && i < qz_report_count(report); i++) {
        const qz_report_row *row = qz_report_row_at(report, i);
        if (is_layer_error(row)) add_layer(a, row->where, row->value);
    }
    if (a->worst_count) set_figure(a, QZ_ACCEPT_LAYER, a->worst[0].error);
}

static void judge_figure(qz_acceptance *a, int figure, double limit)
{
    qz_accept_limit *f = &a->figure[figure];
    f->asked = limit != 0;
    f->limit = limit;
    f->met = f->known && (rows[figure].least ? f->found >= limit : f->found <= limit);
    if (!f->asked) return;
    if (a->verdict == QZ_NOT_JUDGED) a->verdict = QZ_ACCEPTED;
    if (!f->met) a->verdict = QZ_NOT_ACCEPTED;
}

void qz_accept_judge(qz_acceptance *out, const qz_recipe *recipe, const qz_perplexity *original,
                     const qz_perplexity *quantized, const qz_divergence *divergence, const qz_report *report)
{
    *out = (qz_acceptance){.verdict = QZ_NOT_JUDGED};
    if (quantized) set_figure(out, QZ_ACCEPT_PERPLEXITY, quantized->perplexity / original->perplexity);
    if (divergence) set_figure(out, QZ_ACCEPT_KL, divergence->kl_mean);
    if (divergence) set_figure(out, QZ_ACCEPT_TOP1, divergence->top1);
    find_layers(out, report);
    for (int i = 0; i < QZ_ACCEPT_FIGURES; i++)
        judge_figure(out, i, *(const double *)((const char *)recipe + rows[i].limit));
}

/* ---- telling it ---- */

enum { TEXT = 4096 };

static void say(char text[TEXT], const char *format, ...) QZ_PRINTF(2, 3);

/* Appends a line; what is too long is cut. */
static void say(char text[TEXT], const char *format, ...)
{
    const size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, TEXT - used, format, args);
    va_end(args);
}

static void say_figure(char text[TEXT], const figure_row *row, const qz_accept_limit *f)
{
    if (!f->known)
        say(text, "not accepted: %s was not measured; the recipe's limit is %g\n", row->name, f->limit);
    else
        say(text, "not accepted: %s %.4g%s is %s the recipe's limit %g\n", row->name, f->found, row->unit,
            row->least ? "below" : "above", f->limit);
}

static void say_reasons(char text[TEXT], const qz_acceptance *a)
{
    text[0] = '\0';
    for (int i = 0; i < QZ_ACCEPT_FIGURES; i++)
        if (a->figure[i].asked && !a->figure[i].met) say_figure(text, &rows[i], &a->figure[i]);
    for (int i = 0; i < a->worst_count; i++)
        say(text, "%s %s: relative output error %.4g\n", i ? "  then" : "worst layer", a->worst[i].module,
            a->worst[i].error);
}

void qz_accept_print(FILE *out, const char *prefix, const qz_acceptance *a)
{
    char text[TEXT];
    if (a->verdict != QZ_NOT_ACCEPTED) return;
    say_reasons(text, a);
    for (const char *line = text; *line;) {
        const size_t length = strcspn(line, "\n");
        fprintf(out, "%s%.*s\n", prefix, (int)length, line);
        line += length + (line[length] != '\0');
    }
}

qz_status qz_accept_mark(const char *folder, const qz_acceptance *a)
{
    qz_arena *arena;
    char text[TEXT];
    if (a->verdict != QZ_NOT_ACCEPTED) return QZ_OK;
    say_reasons(text, a);
    QZ_TRY(qz_arena_new(&arena, "acceptance"));
    char *path = qz_path_join(arena, folder, "NOT_ACCEPTED");
    qz_status status = path ? qz_file_write(path, text, strlen(text)) : qz_arena_failed(arena);
    qz_arena_free(arena);
    return status;
}

const char *qz_accept_note(char out[64], const qz_acceptance *a, qz_accept_figure figure)
{
    const qz_accept_limit *f = &a->figure[figure];
    out[0] = '\0';
    if (f->asked) snprintf(out, 64, ", %s (limit %g)", f->met ? "accepted" : "not accepted", f->limit);
    return out;
}

static void put_figures(qz_json_writer *w, const qz_acceptance *a)
{
    qz_json_begin_array(w, "limits");
    for (int i = 0; i < QZ_ACCEPT_FIGURES; i++) {
        const qz_accept_limit *f = &a->figure[i];
        if (!f->asked) continue;
        qz_json_begin_object(w, NULL);
        qz_json_put_string(w, "figure", rows[i].key);
        qz_json_put_double(w, "limit", f->limit);
        if (f->known) qz_json_put_double(w, "found", f->found);
        qz_json_put_bool(w, "met", f->met);
        qz_json_end(w);
    }
    qz_json_end(w);
}

void qz_accept_put(qz_json_writer *w, const qz_acceptance *a)
{
    if (a->verdict == QZ_NOT_JUDGED)
        qz_json_put_string(w, "accepted", NULL);
    else
        qz_json_put_bool(w, "accepted", a->verdict == QZ_ACCEPTED);
    qz_json_begin_object(w, "acceptance");
    put_figures(w, a);
    qz_json_begin_array(w, "worst_layers");
    for (int i = 0; i < a->worst_count; i++) {
        qz_json_begin_object(w, NULL);
        qz_json_put_string(w, "name", a->worst[i].module);
        qz_json_put_double(w, "relative_output_error", a->worst[i].error);
        qz_json_end(w);
    }
    qz_json_end(w);
    qz_json_end(w);
}
