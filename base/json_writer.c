/* Writing JSON: a growing buffer and a stack of open brackets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_scan.h"
#include "base/utf8.h"

enum { DEPTH = QZ_JSON_DEPTH };

struct qz_json_writer {
    char *text;
    size_t size, capacity;
    bool pretty, failed, too_deep, finished;
    int depth;
    char close[DEPTH];
    bool used[DEPTH + 1]; /* something stands at this level already */
};

qz_status qz_json_writer_new(qz_json_writer **out, bool pretty)
{
    *out = qz_calloc(1, sizeof **out);
    if (!*out) return QZ_FAIL(QZ_MEMORY, "out of memory: a JSON writer");
    (*out)->pretty = pretty;
    return QZ_OK;
}

void qz_json_writer_free(qz_json_writer *w)
{
    if (!w) return;
    qz_free(w->text);
    qz_free(w);
}

static void put(qz_json_writer *w, const char *text, size_t n)
{
    if (w->failed) return;
    if (w->size + n + 1 > w->capacity) {
        size_t capacity = (w->size + n + 1) * 2;
        char *grown = qz_realloc(w->text, capacity);
        if (!grown) {
            w->failed = true;
            return;
        }
        w->text = grown;
        w->capacity = capacity;
    }
    memcpy(w->text + w->size, text, n);
    w->size += n;
    w->text[w->size] = '\0';
}

static void put_text(qz_json_writer *w, const char *text)
{
    put(w, text, strlen(text));
}

/* The escape of a character that needs one, else NULL. */
static const char *escape_of(char c, char code[8])
{
    static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; i < sizeof escapes - 1; i += 2)
        if (escapes[i] == c) {
            snprintf(code, 8, "\\%c", escapes[i + 1]);
            return code;
        }
    if ((unsigned char)c >= 0x20) return NULL;
    snprintf(code, 8, "\\u%04x", c);
    return code;
}

static void put_escaped(qz_json_writer *w, const char *s, size_t n)
{
    size_t start = 0;
    char code[8];
    for (size_t i = 0; i < n; i++) {
        const char *escape = escape_of(s[i], code);
        if (!escape) continue;
        put(w, s + start, i - start);
        put_text(w, escape);
        start = i + 1;
    }
    put(w, s + start, n - start);
}

/* Bytes that are not UTF-8 (a file's name may hold them) become U+FFFD, so that the text is always JSON. */
static void put_quoted(qz_json_writer *w, const char *s)
{
    const char *end = s + strlen(s);
    put(w, "\"", 1);
    while (s < end) {
        size_t n = qz_utf8_check(s, (size_t)(end - s));
        put_escaped(w, s, n);
        s += n;
        if (s == end) break;
        put(w, "\xef\xbf\xbd", 3);
        s++;
    }
    put(w, "\"", 1);
}

static void new_line(qz_json_writer *w)
{
    if (!w->pretty) return;
    put(w, "\n", 1);
    for (int i = 0; i < w->depth; i++) put(w, "  ", 2);
}

/* Comma, line and key in front of a value. */
static void lead_in(qz_json_writer *w, const char *key)
{
    if (w->used[w->depth]) put(w, ",", 1);
    if (w->depth) new_line(w);
    w->used[w->depth] = true;
    if (!key) return;
    put_quoted(w, key);
    put_text(w, w->pretty ? ": " : ":");
}

static void begin(qz_json_writer *w, const char *key, char open, char close)
{
    lead_in(w, key);
    put(w, &open, 1);
    if (w->depth >= DEPTH) {
        w->failed = w->too_deep = true;
        return;
    }
    w->close[w->depth++] = close;
    w->used[w->depth] = false;
}

void qz_json_begin_object(qz_json_writer *w, const char *key)
{
    begin(w, key, '{', '}');
}

void qz_json_begin_array(qz_json_writer *w, const char *key)
{
    begin(w, key, '[', ']');
}

void qz_json_end(qz_json_writer *w)
{
    if (!w->depth) return;
    bool used = w->used[w->depth--];
    if (used) new_line(w);
    put(w, &w->close[w->depth], 1);
}

void qz_json_put_raw(qz_json_writer *w, const char *key, const char *json)
{
    lead_in(w, key);
    put_text(w, json);
}

void qz_json_put_string(qz_json_writer *w, const char *key, const char *value)
{
    if (!value) {
        qz_json_put_raw(w, key, "null");
        return;
    }
    lead_in(w, key);
    put_quoted(w, value);
}

void qz_json_put_int(qz_json_writer *w, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    qz_json_put_raw(w, key, text);
}

void qz_json_format_number(char out[QZ_JSON_NUMBER_TEXT], double value)
{
    strcpy(out, "null");
    for (int digits = 15; isfinite(value) && digits <= 17; digits++) {
        snprintf(out, QZ_JSON_NUMBER_TEXT, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
}

void qz_json_put_double(qz_json_writer *w, const char *key, double value)
{
    char text[QZ_JSON_NUMBER_TEXT];
    qz_json_format_number(text, value);
    qz_json_put_raw(w, key, text);
}

void qz_json_put_bool(qz_json_writer *w, const char *key, bool value)
{
    qz_json_put_raw(w, key, value ? "true" : "false");
}

qz_status qz_json_writer_finish(qz_json_writer *w, const char **text, size_t *size)
{
    while (w->depth) qz_json_end(w);
    put(w, "\n", w->pretty && !w->finished);
    w->finished = true;
    if (w->too_deep) return QZ_FAIL(QZ_ARG, "JSON text nested more than %d deep cannot be written", DEPTH);
    if (w->failed) return QZ_FAIL(QZ_MEMORY, "out of memory: JSON text of %zu bytes", w->size);
    *text = w->text;
    *size = w->size;
    return QZ_OK;
}
