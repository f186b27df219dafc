/* Rows and notes in growing arrays, their strings in an arena. */
#include "base/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"

typedef struct note {
    qz_severity severity;
    const char *text;
} note;

struct qz_report {
    qz_arena *strings;
    qz_report_row *rows;
    note *notes;
    size_t count, capacity, note_count, note_capacity;
    qz_status status;
};

qz_status qz_report_new(qz_report **out)
{
    *out = NULL;
    qz_report *r = qz_calloc(1, sizeof *r);
    if (!r) return QZ_FAIL(QZ_MEMORY, "out of memory: a report");
    qz_status status = qz_arena_new(&r->strings, "report");
    if (status != QZ_OK) {
        qz_free(r);
        return status;
    }
    *out = r;
    return QZ_OK;
}

void qz_report_free(qz_report *r)
{
    if (!r) return;
    qz_arena_free(r->strings);
    qz_free(r->rows);
    qz_free(r->notes);
    qz_free(r);
}

/* Room for one more element; NULL when there is none, which the report remembers. */
static void *room(qz_report *r, void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity) return array;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    void *grown = qz_realloc(array, wanted * size);
    if (grown)
        *capacity = wanted;
    else
        r->status = QZ_MEMORY;
    return grown;
}

static const char *keep(qz_report *r, const char *text)
{
    const char *copy = text ? qz_arena_strdup(r->strings, text) : NULL;
    if (text && !copy) r->status = QZ_MEMORY;
    return copy;
}

static void add_row(qz_report *r, qz_report_row row)
{
    qz_report_row *rows = room(r, r->rows, r->count, &r->capacity, sizeof *rows);
    if (!rows) return;
    r->rows = rows;
    row.section = keep(r, row.section);
    row.where = keep(r, row.where ? row.where : "");
    row.what = keep(r, row.what);
    row.unit = keep(r, row.unit);
    row.text = keep(r, row.text);
    if (r->status == QZ_OK) rows[r->count++] = row;
}

void qz_report_add(qz_report *r, const char *section, const char *where, const char *what, double value,
                   const char *unit)
{
    add_row(r, (qz_report_row){section, where, what, unit, value, NULL});
}

void qz_report_text(qz_report *r, const char *section, const char *where, const char *what, const char *text)
{
    add_row(r, (qz_report_row){section, where, what, "", 0, text});
}

void qz_report_note(qz_report *r, qz_severity severity, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    note *notes = room(r, r->notes, r->note_count, &r->note_capacity, sizeof *notes);
    if (!notes) return;
    r->notes = notes;
    const char *copy = keep(r, text);
    if (copy) notes[r->note_count++] = (note){severity, copy};
}

qz_status qz_report_status(const qz_report *r)
{
    return r->status == QZ_OK ? QZ_OK : QZ_FAIL(QZ_MEMORY, "out of memory: the report lost rows");
}

size_t qz_report_count(const qz_report *r)
{
    return r->count;
}

const qz_report_row *qz_report_row_at(const qz_report *r, size_t i)
{
    return &r->rows[i];
}

const qz_report_row *qz_report_find(const qz_report *r, const char *section, const char *where, const char *what)
{
    for (size_t i = 0; i < r->count; i++) {
        const qz_report_row *row = &r->rows[i];
        if (strcmp(row->section, section) == 0 && (!where || strcmp(row->where, where) == 0) &&
            strcmp(row->what, what) == 0)
            return row;
    }
    return NULL;
}

size_t qz_report_notes(const qz_report *r)
{
    return r->note_count;
}

const char *qz_report_note_at(const qz_report *r, size_t i, qz_severity *severity)
{
    *severity = r->notes[i].severity;
    return r->notes[i].text;
}
