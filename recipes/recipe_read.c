/* JSON -> qz_recipe by the table: unknown keys, types, ranges, names, defaults. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

_Static_assert(sizeof(qz_dtype) == sizeof(int) && sizeof(qz_format) == sizeof(int) &&
                   sizeof(qz_act_mode) == sizeof(int) && sizeof(qz_propagate) == sizeof(int) &&
                   sizeof(qz_train_what) == sizeof(int) && sizeof(qz_train_method) == sizeof(int),
               "names are stored as int");

typedef const qz_recipe_reader reader;
typedef qz_status (*read_fn)(reader *r, const qz_field *f, const qz_json_node *node, void *place);

static qz_status read_version(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    char value[64];
    qz_json_print(node, value, sizeof value);
    if (!qz_json_is(node, QZ_JSON_NUMBER) || qz_json_double(node) != QZ_RECIPE_VERSION)
        return qz_recipe_fail(r, f->path, "found %s; this program (%s) reads recipes of version %d", value, QZ_VERSION,
                              QZ_RECIPE_VERSION);
    *(int *)place = QZ_RECIPE_VERSION;
    return QZ_OK;
}

static qz_status read_text(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    if (!qz_json_is(node, QZ_JSON_STRING) || !*qz_json_text(node))
        return qz_recipe_fail_type(r, f->path, node, "a string that is not empty");
    char *copy = qz_arena_strdup(r->arena, qz_json_text(node));
    if (!copy) return qz_arena_failed(r->arena);
    *(const char **)place = copy;
    return QZ_OK;
}

static bool is_integer_in(const qz_json_node *node, double low, double high)
{
    if (!qz_json_is(node, QZ_JSON_NUMBER)) return false;
    double v = qz_json_double(node);
    return v >= low && v <= high && v == floor(v);
}

static qz_status read_int(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %.0f to %.0f", f->low, f->high);
    if (!is_integer_in(node, f->low, f->high)) return qz_recipe_fail_type(r, f->path, node, expected);
    *(int64_t *)place = (int64_t)qz_json_double(node);
    return QZ_OK;
}

static qz_status read_number(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %g to %g", f->low, f->high);
    double v = qz_json_is(node, QZ_JSON_NUMBER) ? qz_json_double(node) : NAN;
    if (!(v >= f->low && v <= f->high)) return qz_recipe_fail_type(r, f->path, node, expected);
    *(double *)place = v;
    return QZ_OK;
}

static qz_status read_bool(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    if (!qz_json_is(node, QZ_JSON_BOOL)) return qz_recipe_fail_type(r, f->path, node, "true or false");
    *(bool *)place = qz_json_true(node);
    return QZ_OK;
}

static const qz_field_name *find_name(const qz_field *f, const qz_json_node *node)
{
    if (!qz_json_is(node, QZ_JSON_STRING)) return NULL;
    for (const qz_field_name *n = f->names; n->name; n++)
        if (!n->hidden && strcmp(n->name, qz_json_text(node)) == 0) return n;
    return NULL;
}

static qz_status fail_name(reader *r, const qz_field *f, const qz_json_node *node)
{
    const char *known[64];
    size_t count = 0;
    if (!qz_json_is(node, QZ_JSON_STRING)) return qz_recipe_fail_type(r, f->path, node, "a name");
    for (const qz_field_name *n = f->names; n->name; n++)
        if (!n->hidden && count < 63) known[count++] = n->name;
    known[count] = NULL;
    return qz_recipe_fail_name(r, f->path, qz_field_key(f), qz_json_text(node), known);
}

static qz_status read_name(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    const qz_field_name *found = find_name(f, node);
    if (!found) return fail_name(r, f, node);
    memcpy(place, &found->value, sizeof found->value);
    return QZ_OK;
}

static qz_status read_flag(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    const qz_field_name *found = find_name(f, node);
    if (!found) return fail_name(r, f, node);
    *(bool *)place = found->value != 0;
    return QZ_OK;
}

static qz_status read_group(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    const qz_field_name *found = find_name(f, node);
    if (!found && !is_integer_in(node, f->low, f->high))
        return qz_recipe_fail_type(r, f->path, node,
                                   "a positive integer, \"channel\" (one scale a row), \"tensor\" (one for all) or "
                                   "\"block\" (one for 128 x 128)");
    *(int64_t *)place = found ? found->value : (int64_t)qz_json_double(node);
    return QZ_OK;
}

/* "5GB" -> 5000000000; 0 when it is no size. */
static double parse_bytes(const char *text)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},      {"B", 1},        {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
    double value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9' && value < 1e18; p++) value = value * 10 + (*p - '0');
    if (p == text) return 0;
    if (*p == ' ') p++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(p, units[i].unit) == 0) return value * units[i].bytes;
    return 0;
}

static qz_status read_bytes(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    double bytes = 0;
    if (qz_json_is(node, QZ_JSON_STRING)) bytes = parse_bytes(qz_json_text(node));
    if (is_integer_in(node, f->low, f->high)) bytes = qz_json_double(node);
    if (!(bytes >= f->low && bytes <= f->high))
        return qz_recipe_fail_type(r, f->path, node, "a number of bytes, or text like \"5GB\" or \"512MiB\"");
    *(uint64_t *)place = (uint64_t)bytes;
    return QZ_OK;
}

static qz_status read_backend(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    QZ_TRY(read_text(r, f, node, place));
    const char *name = *(const char **)place;
    const qz_plugins *list = qz_field_plugins(f, r->catalog);
    if (strcmp(name, "auto") == 0 || qz_plugins_find(list, name) >= 0) return QZ_OK;
    const char **known = qz_plugin_names(list, r->arena);
    if (!known) return qz_arena_failed(r->arena);
    return qz_recipe_fail_name(r, f->path, list->kind, name, known);
}

static qz_status read_plugin(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    return qz_recipe_read_choice(r, f->path, qz_field_plugins(f, r->catalog), node, place);
}

static qz_status read_plugins(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    qz_choice *choices = place;
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) > QZ_RECIPE_TRANSFORMS)
        return qz_recipe_fail_type(r, f->path, node, "an array of at most 8 objects with \"method\"");
    r->recipe->transforms = 0;
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) {
        char path[64];
        int i = r->recipe->transforms;
        snprintf(path, sizeof path, "%s.%d", f->path, i);
        QZ_TRY(qz_recipe_read_choice(r, path, qz_field_plugins(f, r->catalog), c, &choices[i]));
        r->recipe->transforms = i + 1;
    }
    return QZ_OK;
}

static qz_status read_patterns(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    qz_patterns *p = place;
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) > QZ_RECIPE_PATTERNS)
        return qz_recipe_fail_type(r, f->path, node, "an array of at most 64 strings");
    p->count = 0;
    for (const qz_json_node *c = qz_json_first(node); c; c = qz_json_next(c)) {
        if (!qz_json_is(c, QZ_JSON_STRING) || !*qz_json_text(c)) {
            char path[64];
            snprintf(path, sizeof path, "%s.%d", f->path, p->count);
            return qz_recipe_fail_type(r, path, c, "a string that is not empty");
        }
        p->pattern[p->count] = qz_arena_strdup(r->arena, qz_json_text(c));
        if (!p->pattern[p->count++]) return qz_arena_failed(r->arena);
    }
    return QZ_OK;
}

static qz_status read_observer(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    if (qz_json_is(node, QZ_JSON_STRING) && strcmp(qz_json_text(node), "auto") == 0) {
        *(qz_choice *)place = (qz_choice){.name = "auto", .index = -1};
        return QZ_OK;
    }
    return read_plugin(r, f, node, place);
}

static qz_status read_group_of_fields(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    if (place && f->type == QZ_FIELD_OBJECT) *(bool *)place = true;
    return qz_recipe_read_object(r, f->path, node);
}

/* The entries are read when the rest is known: recipe_exceptions.c. */
static qz_status read_exceptions(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    (void)place;
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) > QZ_RECIPE_OVERRIDES)
        return qz_recipe_fail_type(r, f->path, node, "an array of at most 32 objects with \"match\"");
    return QZ_OK;
}

/* Read once it is laid over the base. */
static qz_status read_changes(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    (void)place;
    if (!qz_json_is(node, QZ_JSON_OBJECT) && !qz_json_is(node, QZ_JSON_NULL))
        return qz_recipe_fail_type(r, f->path, node, "an object");
    return QZ_OK;
}

/* A recipe with outputs is taken apart before its rows are read: recipe_outputs.c. */
static qz_status read_outputs(reader *r, const qz_field *f, const qz_json_node *node, void *place)
{
    (void)place;
    return qz_recipe_fail_type(r, f->path, node, "no such key here");
}

static const read_fn readers[QZ_FIELD_TYPES] = {
    [QZ_FIELD_OBJECT] = read_group_of_fields,
    [QZ_FIELD_PART] = read_group_of_fields,
    [QZ_FIELD_VERSION] = read_version,
    [QZ_FIELD_TEXT] = read_text,
    [QZ_FIELD_INT] = read_int,
    [QZ_FIELD_NUMBER] = read_number,
    [QZ_FIELD_BOOL] = read_bool,
    [QZ_FIELD_NAME] = read_name,
    [QZ_FIELD_FLAG] = read_flag,
    [QZ_FIELD_GROUP] = read_group,
    [QZ_FIELD_BYTES] = read_bytes,
    [QZ_FIELD_BACKEND] = read_backend,
    [QZ_FIELD_PLUGIN] = read_plugin,
    [QZ_FIELD_PLUGINS] = read_plugins,
    [QZ_FIELD_OBSERVER] = read_observer,
    [QZ_FIELD_PATTERNS] = read_patterns,
    [QZ_FIELD_EXCEPTIONS] = read_exceptions,
    [QZ_FIELD_CHANGES] = read_changes,
    [QZ_FIELD_OUTPUTS] = read_outputs,
};

/* The value of a key that was not given. */
static qz_status read_fallback(reader *r, const qz_field *f, void *place)
{
    if (f->type == QZ_FIELD_OBJECT) return qz_recipe_read_object(r, f->path, NULL);
    if (f->type == QZ_FIELD_PLUGIN && !f->required) return read_plugin(r, f, NULL, place);
    if (!f->fallback) return QZ_OK;
    qz_json *doc;
    QZ_TRY_CTX(qz_json_parse(&doc, f->fallback, strlen(f->fallback)), "default of %s", f->path);
    qz_status status = readers[f->type](r, f, qz_json_root(doc), place);
    qz_json_close(doc);
    return status;
}

static void *place_of(reader *r, const qz_field *f)
{
    if (f->place == QZ_NO_PLACE) return NULL;
    return r->base ? r->base + (f->place - r->from) : (char *)r->recipe + f->place;
}

/* No object: the one around it was not given, so nothing in it is required. */
qz_status qz_recipe_read_field(reader *r, const qz_field *f, const qz_json_node *object)
{
    void *place = place_of(r, f);
    const qz_json_node *node = object ? qz_json_get(object, qz_field_key(f)) : NULL;
    bool required = f->required && (!r->relaxed || f->type == QZ_FIELD_VERSION);
    if (node) return readers[f->type](r, f, node, place);
    if (object && required) return qz_recipe_fail(r, f->path, "missing: %s", f->help);
    return read_fallback(r, f, place);
}

static qz_status check_key(reader *r, const char *path, const char *key)
{
    const char *known[64];
    size_t count = 0;
    for (size_t i = 0; i < qz_recipe_field_count; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        if (!qz_field_is_in(f, path)) continue;
        if (strcmp(qz_field_key(f), key) == 0) return QZ_OK;
        if (count < 63) known[count++] = qz_field_key(f);
    }
    known[count] = NULL;
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", path, *path ? "." : "", key);
    const char *nearest = qz_nearest_name(key, known);
    if (nearest) return qz_recipe_fail(r, full, "unknown key; did you mean \"%s\"?", nearest);
    return qz_recipe_fail_name(r, full, "key", key, known);
}

qz_status qz_recipe_read_object(reader *r, const char *path, const qz_json_node *object)
{
    if (object && !qz_json_is(object, QZ_JSON_OBJECT)) return qz_recipe_fail_type(r, path, object, "an object");
    for (const qz_json_node *c = qz_json_first(object); c; c = qz_json_next(c)) {
        bool is_schema = !*path && strcmp(qz_json_key(c), "$schema") == 0;
        if (!is_schema) QZ_TRY(check_key(r, path, qz_json_key(c)));
    }
    for (size_t i = 0; i < qz_recipe_field_count; i++)
        if (qz_field_is_in(&qz_recipe_fields[i], path)) QZ_TRY(qz_recipe_read_field(r, &qz_recipe_fields[i], object));
    return QZ_OK;
}

/* The version comes first: keys of a later version are no typing errors. */
qz_status qz_recipe_fill(reader *r, const qz_json_node *root)
{
    if (qz_json_is(root, QZ_JSON_OBJECT)) QZ_TRY(qz_recipe_read_field(r, &qz_recipe_fields[0], root));
    if (!r->relaxed) QZ_TRY(qz_recipe_check_figures(r, root));
    return qz_recipe_read_object(r, "", root);
}
