/* --set path=value: the document is written out again with the value in place and parsed anew, so that what follows
 * sees one document and needs no second way of changing it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipes/recipe_reader.h"

enum { LONGEST_PATH = 16, LONGEST_PART = 128 };

typedef struct patch {
    const qz_override *override;
    const qz_json_node *value; /* NULL: remove */
} patch;

static qz_status put_patched(qz_json_writer *w, const char *key, const qz_json_node *node, const char *path,
                             const patch *p);

/* The path's first part into `part`; the rest, or NULL after the last one. */
static const char *split(char *part, const char *path)
{
    size_t length = strcspn(path, ".");
    snprintf(part, LONGEST_PART, "%.*s", (int)length, path);
    return path[length] ? path + length + 1 : NULL;
}

static qz_status patch_object(qz_json_writer *w, const char *key, const qz_json_node *node, const char *path,
                              const patch *p)
{
    char part[LONGEST_PART];
    const char *rest = split(part, path);
    bool found = false;
    qz_json_begin_object(w, key);
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) {
        if (strcmp(qz_json_key(c), part) != 0) {
            qz_recipe_put_node(w, qz_json_key(c), c);
            continue;
        }
        found = true;
        QZ_TRY(put_patched(w, part, c, rest, p));
    }
    if (!found && p->value) QZ_TRY(put_patched(w, part, NULL, rest, p));
    qz_json_end(w);
    return QZ_OK;
}

static qz_status patch_array(qz_json_writer *w, const char *key, const qz_json_node *node, const char *path,
                             const patch *p)
{
    char part[LONGEST_PART], *end;
    const char *rest = split(part, path);
    size_t count = qz_json_count(node), i = 0;
    errno = 0;
    unsigned long index = strtoul(part, &end, 10);
    if (part[0] < '0' || part[0] > '9' || *end || errno || index > count)
        return QZ_FAIL(QZ_ARG, "%s: \"%s\" is no index of an array with %zu elements (from 0; %zu appends)",
                       p->override->origin, part, count, count);
    qz_json_begin_array(w, key);
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c), i++) {
        if (i != index) qz_recipe_put_node(w, NULL, c);
        if (i == index) QZ_TRY(put_patched(w, NULL, c, rest, p));
    }
    if (index == count && p->value) QZ_TRY(put_patched(w, NULL, NULL, rest, p));
    qz_json_end(w);
    return QZ_OK;
}

/* Writes `node` with the patch at `path` below it (NULL: here). */
static qz_status put_patched(qz_json_writer *w, const char *key, const qz_json_node *node, const char *path,
                             const patch *p)
{
    if (!path) {
        if (p->value) qz_recipe_put_node(w, key, p->value);
        return QZ_OK;
    }
    bool makes_array = !node && strcspn(path, "0123456789") == 0; /* no key begins with a digit */
    if (makes_array || qz_json_is(node, QZ_JSON_ARRAY)) return patch_array(w, key, node, path, p);
    if (!node || qz_json_is(node, QZ_JSON_OBJECT)) return patch_object(w, key, node, path, p);
    char value[64];
    qz_json_print(node, value, sizeof value);
    return QZ_FAIL(QZ_ARG, "%s: \"%s\" is %s (%s), which has no members", p->override->origin, key ? key : "element",
                   qz_json_type_name(qz_json_type_of(node)), value);
}

static qz_status check_path(const qz_override *o)
{
    size_t parts = 1, length = 0;
    for (const char *c = o->path;; c++) {
        bool ends = *c == '.' || !*c;
        if (ends && length == 0)
            return QZ_FAIL(QZ_ARG, "%s: the path has an empty part; expected something like weights.group=64",
                           o->origin);
        if (!*c) break;
        length = ends ? 0 : length + 1;
        parts += ends;
        if (parts > LONGEST_PATH || length >= LONGEST_PART)
            return QZ_FAIL(QZ_ARG, "%s: the path is too long; at most %d parts of %d characters", o->origin,
                           LONGEST_PATH, LONGEST_PART - 1);
    }
    return QZ_OK;
}

/* The override's value as a document: JSON when it is JSON, else a string. */
static qz_status parse_value(qz_json **out, const qz_override *o)
{
    const char *v = o->value;
    if (!o->literal) {
        qz_status status = qz_json_parse(out, v, strlen(v));
        if (status != QZ_FORMAT) return status;
        if (*v && strchr("{[\"", *v)) return qz_error_context(QZ_ARG, "%s", o->origin);
    }
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_json_put_string(w, NULL, v);
    qz_status status = qz_recipe_writer_parse(out, w);
    return status == QZ_FORMAT ? qz_error_context(QZ_ARG, "%s", o->origin) : status;
}

static qz_status write_patched(qz_json **out, const qz_json_node *root, const patch *p)
{
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_status status = put_patched(w, NULL, root, p->override->path, p);
    if (status == QZ_OK) return qz_recipe_writer_parse(out, w);
    qz_json_writer_free(w);
    return status;
}

static qz_status apply(qz_json **doc, const qz_override *o)
{
    qz_json *value, *changed = NULL;
    QZ_TRY(check_path(o));
    QZ_TRY(parse_value(&value, o));
    const qz_json_node *node = qz_json_root(value);
    patch p = {o, qz_json_is(node, QZ_JSON_NULL) ? NULL : node};
    qz_status status = write_patched(&changed, qz_json_root(*doc), &p);
    qz_json_close(value);
    if (status != QZ_OK) return status;
    qz_json_close(*doc);
    *doc = changed;
    return QZ_OK;
}

qz_status qz_recipe_override(qz_json **doc, const qz_recipe_reader *r)
{
    if (!qz_json_is(qz_json_root(*doc), QZ_JSON_OBJECT)) return QZ_OK;
    for (int i = 0; i < r->count; i++) QZ_TRY(apply(doc, &r->overrides[i]));
    return QZ_OK;
}
