/* One line of the journal <-> what it says. Lines are JSON objects:
 *
 *   {"format":"1","program":"0.1.0","recipe":"5f...", ...}                            the identity, values are strings
 *   {"layer":0,"tensors":[[name,fingerprint],...],"rows":[[section,where,what,unit,value],...],
 *    "notes":[[severity,text],...],"numbers":[[name,value],...]}
 *
 * A row that counts by its text has a sixth element. A double has the digits that give it back; what JSON lacks is the
 * string "nan", "inf" or "-inf". */
#include "calib/journal_lines.h"

#include <math.h>
#include <string.h>

enum { VALUES = 5 };

/* A double as JSON; the three that JSON lacks as strings. */
static void put_number(qz_json_writer *w, double value)
{
    if (isfinite(value))
        qz_json_put_double(w, NULL, value);
    else
        qz_json_put_string(w, NULL, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

static void put_rows(qz_json_writer *w, const qz_journal_layer *l)
{
    qz_json_begin_array(w, "rows");
    for (size_t i = 0; i < l->rows; i++) {
        const qz_report_row *r = &l->row[i];
        qz_json_begin_array(w, NULL);
        qz_json_put_string(w, NULL, r->section);
        qz_json_put_string(w, NULL, r->where);
        qz_json_put_string(w, NULL, r->what);
        qz_json_put_string(w, NULL, r->unit);
        put_number(w, r->value);
        if (r->text) qz_json_put_string(w, NULL, r->text);
        qz_json_end(w);
    }
    qz_json_end(w);
}

void qz_journal_put_layer(qz_json_writer *w, const qz_journal_layer *l)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_int(w, "layer", l->layer);
    qz_json_begin_array(w, "tensors");
    for (size_t i = 0; i < l->tensors; i++) {
        qz_json_begin_array(w, NULL);
        qz_json_put_string(w, NULL, l->tensor[i].name);
        qz_json_put_string(w, NULL, l->tensor[i].value);
        qz_json_end(w);
    }
    qz_json_end(w);
    put_rows(w, l);
    qz_json_begin_array(w, "notes");
    for (size_t i = 0; i < l->notes; i++) {
        qz_json_begin_array(w, NULL);
        qz_json_put_string(w, NULL, l->note[i].severity == QZ_WARN ? "warn" : "info");
        qz_json_put_string(w, NULL, l->note[i].text);
        qz_json_end(w);
    }
    qz_json_end(w);
    qz_json_begin_array(w, "numbers");
    for (size_t i = 0; i < l->numbers; i++) {
        qz_json_begin_array(w, NULL);
        qz_json_put_string(w, NULL, l->number[i].name);
        put_number(w, l->number[i].value);
        qz_json_end(w);
    }
    qz_json_end(w);
    qz_json_end(w);
}

void qz_journal_put_identity(qz_json_writer *w, const qz_journal_text *identity, size_t count)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "format", QZ_JOURNAL_FORMAT);
    for (size_t i = 0; i < count; i++) qz_json_put_string(w, identity[i].name, identity[i].value);
    qz_json_end(w);
}

static qz_status keep(const char **out, qz_arena *arena, const char *text)
{
    *out = qz_arena_strdup(arena, text);
    return *out ? QZ_OK : qz_arena_failed(arena);
}

static qz_status read_number(double *out, const qz_json_node *node)
{
    if (!qz_json_is(node, QZ_JSON_STRING)) return qz_json_number(node, "value", -INFINITY, INFINITY, out);
    const char *text = qz_json_text(node);
    *out = strcmp(text, "nan") == 0 ? NAN : strcmp(text, "inf") == 0 ? INFINITY : -INFINITY;
    return QZ_OK;
}

/* The elements of the array `node`, at least `least` and at most VALUES + 1 of them. */
static qz_status elements(const qz_json_node *out[VALUES + 1], const qz_json_node *node, size_t least)
{
    size_t n = 0;
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) < least || qz_json_count(node) > VALUES + 1)
        return QZ_FAIL(QZ_FORMAT, "an array of %zu values is expected", least);
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) out[n++] = c;
    while (n < VALUES + 1) out[n++] = NULL;
    return QZ_OK;
}

static qz_status read_text(const char **out, const qz_json_node *node, qz_arena *arena)
{
    const char *text;
    QZ_TRY(qz_json_string(node, "text", &text));
    return keep(out, arena, text);
}

static qz_status read_tensors(qz_journal_layer *l, const qz_json_node *array, qz_arena *arena)
{
    const qz_json_node *v[VALUES + 1];
    qz_journal_text *t = qz_arena_array(arena, qz_journal_text, qz_json_count(array));
    if (!t) return qz_arena_failed(arena);
    l->tensor = t;
    for (const qz_json_node *c = qz_json_first(array); c; c = qz_json_next(c), l->tensors++, t++) {
        QZ_TRY(elements(v, c, 2));
        QZ_TRY(read_text(&t->name, v[0], arena));
        QZ_TRY(read_text(&t->value, v[1], arena));
    }
    return QZ_OK;
}

static qz_status read_rows(qz_journal_layer *l, const qz_json_node *array, qz_arena *arena)
{
    const qz_json_node *v[VALUES + 1];
    qz_report_row *r = qz_arena_array(arena, qz_report_row, qz_json_count(array));
    if (!r) return qz_arena_failed(arena);
    l->row = r;
    for (const qz_json_node *c = qz_json_first(array); c; c = qz_json_next(c), l->rows++, r++) {
        QZ_TRY(elements(v, c, VALUES));
        *r = (qz_report_row){0};
        QZ_TRY(read_text(&r->section, v[0], arena));
        QZ_TRY(read_text(&r->where, v[1], arena));
        QZ_TRY(read_text(&r->what, v[2], arena));
        if (qz_json_is(v[3], QZ_JSON_STRING)) QZ_TRY(read_text(&r->unit, v[3], arena));
        QZ_TRY(read_number(&r->value, v[4]));
        if (v[5]) QZ_TRY(read_text(&r->text, v[5], arena));
    }
    return QZ_OK;
}

static qz_status read_notes(qz_journal_layer *l, const qz_json_node *array, qz_arena *arena)
{
    const qz_json_node *v[VALUES + 1];
    qz_journal_note *n = qz_arena_array(arena, qz_journal_note, qz_json_count(array));
    if (!n) return qz_arena_failed(arena);
    l->note = n;
    for (const qz_json_node *c = qz_json_first(array); c; c = qz_json_next(c), l->notes++, n++) {
        const char *severity;
        QZ_TRY(elements(v, c, 2));
        QZ_TRY(qz_json_string(v[0], "severity", &severity));
        n->severity = strcmp(severity, "warn") == 0 ? QZ_WARN : QZ_INFO;
        QZ_TRY(read_text(&n->text, v[1], arena));
    }
    return QZ_OK;
}

static qz_status read_numbers(qz_journal_layer *l, const qz_json_node *array, qz_arena *arena)
{
    const qz_json_node *v[VALUES + 1];
    qz_journal_number *n = qz_arena_array(arena, qz_journal_number, qz_json_count(array));
    if (!n) return qz_arena_failed(arena);
    l->number = n;
    for (const qz_json_node *c = qz_json_first(array); c; c = qz_json_next(c), l->numbers++, n++) {
        QZ_TRY(elements(v, c, 2));
        QZ_TRY(read_text(&n->name, v[0], arena));
        QZ_TRY(read_number(&n->value, v[1]));
    }
    return QZ_OK;
}

qz_status qz_journal_read_layer(qz_journal_layer *l, const qz_json_node *root, qz_arena *arena)
{
    int64_t index;
    *l = (qz_journal_layer){0};
    QZ_TRY(qz_json_int(qz_json_get(root, "layer"), "layer", -1, 1 << 20, &index));
    l->layer = (int)index;
    QZ_TRY(read_tensors(l, qz_json_get(root, "tensors"), arena));
    QZ_TRY(read_rows(l, qz_json_get(root, "rows"), arena));
    QZ_TRY(read_notes(l, qz_json_get(root, "notes"), arena));
    return read_numbers(l, qz_json_get(root, "numbers"), arena);
}

qz_status qz_journal_read_identity(const qz_journal_text **out, size_t *count, const qz_json_node *root,
                                   qz_arena *arena)
{
    qz_journal_text *t = qz_arena_array(arena, qz_journal_text, qz_json_count(root));
    if (!t) return qz_arena_failed(arena);
    *out = t;
    *count = 0;
    for (const qz_json_node *c = qz_json_first(root); c; c = qz_json_next(c)) {
        if (strcmp(qz_json_key(c), "end") == 0) continue;
        QZ_TRY(keep(&t->name, arena, qz_json_key(c)));
        QZ_TRY(read_text(&t->value, c, arena));
        t++;
        ++*count;
    }
    return QZ_OK;
}
