/* The table and the catalog -> JSON Schema (draft 2020-12), so that editors complete and check recipes. */
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

static void put_bound(qz_json_writer *w, const char *key, double v)
{
    if (v == (double)(int64_t)v)
        qz_json_put_int(w, key, (int64_t)v);
    else
        qz_json_put_double(w, key, v);
}

static void put_range(qz_json_writer *w, const char *type, double low, double high)
{
    qz_json_put_string(w, "type", type);
    put_bound(w, "minimum", low);
    put_bound(w, "maximum", high);
}

static void put_option(qz_json_writer *w, const qz_option *o)
{
    qz_json_begin_object(w, o->name);
    qz_json_put_string(w, "description", o->help);
    if (o->type == QZ_OPT_CHOICE) {
        qz_json_begin_array(w, "enum");
        for (int i = 0; o->choices[i]; i++) qz_json_put_string(w, NULL, o->choices[i]);
        qz_json_end(w);
        qz_json_put_string(w, "default", o->choices[(int)o->fallback]);
    } else if (o->type == QZ_OPT_BOOL) {
        qz_json_put_string(w, "type", "boolean");
        qz_json_put_bool(w, "default", o->fallback != 0);
    } else {
        put_range(w, o->type == QZ_OPT_INT ? "integer" : "number", o->low, o->high);
        put_bound(w, "default", o->fallback);
    }
    qz_json_end(w);
}

static void put_const(qz_json_writer *w, const char *key, const char *value)
{
    qz_json_begin_object(w, key);
    qz_json_put_string(w, "const", value);
    qz_json_end(w);
}

/* {"method": name, option: value, ...} */
static void put_plugin_object(qz_json_writer *w, const qz_plugin *p)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "description", p->help);
    qz_json_put_string(w, "type", "object");
    qz_json_begin_object(w, "properties");
    put_const(w, "method", p->name);
    for (const qz_option *o = p->options; o && o->type != QZ_OPT_END; o++) put_option(w, o);
    qz_json_end(w);
    qz_json_begin_array(w, "required");
    qz_json_put_string(w, NULL, "method");
    qz_json_end(w);
    qz_json_put_bool(w, "additionalProperties", false);
    qz_json_end(w);
}

static void put_names(qz_json_writer *w, const qz_plugins *list, const char *first)
{
    qz_json_begin_array(w, "enum");
    if (first) qz_json_put_string(w, NULL, first);
    for (size_t i = 0; i < list->count; i++) qz_json_put_string(w, NULL, list->rows[i]->name);
    qz_json_end(w);
}

/* One definition a kind of plug-in: its names, or an object of one of the rows. */
static void put_definition(qz_json_writer *w, const qz_plugins *list)
{
    qz_json_begin_object(w, list->kind);
    qz_json_begin_array(w, "oneOf");
    qz_json_begin_object(w, NULL);
    put_names(w, list, NULL);
    qz_json_end(w);
    for (size_t i = 0; i < list->count; i++) put_plugin_object(w, list->rows[i]);
    qz_json_end(w);
    qz_json_end(w);
}

static void put_reference(qz_json_writer *w, const char *definition)
{
    char target[64];
    snprintf(target, sizeof target, "#/$defs/%s", definition);
    qz_json_put_string(w, "$ref", target);
}

static void put_text_type(qz_json_writer *w)
{
    qz_json_put_string(w, "type", "string");
    qz_json_put_int(w, "minLength", 1);
}

static void put_enum(qz_json_writer *w, const qz_field_name *names)
{
    qz_json_begin_array(w, "enum");
    for (const qz_field_name *n = names; n->name; n++)
        if (!n->hidden) qz_json_put_string(w, NULL, n->name);
    qz_json_end(w);
}

/* Integers, or some text: one of the row's names, or what the pattern takes. */
static void put_int_or_text(qz_json_writer *w, const qz_field *f, const char *pattern)
{
    qz_json_begin_array(w, "oneOf");
    qz_json_begin_object(w, NULL);
    put_range(w, "integer", f->low, f->high);
    qz_json_end(w);
    qz_json_begin_object(w, NULL);
    if (pattern) {
        qz_json_put_string(w, "type", "string");
        qz_json_put_string(w, "pattern", pattern);
    } else {
        put_enum(w, f->names);
    }
    qz_json_end(w);
    qz_json_end(w);
}

/* "auto" or a plug-in. */
static void put_observer_type(qz_json_writer *w, const qz_plugins *list)
{
    qz_json_begin_array(w, "oneOf");
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "const", "auto");
    qz_json_end(w);
    qz_json_begin_object(w, NULL);
    put_reference(w, list->kind);
    qz_json_end(w);
    qz_json_end(w);
}

/* `definition` NULL: of text. */
static void put_array_type(qz_json_writer *w, const qz_field *f, const char *definition)
{
    qz_json_put_string(w, "type", "array");
    qz_json_begin_object(w, "items");
    if (definition)
        put_reference(w, definition);
    else
        put_text_type(w);
    qz_json_end(w);
    if (f->low > 0) put_bound(w, "minItems", f->low);
    put_bound(w, "maxItems", f->high);
}

/* `change`: members of an object that is laid over another. Nothing is required, and null removes. */
static void put_object_type(qz_json_writer *w, const char *path, const qz_recipe_catalog *catalog, bool change);

static void put_type(qz_json_writer *w, const qz_field *f, const qz_recipe_catalog *catalog, bool change)
{
    switch (f->type) {
    case QZ_FIELD_OBJECT:
    case QZ_FIELD_PART:
        put_object_type(w, f->path, catalog, change);
        break;
    case QZ_FIELD_CHANGES:
        put_object_type(w, qz_field_key(f), catalog, true);
        break;
    case QZ_FIELD_EXCEPTIONS:
        put_array_type(w, f, "override");
        break;
    case QZ_FIELD_OUTPUTS:
        put_array_type(w, f, "output");
        break;
    case QZ_FIELD_VERSION:
        qz_json_put_int(w, "const", QZ_RECIPE_VERSION);
        break;
    case QZ_FIELD_TEXT:
        put_text_type(w);
        break;
    case QZ_FIELD_INT:
        put_range(w, "integer", f->low, f->high);
        break;
    case QZ_FIELD_NUMBER:
        put_range(w, "number", f->low, f->high);
        break;
    case QZ_FIELD_BOOL:
        qz_json_put_string(w, "type", "boolean");
        break;
    case QZ_FIELD_NAME:
    case QZ_FIELD_FLAG:
        put_enum(w, f->names);
        break;
    case QZ_FIELD_GROUP:
        put_int_or_text(w, f, NULL);
        break;
    case QZ_FIELD_BYTES:
        put_int_or_text(w, f, "^[0-9]+ ?(B|[KMGT]i?B)?$");
        break;
    case QZ_FIELD_BACKEND:
        put_names(w, qz_field_plugins(f, catalog), "auto");
        break;
    case QZ_FIELD_PLUGIN:
        put_reference(w, qz_field_plugins(f, catalog)->kind);
        break;
    case QZ_FIELD_OBSERVER:
        put_observer_type(w, qz_field_plugins(f, catalog));
        break;
    case QZ_FIELD_PLUGINS:
        put_array_type(w, f, qz_field_plugins(f, catalog)->kind);
        break;
    case QZ_FIELD_PATTERNS:
        put_array_type(w, f, NULL);
        break;
    case QZ_FIELD_TYPES:
        break;
    }
}

static void put_default(qz_json_writer *w, const qz_field *f, const qz_recipe_catalog *catalog)
{
    if (f->fallback) qz_json_put_raw(w, "default", f->fallback);
    if (f->type == QZ_FIELD_PLUGIN && !f->required && qz_field_plugins(f, catalog)->count > 0)
        qz_json_put_string(w, "default", qz_field_plugins(f, catalog)->rows[0]->name);
}

static void put_type_or_null(qz_json_writer *w, const qz_field *f, const qz_recipe_catalog *catalog)
{
    qz_json_begin_array(w, "anyOf");
    qz_json_put_raw(w, NULL, "{ \"type\": \"null\" }");
    qz_json_begin_object(w, NULL);
    put_type(w, f, catalog, true);
    qz_json_end(w);
    qz_json_end(w);
}

/* Of an override's own members, `activations` may be null. */
static void put_field(qz_json_writer *w, const qz_field *f, const qz_recipe_catalog *catalog, bool change)
{
    qz_json_begin_object(w, qz_field_key(f));
    qz_json_put_string(w, "description", f->help);
    if (change || f->type == QZ_FIELD_CHANGES) {
        put_type_or_null(w, f, catalog);
    } else {
        put_type(w, f, catalog, false);
        put_default(w, f, catalog);
    }
    qz_json_end(w);
}

static void put_required(qz_json_writer *w, const char *path, bool change)
{
    qz_json_begin_array(w, "required");
    for (size_t i = 0; i < qz_recipe_field_count; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        bool own_folder = change && strcmp(f->path, "output") == 0;
        if (qz_field_is_in(f, path) && (change ? own_folder : f->required))
            qz_json_put_string(w, NULL, qz_field_key(f));
    }
    qz_json_end(w);
}

static void put_properties(qz_json_writer *w, const char *path, const qz_recipe_catalog *catalog, bool change)
{
    qz_json_put_string(w, "type", "object");
    qz_json_begin_object(w, "properties");
    if (!*path) qz_json_put_raw(w, "$schema", "{ \"type\": \"string\" }");
    for (size_t i = 0; i < qz_recipe_field_count; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        bool nested = change && f->type == QZ_FIELD_OUTPUTS;
        if (qz_field_is_in(f, path) && !nested) put_field(w, f, catalog, change);
    }
    qz_json_end(w);
    qz_json_put_bool(w, "additionalProperties", false);
}

static void put_object_type(qz_json_writer *w, const char *path, const qz_recipe_catalog *catalog, bool change)
{
    put_properties(w, path, catalog, change);
    put_required(w, path, change);
}

/* A recipe with outputs says of itself only what they do not say. */
static void put_root(qz_json_writer *w, const qz_recipe_catalog *catalog)
{
    put_properties(w, "", catalog, false);
    qz_json_begin_object(w, "if");
    qz_json_put_raw(w, "required", "[ \"outputs\" ]");
    qz_json_end(w);
    qz_json_begin_object(w, "then");
    qz_json_put_raw(w, "required", "[ \"version\" ]");
    qz_json_end(w);
    qz_json_begin_object(w, "else");
    put_required(w, "", false);
    qz_json_put_raw(w, "anyOf", "[ { \"required\": [\"weights\"] }, { \"required\": [\"train\"] } ]");
    qz_json_end(w);
}

static void put_definitions(qz_json_writer *w, const qz_recipe_catalog *catalog)
{
    qz_json_begin_object(w, "$defs");
    put_definition(w, catalog->transforms);
    put_definition(w, catalog->ranges);
    put_definition(w, catalog->solvers);
    put_definition(w, catalog->observers);
    put_definition(w, catalog->containers);
    qz_json_begin_object(w, "override");
    put_object_type(w, "overrides", catalog, false);
    qz_json_end(w);
    qz_json_begin_object(w, "output");
    put_object_type(w, "", catalog, true);
    qz_json_end(w);
    qz_json_end(w);
}

static void put_schema(qz_json_writer *w, const qz_recipe_catalog *catalog)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "$schema", "https://json-schema.org/draft/2020-12/schema");
    qz_json_put_string(w, "title", "Quartz recipe");
    put_root(w, catalog);
    put_definitions(w, catalog);
    qz_json_end(w);
}

qz_status qz_recipe_schema(char **out, const qz_recipe_catalog *catalog, qz_arena *arena)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    *out = NULL;
    QZ_TRY(qz_json_writer_new(&w, true));
    put_schema(w, catalog);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK && !(*out = qz_arena_strdup(arena, text))) status = qz_arena_failed(arena);
    qz_json_writer_free(w);
    return status;
}
