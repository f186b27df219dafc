/* The table and the catalog -> the reference part of docs/recipes.md. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

/* A growing text; failing sticks. */
typedef struct page {
    char *text;
    size_t used, room;
    bool failed;
} page;

static bool grow(page *p, size_t wanted)
{
    if (p->room - p->used > wanted) return true;
    size_t room = 2 * p->room + wanted + 1024;
    char *text = qz_realloc(p->text, room);
    if (!text) return false;
    p->text = text;
    p->room = room;
    return true;
}

static void put(page *p, const char *format, ...) QZ_PRINTF(2, 3);

static void put(page *p, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    p->failed = p->failed || length < 0 || !grow(p, (size_t)length + 1);
    if (!p->failed) p->used += (size_t)vsnprintf(p->text + p->used, p->room - p->used, format, again);
    va_end(again);
}

static void put_names(page *p, const qz_field_name *names)
{
    const char *comma = "";
    for (; names->name; names++) {
        if (names->hidden) continue;
        put(p, "%s`\"%s\"`", comma, names->name);
        comma = ", ";
    }
}

static void put_type(page *p, const qz_field *f, const qz_recipe_catalog *catalog)
{
    switch (f->type) {
    case QZ_FIELD_OBJECT:
    case QZ_FIELD_PART:
    case QZ_FIELD_CHANGES:
        put(p, "object");
        break;
    case QZ_FIELD_VERSION:
        put(p, "`%d`", QZ_RECIPE_VERSION);
        break;
    case QZ_FIELD_TEXT:
        put(p, "text");
        break;
    case QZ_FIELD_INT:
        put(p, "integer, %.0f to %.0f", f->low, f->high);
        break;
    case QZ_FIELD_NUMBER:
        put(p, "number, %g to %g", f->low, f->high);
        break;
    case QZ_FIELD_BOOL:
        put(p, "true or false");
        break;
    case QZ_FIELD_NAME:
    case QZ_FIELD_FLAG:
        put_names(p, f->names);
        break;
    case QZ_FIELD_GROUP:
        put(p, "positive integer, ");
        put_names(p, f->names);
        break;
    case QZ_FIELD_BYTES:
        put(p, "integer, or text like `\"5GB\"`");
        break;
    case QZ_FIELD_BACKEND:
        put(p, "`\"auto\"` or a backend");
        break;
    case QZ_FIELD_PLUGIN:
        put(p, "%s", qz_field_plugins(f, catalog)->kind);
        break;
    case QZ_FIELD_OBSERVER:
        put(p, "`\"auto\"` or %s", qz_field_plugins(f, catalog)->kind);
        break;
    case QZ_FIELD_EXCEPTIONS:
    case QZ_FIELD_OUTPUTS:
        put(p, "array of objects");
        break;
    case QZ_FIELD_PLUGINS:
        put(p, "array of %ss", qz_field_plugins(f, catalog)->kind);
        break;
    case QZ_FIELD_PATTERNS:
        put(p, "array of text");
        break;
    case QZ_FIELD_TYPES:
        break;
    }
}

static void put_default(page *p, const qz_field *f, const qz_recipe_catalog *catalog)
{
    const qz_plugins *list = f->type == QZ_FIELD_PLUGIN ? qz_field_plugins(f, catalog) : NULL;
    if (f->required)
        put(p, "required");
    else if (f->fallback)
        put(p, "`%s`", f->fallback);
    else if (list && list->count > 0)
        put(p, "`\"%s\"`", list->rows[0]->name);
}

static void put_fields(page *p, const qz_recipe_catalog *catalog)
{
    put(p, "| key | value | default | what it is |\n|---|---|---|---|\n");
    for (size_t i = 0; i < qz_recipe_field_count; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        put(p, "| `%s` | ", f->path);
        put_type(p, f, catalog);
        put(p, " | ");
        put_default(p, f, catalog);
        put(p, " | %s |\n", f->help);
    }
}

static void put_option(page *p, const qz_option *o)
{
    put(p, "- `%s` (", o->name);
    if (o->type == QZ_OPT_BOOL) put(p, "true or false, default %s", o->fallback != 0 ? "true" : "false");
    if (o->type == QZ_OPT_INT) put(p, "integer, %g to %g, default %g", o->low, o->high, o->fallback);
    if (o->type == QZ_OPT_NUMBER) put(p, "number, %g to %g, default %g", o->low, o->high, o->fallback);
    if (o->type == QZ_OPT_CHOICE) {
        for (int i = 0; o->choices[i]; i++) put(p, "%s`\"%s\"`", i ? ", " : "", o->choices[i]);
        put(p, ", default `\"%s\"`", o->choices[(int)o->fallback]);
    }
    put(p, "): %s\n", o->help);
}

static void put_plugins(page *p, const char *title, const qz_plugins *list)
{
    put(p, "\n### %s\n", title);
    if (list->count == 0) put(p, "\nNone.\n");
    for (size_t i = 0; i < list->count; i++) {
        const qz_plugin *row = list->rows[i];
        put(p, "\n`\"%s\"`: %s", row->name, row->help);
        put(p, *row->source ? " (%s)\n" : "%s\n", row->source);
        for (const qz_option *o = row->options; o && o->type != QZ_OPT_END; o++) put_option(p, o);
    }
}

qz_status qz_recipe_reference(char **out, const qz_recipe_catalog *catalog, qz_arena *arena)
{
    page p = {0};
    put_fields(&p, catalog);
    put_plugins(&p, "Transforms", catalog->transforms);
    put_plugins(&p, "Ranges", catalog->ranges);
    put_plugins(&p, "Solvers", catalog->solvers);
    put_plugins(&p, "Observers", catalog->observers);
    put_plugins(&p, "Containers", catalog->containers);
    put_plugins(&p, "Backends", catalog->backends);
    *out = p.failed ? NULL : qz_arena_strdup(arena, p.text);
    qz_free(p.text);
    if (p.failed) return QZ_FAIL(QZ_MEMORY, "recipe reference: memory is short");
    return *out ? QZ_OK : qz_arena_failed(arena);
}
