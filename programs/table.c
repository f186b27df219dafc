/* Rows are kept in an arena and printed when the widths are known. Width counts code points, not bytes. */
#include "programs/table.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

qz_table qz_table_new(qz_arena *arena, int columns)
{
    return (qz_table){.arena = arena, .columns = columns, .left = {true}};
}

void qz_table_row_add(qz_table *t)
{
    qz_table_row *row = qz_arena_calloc(t->arena, sizeof *row);
    if (!row) {
        t->failed = true;
        return;
    }
    if (t->last)
        t->last->next = row;
    else
        t->first = row;
    t->last = row;
}

void qz_table_set(qz_table *t, int column, const char *format, ...)
{
    char text[1024];
    va_list args;
    if (t->failed) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    t->last->cell[column] = qz_arena_strdup(t->arena, text);
    if (!t->last->cell[column]) t->failed = true;
}

static int width_of(const char *text)
{
    int width = 0;
    for (; text && *text; text++) width += ((unsigned char)*text & 0xC0) != 0x80;
    return width;
}

static int last_column(const qz_table *t, const qz_table_row *row)
{
    int last = -1;
    for (int c = 0; c < t->columns; c++)
        if (row->cell[c] && *row->cell[c]) last = c;
    return last;
}

static void print_row(const qz_table *t, const qz_table_row *row, const int *width, FILE *out)
{
    int last = last_column(t, row);
    for (int c = 0; c <= last; c++) {
        const char *text = row->cell[c] ? row->cell[c] : "";
        int pad = width[c] - width_of(text);
        if (c > 0) fputs("  ", out);
        if (!t->left[c]) fprintf(out, "%*s", pad, "");
        fputs(text, out);
        if (t->left[c] && c < last) fprintf(out, "%*s", pad, "");
    }
    fputc('\n', out);
}

qz_status qz_table_print(const qz_table *t, FILE *out, const char *indent)
{
    int width[QZ_TABLE_COLUMNS] = {0};
    if (t->failed) return QZ_FAIL(QZ_MEMORY, "table: memory is short");
    for (const qz_table_row *row = t->first; row; row = row->next)
        for (int c = 0; c < t->columns; c++)
            if (width_of(row->cell[c]) > width[c]) width[c] = width_of(row->cell[c]);
    for (const qz_table_row *row = t->first; row; row = row->next) {
        fputs(last_column(t, row) < 0 ? "" : indent, out);
        print_row(t, row, width, out);
    }
    return QZ_OK;
}

const char *qz_text_bytes(char out[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 999.5 && unit < 4) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 32, "%.*f %s", unit > 0 && value < 99.95 ? 1 : 0, value, units[unit]);
    return out;
}

const char *qz_text_seconds(char out[32], double seconds)
{
    long whole = lround(seconds);
    if (seconds < 9.95)
        snprintf(out, 32, "%.2f s", seconds);
    else if (whole < 100)
        snprintf(out, 32, "%.1f s", seconds);
    else if (whole < 3600)
        snprintf(out, 32, "%ld min %ld s", whole / 60, whole % 60);
    else
        snprintf(out, 32, "%ld h %ld min", whole / 3600, whole % 3600 / 60);
    return out;
}
