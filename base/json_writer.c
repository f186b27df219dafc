/* Writing JSON: a growing buffer and a stack of open brackets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { DEPTH = 64 };

struct qz_json_writer {
    char *text;
    size_t size, capacity;
    bool pretty, failed;
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

static void put_quoted(qz_json_writer *w, const char *s)
{
    static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    put(w, "\"", 1);
    for (; *s; s++) {
        const char *e = NULL;
        for (size_t i = 0; i < sizeof escapes - 1 && !e; i += 2)
            if (escapes[i] == *s) e = escapes + i + 1;
        char code[8];
        if (e)
            snprintf(code, sizeof code, "\\%c", *e);
        else if ((unsigned char)*s < 0x20)
            snprintf(code, sizeof code, "\\u%04x", *s);
        else
            snprintf(code, sizeof code, "%c", *s);
        put_text(w, code);
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
        w->failed = true;
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

void qz_json_put_double(qz_json_writer *w, const char *key, double value)
{
    char text[40] = "null";
    for (int digits = 15; isfinite(value) && digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    qz_json_put_raw(w, key, text);
}

void qz_json_put_bool(qz_json_writer *w, const char *key, bool value)
{
    qz_json_put_raw(w, key, value ? "true" : "false");
}

qz_status qz_json_writer_finish(qz_json_writer *w, const char **text, size_t *size)
{
    while (w->depth) qz_json_end(w);
    if (w->pretty) put(w, "\n", 1);
    if (w->failed) return QZ_FAIL(QZ_MEMORY, "out of memory: JSON text of %zu bytes", w->size);
    *text = w->text;
    *size = w->size;
    return QZ_OK;
}
