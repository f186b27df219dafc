/* JSON text -> a read-only tree, and the small edits that keep a text's form. The door to cJSON.
 *
 * What the library does not do is done here: errors carry line and column; duplicate keys, \u0000 in a string,
 * invalid UTF-8, text after the value, numbers beyond a double or of more than 63 characters, and nesting beyond 200
 * are refused; look-up in a large object is by hash. A number that must be an integer is checked to be one, below 2^53.
 *
 *     qz_json *doc;
 *     QZ_TRY_CTX(qz_json_parse(&doc, text, size), "%s", path);
 *     const qz_json_node *v = qz_json_get(qz_json_root(doc), "vocab_size");
 *     int64_t n;
 *     QZ_TRY(qz_json_int(v, "vocab_size", 1, 1 << 30, &n));
 *     qz_json_close(doc);
 */
#ifndef QZ_BASE_JSON_H
#define QZ_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

typedef struct qz_json qz_json;
typedef struct qz_json_node qz_json_node;

typedef enum qz_json_type {
    QZ_JSON_NULL,
    QZ_JSON_BOOL,
    QZ_JSON_NUMBER,
    QZ_JSON_STRING,
    QZ_JSON_ARRAY,
    QZ_JSON_OBJECT,
} qz_json_type;

/* `text` need not end in NUL. Message: "line 3, column 14: ...". */
QZ_NODISCARD qz_status qz_json_parse(qz_json **out, const char *text, size_t size);
void qz_json_close(qz_json *doc);
const qz_json_node *qz_json_root(const qz_json *doc);

qz_json_type qz_json_type_of(const qz_json_node *node); /* NULL pointer: QZ_JSON_NULL */
const char *qz_json_type_name(qz_json_type type);       /* "an object", "a string", ... for messages */
bool qz_json_is(const qz_json_node *node, qz_json_type type);

/* Member or NULL. Objects of more than a few members are indexed when parsed, so this is never a long scan. */
const qz_json_node *qz_json_get(const qz_json_node *object, const char *key);
/* Number of members or elements; 0 for anything else. */
size_t qz_json_count(const qz_json_node *node);
/* Iteration in file order over an array or object: for (c = qz_json_first(n); c; c = qz_json_next(c)). */
const qz_json_node *qz_json_first(const qz_json_node *node);
const qz_json_node *qz_json_next(const qz_json_node *node);
const char *qz_json_key(const qz_json_node *member); /* NULL for an array's element */

/* Unchecked values; call after checking the type. */
const char *qz_json_text(const qz_json_node *string);
double qz_json_double(const qz_json_node *number);
bool qz_json_true(const qz_json_node *node); /* the value is `true` */

/* Checked values: QZ_FORMAT with "<name>: found <value>, expected ..." when absent, of another type or out of range. */
QZ_NODISCARD qz_status qz_json_int(const qz_json_node *node, const char *name, int64_t low, int64_t high, int64_t *out);
QZ_NODISCARD qz_status qz_json_number(const qz_json_node *node, const char *name, double low, double high, double *out);
QZ_NODISCARD qz_status qz_json_string(const qz_json_node *node, const char *name, const char **out);
QZ_NODISCARD qz_status qz_json_bool(const qz_json_node *node, const char *name, bool *out);

/* The value printed on one line, cut to fit `size` (at least 16); for messages. */
void qz_json_print(const qz_json_node *node, char *out, size_t size);

/* Sets the top-level member `key` of the object in `text` to `value` (JSON text), leaving every other byte alone:
 * replaces the value in place, or adds the member at the end with the indentation of the first member.
 * The result is NUL-terminated, in `arena`. `value` NULL removes the member. `key` holds nothing that needs an escape.
 */
QZ_NODISCARD qz_status qz_json_text_set(char **out, const char *text, const char *key, const char *value,
                                        qz_arena *arena);

/* A growing JSON text. Errors stick and are reported by qz_json_writer_finish. Pretty: two spaces, one member a line.
 */
typedef struct qz_json_writer qz_json_writer;
QZ_NODISCARD qz_status qz_json_writer_new(qz_json_writer **out, bool pretty);
void qz_json_begin_object(qz_json_writer *w, const char *key); /* key NULL inside an array and at the top */
void qz_json_begin_array(qz_json_writer *w, const char *key);
void qz_json_end(qz_json_writer *w);
void qz_json_put_string(qz_json_writer *w, const char *key, const char *value); /* NULL value: null */
void qz_json_put_int(qz_json_writer *w, const char *key, int64_t value);
/* Shortest text that reads back as the same double; NaN and infinities become null. */
void qz_json_put_double(qz_json_writer *w, const char *key, double value);
void qz_json_put_bool(qz_json_writer *w, const char *key, bool value);
void qz_json_put_raw(qz_json_writer *w, const char *key, const char *json);
/* The finished text (NUL-terminated, ends in a newline when pretty), owned by the writer until it is freed. */
QZ_NODISCARD qz_status qz_json_writer_finish(qz_json_writer *w, const char **text, size_t *size);
void qz_json_writer_free(qz_json_writer *w);

#endif
