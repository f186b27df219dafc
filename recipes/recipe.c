/* File or text -> overrides -> table-driven reading -> rules -> canonical form. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "recipes/recipe_reader.h"

enum { LARGEST_FILE = 1 << 20, BLOCK = 128 };

/* Does the value at `path` come from the override, or lie around or below what it set? */
static bool is_from(const qz_override *o, const char *path)
{
    size_t a = strlen(o->path), b = strlen(path), shorter = a < b ? a : b;
    if (strncmp(o->path, path, shorter) != 0) return false;
    return a == b || (a > b ? o->path[b] == '.' : path[a] == '.');
}

/* The path in the file: the reader's prefix, and the path without what that replaces. */
static void put_path(char *out, size_t size, const qz_recipe_reader *r, const char *path)
{
    snprintf(out, size, "%s%s", r->prefix ? r->prefix : "", strlen(path) > r->cut ? path + r->cut : "");
    size_t length = strlen(out);
    if (length > 0 && out[length - 1] == '.') out[length - 1] = '\0';
}

/* Does the object say something about `path` itself? */
static bool says(const qz_json_node *object, const char *path)
{
    while (object && *path) {
        char key[QZ_RECIPE_PATH];
        size_t length = strcspn(path, ".");
        if (!qz_json_is(object, QZ_JSON_OBJECT)) return true;
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        object = qz_json_get(object, key);
        path += length + (path[length] == '.');
    }
    return object != NULL;
}

const qz_override *qz_recipe_origin(const qz_recipe_reader *r, const char *path)
{
    char full[QZ_RECIPE_PATH];
    const qz_override *found = NULL;
    put_path(full, sizeof full, r, path);
    for (int i = 0; i < r->count; i++)
        if (is_from(&r->overrides[i], full)) found = &r->overrides[i];
    if (found || !r->outer || says(r->entry, path)) return found;
    return qz_recipe_origin(r->outer, path);
}

qz_status qz_recipe_fail(const qz_recipe_reader *r, const char *path, const char *format, ...)
{
    char sentence[768], full[QZ_RECIPE_PATH];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    const qz_override *origin = qz_recipe_origin(r, path);
    put_path(full, sizeof full, r, path);
    const char *colon = *full ? ": " : "";
    if (!origin) return QZ_FAIL(QZ_ARG, "%s: %s%s%s", r->name, full, colon, sentence);
    return QZ_FAIL(QZ_ARG, "%s: %s%s%s (from %s)", r->name, full, colon, sentence, origin->origin);
}

qz_status qz_recipe_fail_type(const qz_recipe_reader *r, const char *path, const qz_json_node *found,
                              const char *expected)
{
    char value[64];
    qz_json_print(found, value, sizeof value);
    return qz_recipe_fail(r, path, "found %s, expected %s", value, expected);
}

/* "a, b, c" */
static void join(char *out, size_t size, const char *const *list)
{
    size_t used = 0;
    out[0] = '\0';
    for (; *list && used < size; list++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", *list);
}

qz_status qz_recipe_fail_name(const qz_recipe_reader *r, const char *path, const char *kind, const char *found,
                              const char *const *known)
{
    char all[512];
    join(all, sizeof all, known);
    const char *nearest = qz_nearest_name(found, known);
    if (!all[0]) return qz_recipe_fail(r, path, "unknown %s \"%.64s\"; there are none", kind, found);
    if (!nearest) return qz_recipe_fail(r, path, "unknown %s \"%.64s\"; there are: %s", kind, found, all);
    return qz_recipe_fail(r, path, "unknown %s \"%.64s\"; did you mean \"%s\"? There are: %s", kind, found, nearest,
                          all);
}

qz_status qz_recipe_read_single(const qz_recipe_reader *r, const qz_json_node *root)
{
    QZ_TRY(qz_recipe_fill(r, root));
    QZ_TRY(qz_recipe_check_rules(r, root));
    QZ_TRY(qz_recipe_read_exceptions(r, root));
    QZ_TRY(qz_recipe_check_effects(r));
    return qz_recipe_canonize(r);
}

static qz_status read_document(const qz_recipe_reader *r, qz_json **doc)
{
    QZ_TRY(qz_recipe_override(doc, r));
    const qz_json_node *root = qz_json_root(*doc);
    bool several = qz_json_is(root, QZ_JSON_OBJECT) && qz_json_get(root, "outputs");
    return several ? qz_recipe_read_outputs(r, root) : qz_recipe_read_single(r, root);
}

qz_status qz_recipe_parse(qz_recipe **out, const char *text, size_t size, const char *name,
                          const qz_recipe_catalog *catalog, const qz_override *overrides, int count, qz_arena *arena)
{
    *out = NULL;
    qz_recipe *recipe = qz_arena_calloc(arena, sizeof *recipe);
    if (!recipe) return qz_arena_failed(arena);
    qz_recipe_reader r = {
        .recipe = recipe, .name = name, .catalog = catalog, .overrides = overrides, .count = count, .arena = arena};
    qz_json *doc = NULL;
    qz_status status = qz_json_parse(&doc, text, size);
    if (status != QZ_OK) return qz_error_context(status == QZ_FORMAT ? QZ_ARG : status, "%s", name);
    status = read_document(&r, &doc);
    qz_json_close(doc);
    if (status == QZ_OK) *out = recipe;
    return status;
}

qz_status qz_recipe_read(qz_recipe **out, const char *path, const qz_recipe_catalog *catalog,
                         const qz_override *overrides, int count, qz_arena *arena)
{
    *out = NULL;
    char *text;
    size_t size;
    qz_status status = qz_file_read(&text, &size, path, LARGEST_FILE, arena);
    if (status == QZ_IO || status == QZ_FORMAT) return qz_error_context(QZ_ARG, "recipe");
    QZ_TRY(status);
    return qz_recipe_parse(out, text, size, path, catalog, overrides, count, arena);
}

qz_scheme qz_weights_scheme(const qz_recipe_weights *w, qz_dtype scale_type)
{
    qz_scheme s = {.format = w->format,
                   .piece_rows = 1,
                   .piece_cols = w->group, /* "channel" is 0: the whole row */
                   .symmetric = w->symmetric,
                   .scale_type = scale_type,
                   .zero_rule = QZ_ROUND_VALUE,
                   .double_quant = w->double_quant};
    if (w->group == QZ_GROUP_TENSOR) s.piece_rows = s.piece_cols = 0;
    if (w->group == QZ_GROUP_BLOCK) s.piece_rows = s.piece_cols = BLOCK;
    return s;
}

bool qz_weights_ordered(const qz_recipe_weights *w)
{
    const qz_options *options = &w->solver.options;
    const int order = options->table ? qz_options_index(options->table, "order") : -1;
    return order >= 0 && strcmp(qz_options_choice(options, "order"), "desc") == 0;
}
