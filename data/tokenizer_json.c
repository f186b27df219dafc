/* Components of tokenizer.json: checked reading of members, with messages that say where in the file.
 *
 * A member that we do not know is refused rather than ignored: it might change ids. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer_impl.h"

qz_status qz_part_type(const char **out, const qz_json_node *part, const char *where)
{
    if (!qz_json_is(part, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an object with a type", where,
                       qz_json_type_name(qz_json_type_of(part)));
    return qz_part_string(out, part, where, "type", NULL);
}

static bool listed(const char *name, const char *names)
{
    size_t n = strlen(name);
    for (const char *p = names; *p;) {
        size_t word = strcspn(p, " ");
        if (word == n && !memcmp(p, name, n)) return true;
        p += word + strspn(p + word, " ");
    }
    return false;
}

qz_status qz_part_known(const qz_json_node *part, const char *where, const char *known)
{
    for (const qz_json_node *m = qz_json_first(part); m; m = qz_json_next(m))
        if (!listed(qz_json_key(m), known))
            return QZ_FAIL(QZ_UNSUPPORTED, "%s: option \"%s\" is not known; known: %s", where, qz_json_key(m), known);
    return QZ_OK;
}

qz_status qz_part_unknown(const char *where, const char *type, const char *known)
{
    return QZ_FAIL(QZ_UNSUPPORTED, "%s.type: \"%s\" is not known; known: %s", where, type, known);
}

static const qz_json_node *member(char name[QZ_WHERE_SIZE], const qz_json_node *part, const char *where,
                                  const char *key)
{
    snprintf(name, QZ_WHERE_SIZE, "%s.%s", where, key);
    const qz_json_node *node = qz_json_get(part, key);
    return qz_json_type_of(node) == QZ_JSON_NULL ? NULL : node;
}

qz_status qz_part_bool(bool *out, const qz_json_node *part, const char *where, const char *key, bool otherwise)
{
    char name[QZ_WHERE_SIZE];
    const qz_json_node *node = member(name, part, where, key);
    *out = otherwise;
    return node ? qz_json_bool(node, name, out) : QZ_OK;
}

qz_status qz_part_string(const char **out, const qz_json_node *part, const char *where, const char *key,
                         const char *otherwise)
{
    char name[QZ_WHERE_SIZE];
    const qz_json_node *node = member(name, part, where, key);
    *out = otherwise;
    return node || !otherwise ? qz_json_string(node, name, out) : QZ_OK;
}

qz_status qz_part_copy(const char **out, const qz_json_node *part, const char *where, const char *key, qz_arena *arena)
{
    const char *text;
    QZ_TRY(qz_part_string(&text, part, where, key, NULL));
    *out = qz_arena_strdup(arena, text);
    return *out ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_part_int(int64_t *out, const qz_json_node *part, const char *where, const char *key, int64_t low,
                      int64_t high)
{
    char name[QZ_WHERE_SIZE];
    const qz_json_node *node = member(name, part, where, key);
    return qz_json_int(node, name, low, high, out);
}

qz_status qz_part_array(const qz_json_node **out, const qz_json_node *part, const char *where, const char *key)
{
    char name[QZ_WHERE_SIZE];
    *out = member(name, part, where, key);
    if (qz_json_is(*out, QZ_JSON_ARRAY)) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an array", name, qz_json_type_name(qz_json_type_of(*out)));
}
