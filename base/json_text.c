/* Editing JSON text in place: everything that is not the changed member keeps its bytes.
 *
 * The text is parsed first, so the walk below meets only well-formed objects without duplicate keys; the parsed members
 * stand in the order of the text and give the keys with their escapes undone. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/json_scan.h"

/* What a walk over the members of an object finds out; all are offsets into the text. */
typedef struct layout {
    bool found, last;              /* the wanted member is there; it is the last one */
    size_t start, value, end;      /* of the wanted member: its key's quote, its value, behind its value */
    size_t previous_end;           /* behind the value before the wanted one, or behind the brace */
    size_t open, close;            /* of the braces */
    size_t first_start, first_end; /* of the first key, and behind its quote */
    size_t last_end;               /* behind the last value */
    size_t count;
} layout;

static void note_wanted(layout *l, size_t start, size_t value, size_t end, bool last)
{
    l->found = true;
    l->last = last;
    l->start = start;
    l->value = value;
    l->end = end;
    l->previous_end = l->count ? l->last_end : l->open + 1;
}

static void walk(layout *l, const char *text, size_t size, const qz_json *doc, const char *key)
{
    memset(l, 0, sizeof *l);
    l->open = qz_json_skip_space(text, 0);
    size_t at = l->open + 1; /* behind the brace, then behind commas */
    for (const qz_json_node *n = qz_json_first(qz_json_root(doc)); n; n = qz_json_next(n)) {
        size_t start = qz_json_skip_space(text, at), key_end = qz_json_skip_value(text, size, start);
        size_t value = qz_json_skip_space(text, qz_json_skip_space(text, key_end) + 1);
        size_t end = qz_json_skip_value(text, size, value);
        if (strcmp(qz_json_key(n), key) == 0) note_wanted(l, start, value, end, !qz_json_next(n));
        if (!l->count++) {
            l->first_start = start;
            l->first_end = key_end;
        }
        l->last_end = end;
        at = qz_json_skip_space(text, end) + 1;
    }
    l->close = l->count ? at - 1 : qz_json_skip_space(text, at);
}

/* How the lines of the text begin: the line break and the indentation, taken from the text; length 0 when the member at
 * `at` does not begin a line. */
typedef struct line_start {
    const char *text;
    size_t length;
} line_start;

static line_start line_start_of(const char *text, size_t at)
{
    size_t start = at;
    while (start > 0 && (text[start - 1] == ' ' || text[start - 1] == '\t')) start--;
    if (start == 0 || text[start - 1] != '\n') return (line_start){"", 0};
    start -= start > 1 && text[start - 2] == '\r' ? 2 : 1;
    return (line_start){text + start, at - start};
}

/* `value` with `lead` in place of every line break. */
static char *indented(const char *value, line_start lead, qz_arena *arena)
{
    size_t breaks = 0, n = strlen(value);
    for (size_t i = 0; i < n; i++) breaks += value[i] == '\n';
    char *out = qz_arena_alloc(arena, n + breaks * lead.length + 1), *p = out;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (value[i] == '\n' && lead.length) {
            memcpy(p, lead.text, lead.length);
            p += lead.length;
        } else {
            *p++ = value[i];
        }
    }
    *p = '\0';
    return out;
}

/* text[0, from) + middle + text[to, size) */
static char *splice(const char *text, size_t size, size_t from, size_t to, const char *middle, qz_arena *arena)
{
    size_t n = strlen(middle);
    char *out = qz_arena_alloc(arena, from + n + size - to + 1);
    if (!out) return NULL;
    memcpy(out, text, from);
    memcpy(out + from, middle, n);
    memcpy(out + from + n, text + to, size - to + 1);
    return out;
}

static char *remove_member(const char *text, size_t size, const layout *l, qz_arena *arena)
{
    if (!l->found) return qz_arena_strdup(arena, text);
    if (l->last) return splice(text, size, l->previous_end, l->end, "", arena);
    size_t comma = qz_json_skip_space(text, l->end);
    return splice(text, size, l->start, qz_json_skip_space(text, comma + 1), "", arena);
}

static char *replace_value(const char *text, size_t size, const layout *l, const char *value, qz_arena *arena)
{
    char *fitted = indented(value, line_start_of(text, l->start), arena);
    return fitted ? splice(text, size, l->value, l->end, fitted, arena) : NULL;
}

static char *add_first(const char *text, size_t size, const layout *l, const char *key, const char *value,
                       qz_arena *arena)
{
    char *fitted = indented(value, (line_start){"\n  ", 3}, arena);
    char *middle = fitted ? qz_arena_printf(arena, "\n  \"%s\": %s\n", key, fitted) : NULL;
    return middle ? splice(text, size, l->open + 1, l->close, middle, arena) : NULL;
}

static char *add_last(const char *text, size_t size, const layout *l, const char *key, const char *value,
                      qz_arena *arena)
{
    line_start lead = line_start_of(text, l->first_start);
    const char *fitted = indented(value, lead, arena);
    const char *gap = text[qz_json_skip_space(text, l->first_end) + 1] == ' ' ? " " : "";
    const char *between = lead.length ? "" : gap;
    if (!fitted) return NULL;
    char *middle = qz_arena_printf(arena, ",%s%.*s\"%s\":%s%s", between, (int)lead.length, lead.text, key, gap, fitted);
    return middle ? splice(text, size, l->last_end, l->last_end, middle, arena) : NULL;
}

qz_status qz_json_text_set(char **out, const char *text, const char *key, const char *value, qz_arena *arena)
{
    layout l;
    qz_json *doc;
    size_t size = strlen(text);
    assert(!key[strcspn(key, "\"\\\n")]);
    if (value) QZ_TRY_CTX(qz_json_scan(value, strlen(value)), "the new value of \"%s\"", key);
    QZ_TRY(qz_json_parse(&doc, text, size));
    bool object = qz_json_is(qz_json_root(doc), QZ_JSON_OBJECT);
    if (object) walk(&l, text, size, doc, key);
    qz_json_close(doc);
    if (!object) return QZ_FAIL(QZ_FORMAT, "the text is not an object");
    if (!value)
        *out = remove_member(text, size, &l, arena);
    else if (l.found)
        *out = replace_value(text, size, &l, value, arena);
    else
        *out = (l.count ? add_last : add_first)(text, size, &l, key, value, arena);
    return *out ? QZ_OK : qz_arena_failed(arena);
}
