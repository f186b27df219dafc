/* A plug-in as a recipe names it: "clip", or {"method": "clip", "grid": 40}. Options are checked by the plug-in's own
 * table. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

const char **qz_plugin_names(const qz_plugins *list, qz_arena *arena)
{
    const char **names = qz_arena_array(arena, const char *, list->count + 1);
    if (!names) return NULL;
    for (size_t i = 0; i < list->count; i++) names[i] = list->rows[i]->name;
    names[list->count] = NULL;
    return names;
}

static qz_status choose(reader *r, const char *path, const qz_plugins *list, const char *name, qz_choice *out)
{
    int index = qz_plugins_find(list, name);
    if (index < 0) {
        const char **known = qz_plugin_names(list, r->arena);
        if (!known) return qz_arena_failed(r->arena);
        return qz_recipe_fail_name(r, path, list->kind, name, known);
    }
    const qz_plugin *plugin = list->rows[index];
    *out = (qz_choice){plugin->name, index, qz_options_default(plugin->options)};
    return QZ_OK;
}

static qz_status unknown_option(reader *r, const char *path, const char *plugin, const qz_option *table,
                                const char *key)
{
    const char *known[QZ_OPTIONS_MAX + 2];
    size_t count = 0;
    known[count++] = "method";
    for (const qz_option *o = table; o && o->type != QZ_OPT_END && count <= QZ_OPTIONS_MAX; o++)
        known[count++] = o->name;
    known[count] = NULL;
    char kind[96];
    snprintf(kind, sizeof kind, "option of \"%s\"", plugin);
    return qz_recipe_fail_name(r, path, kind, key, known);
}

/* The names of a choice, for messages: "a", "b" or "c" need no grammar, so they are listed. */
static qz_status read_name_option(reader *r, const char *path, const qz_option *o, const qz_json_node *node,
                                  double *out)
{
    if (!qz_json_is(node, QZ_JSON_STRING)) return qz_recipe_fail_type(r, path, node, "a name");
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], qz_json_text(node)) != 0) continue;
        *out = i;
        return QZ_OK;
    }
    return qz_recipe_fail_name(r, path, o->name, qz_json_text(node), o->choices);
}

static qz_status read_option(reader *r, const char *path, const qz_option *o, const qz_json_node *node, double *out)
{
    if (o->type == QZ_OPT_CHOICE) return read_name_option(r, path, o, node, out);
    if (o->type == QZ_OPT_BOOL) {
        if (!qz_json_is(node, QZ_JSON_BOOL)) return qz_recipe_fail_type(r, path, node, "true or false");
        *out = qz_json_true(node);
        return QZ_OK;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "%s from %g to %g", o->type == QZ_OPT_INT ? "an integer" : "a number", o->low,
             o->high);
    double v = qz_json_is(node, QZ_JSON_NUMBER) ? qz_json_double(node) : NAN;
    bool whole = o->type != QZ_OPT_INT || v == floor(v);
    if (!(v >= o->low && v <= o->high) || !whole) return qz_recipe_fail_type(r, path, node, expected);
    *out = v;
    return QZ_OK;
}

static qz_status read_options(reader *r, const char *path, const qz_json_node *object, qz_choice *choice)
{
    for (const qz_json_node *c = qz_json_first(object); c; c = qz_json_next(c)) {
        const char *key = qz_json_key(c);
        char full[256];
        if (strcmp(key, "method") == 0) continue;
        snprintf(full, sizeof full, "%s.%s", path, key);
        const qz_option *table = choice->options.table;
        int i = table ? qz_options_index(table, key) : -1;
        if (i < 0) return unknown_option(r, full, choice->name, table, key);
        QZ_TRY(read_option(r, full, &table[i], c, &choice->options.value[i]));
    }
    return QZ_OK;
}

/* No node: the first of the list, which is its default. */
qz_status qz_recipe_read_choice(reader *r, const char *path, const qz_plugins *list, const qz_json_node *node,
                                qz_choice *out)
{
    if (!node && list->count > 0) return choose(r, path, list, list->rows[0]->name, out);
    if (qz_json_is(node, QZ_JSON_STRING)) return choose(r, path, list, qz_json_text(node), out);
    if (!qz_json_is(node, QZ_JSON_OBJECT))
        return qz_recipe_fail_type(r, path, node, "a name, or an object with \"method\" and options");
    const qz_json_node *method = qz_json_get(node, "method");
    char full[256];
    snprintf(full, sizeof full, "%s.method", path);
    if (!method) {
        const char **known = qz_plugin_names(list, r->arena);
        if (!known) return qz_arena_failed(r->arena);
        return qz_recipe_fail(r, full, "missing: the name of the %s, for example \"%s\"", list->kind,
                              known[0] ? known[0] : "");
    }
    if (!qz_json_is(method, QZ_JSON_STRING)) return qz_recipe_fail_type(r, full, method, "a name");
    QZ_TRY(choose(r, full, list, qz_json_text(method), out));
    return read_options(r, path, node, out);
}
