/* Editing JSON text in place: everything that is not the changed member keeps its bytes. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/json_scan.h"

/* Where a top-level member lies in the text. */
typedef struct member {
    size_t start, value, end; /* of the key's quote, of the value, behind the value */
    bool found, last;
} member;

/* What a walk over the members of an object finds out. */
typedef struct layout {
    member wanted;
    size_t open, close;    /* of the braces */
    size_t previous_end;   /* behind the value before the wanted one, or `open` + 1 */
    size_t first_start;    /* of the first key; `close` when there is none */
    size_t last_end;       /* behind the last value */
    int count;
} layout;

static bool key_is(const char *text, size_t at, const char *key)
{
    size_t n = strlen(key);
    return strncmp(text + at + 1, key, n) == 0 && text[at + 1 + n] == '"';
}

static void walk(layout *l, const char *text, const char *key)
{
    memset(l, 0, sizeof *l);
    l->open = qz_json_skip_space(text, 0);
    size_t at = qz_json_skip_space(text, l->open + 1), before = l->open + 1;
    l->first_start = at;
    while (text[at] != '}') {
        size_t start = at, colon = qz_json_skip_space(text, qz_json_skip_value(text, at));
        size_t value = qz_json_skip_space(text, colon + 1), end = qz_json_skip_value(text, value);
        at = qz_json_skip_space(text, end);
        if (key_is(text, start, key)) {
            l->wanted = (member){start, value, end, true, text[at] == '}'};
            l->previous_end = before;
        }
        before = end;
        l->last_end = end;
        l->count++;
        if (text[at] == ',') at = qz_json_skip_space(text, at + 1);
    }
    l->close = at;
}

/* `value` with every line after the first indented by `indent` spaces more. */
static char *indented(const char *value, size_t indent, qz_arena *arena)
{
    size_t lines = 0, n = strlen(value);
    for (size_t i = 0; i < n; i++) lines += value[i] == '\n';
    char *out = qz_arena_alloc(arena, n + lines * indent + 1), *p = out;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        *p++ = value[i];
        if (value[i] != '\n') continue;
        memset(p, ' ', indent);
        p += indent;
    }
    *p = '\0';
    return out;
}

/* Columns between the line's start and `at`, when only white space lies there; else 0. */
static size_t indentation(const char *text, size_t at)
{
    size_t start = at;
    while (start > 0 && text[start - 1] == ' ') start--;
    return start > 0 && text[start - 1] == '\n' ? at - start : 0;
}

/* text[0, from) + middle + text[to, ...) */
static char *splice(const char *text, size_t from, size_t to, const char *middle, qz_arena *arena)
{
    return qz_arena_printf(arena, "%.*s%s%s", (int)from, text, middle, text + to);
}

static char *remove_member(const char *text, const layout *l, qz_arena *arena)
{
    if (!l->wanted.found) return qz_arena_strdup(arena, text);
    if (l->wanted.last) return splice(text, l->previous_end, l->wanted.end, "", arena);
    size_t comma = qz_json_skip_space(text, l->wanted.end);
    return splice(text, l->wanted.start, qz_json_skip_space(text, comma + 1), "", arena);
}

static char *add_member(const char *text, const layout *l, const char *key, const char *value, qz_arena *arena)
{
    size_t indent = l->count ? indentation(text, l->first_start) : 2;
    char *fitted = indented(value, indent, arena), *middle;
    if (!fitted) return NULL;
    bool lines = !l->count || indent > 0;
    if (lines)
        middle = qz_arena_printf(arena, "%s\n%*s\"%s\": %s%s", l->count ? "," : "", (int)indent, "", key, fitted,
                                 l->count ? "" : "\n");
    else
        middle = qz_arena_printf(arena, ", \"%s\": %s", key, fitted);
    if (!middle) return NULL;
    return l->count ? splice(text, l->last_end, l->last_end, middle, arena) : splice(text, l->open + 1, l->close, middle, arena);
}

qz_status qz_json_text_set(char **out, const char *text, const char *key, const char *value, qz_arena *arena)
{
    layout l;
    QZ_TRY(qz_json_scan(text, strlen(text)));
    if (text[qz_json_skip_space(text, 0)] != '{') return QZ_FAIL(QZ_FORMAT, "the text is not an object");
    walk(&l, text, key);
    if (!value)
        *out = remove_member(text, &l, arena);
    else if (l.wanted.found) {
        char *fitted = indented(value, indentation(text, l.wanted.start), arena);
        *out = fitted ? splice(text, l.wanted.value, l.wanted.end, fitted, arena) : NULL;
    } else
        *out = add_member(text, &l, key, value, arena);
    return *out ? QZ_OK : qz_arena_failed(arena);
}
