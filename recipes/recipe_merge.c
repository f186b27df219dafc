/* One JSON object laid over another (RFC 7396, JSON Merge Patch): members replace members, objects are merged, null
 * removes. One difference: an object that names a "method" is a choice of its own and replaces what was there as a
 * whole, since the options of one plug-in mean nothing to another. */
#include "recipes/recipe_reader.h"

void qz_recipe_put_node(qz_json_writer *w, const char *key, const qz_json_node *node)
{
    switch (qz_json_type_of(node)) {
    case QZ_JSON_NULL:
        qz_json_put_string(w, key, NULL);
        return;
    case QZ_JSON_BOOL:
        qz_json_put_bool(w, key, qz_json_true(node));
        return;
    case QZ_JSON_NUMBER:
        qz_json_put_double(w, key, qz_json_double(node));
        return;
    case QZ_JSON_STRING:
        qz_json_put_string(w, key, qz_json_text(node));
        return;
    case QZ_JSON_ARRAY:
        qz_json_begin_array(w, key);
        break;
    case QZ_JSON_OBJECT:
        qz_json_begin_object(w, key);
        break;
    }
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) qz_recipe_put_node(w, qz_json_key(c), c);
    qz_json_end(w);
}

void qz_recipe_put_merged(qz_json_writer *w, const char *key, const qz_json_node *base, const qz_json_node *change)
{
    if (qz_json_is(change, QZ_JSON_NULL)) return;
    if (!qz_json_is(change, QZ_JSON_OBJECT)) {
        qz_recipe_put_node(w, key, change);
        return;
    }
    if (!qz_json_is(base, QZ_JSON_OBJECT) || qz_json_get(change, "method")) base = NULL;
    qz_json_begin_object(w, key);
    for (const qz_json_node *c = qz_json_first(base); c; c = qz_json_next(c)) {
        const qz_json_node *other = qz_json_get(change, qz_json_key(c));
        if (other)
            qz_recipe_put_merged(w, qz_json_key(c), c, other);
        else
            qz_recipe_put_node(w, qz_json_key(c), c);
    }
    for (const qz_json_node *c = qz_json_first(change); c; c = qz_json_next(c))
        if (!base || !qz_json_get(base, qz_json_key(c))) qz_recipe_put_merged(w, qz_json_key(c), NULL, c);
    qz_json_end(w);
}

qz_status qz_recipe_writer_parse(qz_json **out, qz_json_writer *w)
{
    const char *text;
    size_t size;
    *out = NULL;
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) status = qz_json_parse(out, text, size);
    qz_json_writer_free(w);
    return status;
}
