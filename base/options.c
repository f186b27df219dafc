/* Option values by name, and the nearest known name for messages. */
#include "base/options.h"

#include <assert.h>
#include <string.h>

qz_options qz_options_default(const qz_option *table)
{
    qz_options o = {.table = table};
    for (int i = 0; table && table[i].type != QZ_OPT_END; i++) {
        assert(i < QZ_OPTIONS_MAX);
        o.value[i] = table[i].fallback;
    }
    return o;
}

int qz_options_index(const qz_option *table, const char *name)
{
    for (int i = 0; table && table[i].type != QZ_OPT_END; i++)
        if (strcmp(table[i].name, name) == 0) return i;
    return -1;
}

static double value_of(const qz_options *o, const char *name, qz_option_type type)
{
    int i = qz_options_index(o->table, name);
    assert(i >= 0 && o->table[i].type == type);
    (void)type;
    return o->value[i];
}

int64_t qz_options_int(const qz_options *o, const char *name)
{
    return (int64_t)value_of(o, name, QZ_OPT_INT);
}

double qz_options_number(const qz_options *o, const char *name)
{
    return value_of(o, name, QZ_OPT_NUMBER);
}

bool qz_options_bool(const qz_options *o, const char *name)
{
    return value_of(o, name, QZ_OPT_BOOL) != 0;
}

const char *qz_options_choice(const qz_options *o, const char *name)
{
    int i = qz_options_index(o->table, name);
    return o->table[i].choices[(int)value_of(o, name, QZ_OPT_CHOICE)];
}

enum { NAME_MAX_LENGTH = 63 };

/* Levenshtein's distance with one row of the table. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_LENGTH + 1], n = strlen(b);
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

const char *qz_nearest_name(const char *name, const char *const *list)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 2 + 2; /* beyond this a suggestion confuses */
    for (; *list; list++) {
        if (strlen(*list) > NAME_MAX_LENGTH) continue;
        size_t d = edit_distance(name, *list);
        if (d < best) {
            best = d;
            nearest = *list;
        }
    }
    return nearest;
}
