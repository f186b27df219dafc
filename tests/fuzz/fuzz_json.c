/* Any bytes as JSON: an error, or a tree that writes out as JSON of the same content, and whose text can be edited. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) abort();
}

/* Writes the tree out again; on the way every member must be found by its key. */
static void copy(qz_json_writer *w, const qz_json_node *node, const char *key)
{
    char line[40];
    qz_json_print(node, line, sizeof line);
    must(!strchr(line, '\n'));
    qz_json_type type = qz_json_type_of(node);
    if (type == QZ_JSON_STRING) qz_json_put_string(w, key, qz_json_text(node));
    if (type == QZ_JSON_NUMBER) qz_json_put_double(w, key, qz_json_double(node));
    if (type == QZ_JSON_BOOL) qz_json_put_bool(w, key, qz_json_true(node));
    if (type == QZ_JSON_NULL) qz_json_put_string(w, key, NULL);
    if (type != QZ_JSON_ARRAY && type != QZ_JSON_OBJECT) return;
    (type == QZ_JSON_OBJECT ? qz_json_begin_object : qz_json_begin_array)(w, key);
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) {
        if (type == QZ_JSON_OBJECT) must(qz_json_get(node, qz_json_key(c)) == c);
        copy(w, c, qz_json_key(c));
    }
    qz_json_end(w);
}

static char *written(const qz_json *doc, bool pretty)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    must(qz_json_writer_new(&w, pretty) == QZ_OK);
    copy(w, qz_json_root(doc), NULL);
    must(qz_json_writer_finish(w, &text, &size) == QZ_OK && size == strlen(text));
    char *kept = qz_strdup(text);
    must(kept != NULL);
    qz_json_writer_free(w);
    return kept;
}

static void check_written(const qz_json *doc)
{
    qz_json *again;
    char *plain = written(doc, false), *pretty = written(doc, true);
    must(qz_json_parse(&again, pretty, strlen(pretty)) == QZ_OK);
    char *plain_again = written(again, false);
    must(strcmp(plain, plain_again) == 0);
    qz_json_close(again);
    qz_free(plain);
    qz_free(pretty);
    qz_free(plain_again);
}

/* Sets and then removes a member; all others must stay. */
static void check_edits(const char *text, size_t before, const char *key, qz_arena *arena)
{
    char *with, *without;
    qz_json *doc;
    must(qz_json_text_set(&with, text, key, "{\n  \"x\": [1]\n}", arena) == QZ_OK);
    must(qz_json_parse(&doc, with, strlen(with)) == QZ_OK);
    must(qz_json_is(qz_json_get(qz_json_root(doc), key), QZ_JSON_OBJECT));
    size_t count = qz_json_count(qz_json_root(doc));
    must(count == before || count == before + 1);
    qz_json_close(doc);
    must(qz_json_text_set(&without, with, key, NULL, arena) == QZ_OK);
    must(qz_json_parse(&doc, without, strlen(without)) == QZ_OK);
    must(qz_json_count(qz_json_root(doc)) == count - 1 && !qz_json_get(qz_json_root(doc), key));
    qz_json_close(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qz_json *doc;
    qz_arena *arena;
    if (qz_json_parse(&doc, (const char *)data, size) != QZ_OK) return 0;
    check_written(doc);
    if (qz_json_is(qz_json_root(doc), QZ_JSON_OBJECT) && qz_arena_new(&arena, "fuzz") == QZ_OK) {
        size_t count = qz_json_count(qz_json_root(doc));
        char *text = qz_arena_alloc(arena, size + 1);
        must(text != NULL);
        memcpy(text, data, size);
        text[size] = '\0';
        check_edits(text, count, "a", arena);
        check_edits(text, count, "dtype", arena);
        qz_arena_free(arena);
    }
    qz_json_close(doc);
    return 0;
}
