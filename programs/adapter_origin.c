/* See adapter_origin.h. Both recipes are canonical, with all values filled in, so what differs is what was meant. */
#include "programs/adapter_origin.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

enum { LARGEST_REPORT = 64 << 20, VALUE = 64, PATH = 256 };

static void print(char out[VALUE], const qz_json_node *node)
{
    strcpy(out, "nothing");
    if (node) qz_json_print(node, out, VALUE);
}

static void tell(const char *path, const qz_json_node *then, const qz_json_node *now)
{
    char x[VALUE], y[VALUE];
    print(x, then);
    print(y, now);
    if (strcmp(x, y) != 0) qz_warn("%s: the adapter was trained with %s, the merge has %s", path, x, y);
}

static bool is_nested(const qz_json_node *node)
{
    return qz_json_is(node, QZ_JSON_OBJECT) || qz_json_is(node, QZ_JSON_ARRAY);
}

static void compare(const char *path, const qz_json_node *then, const qz_json_node *now);

static void compare_members(const char *path, const qz_json_node *then, const qz_json_node *now)
{
    char at[PATH];
    for (const qz_json_node *m = qz_json_first(then); m; m = qz_json_next(m)) {
        snprintf(at, sizeof at, "%s.%s", path, qz_json_key(m));
        compare(at, m, qz_json_get(now, qz_json_key(m)));
    }
    for (const qz_json_node *m = qz_json_first(now); m; m = qz_json_next(m)) {
        if (qz_json_get(then, qz_json_key(m))) continue;
        snprintf(at, sizeof at, "%s.%s", path, qz_json_key(m));
        tell(at, NULL, m);
    }
}

static void compare_elements(const char *path, const qz_json_node *then, const qz_json_node *now)
{
    char at[PATH];
    int i = 0;
    for (const qz_json_node *x = qz_json_first(then), *y = qz_json_first(now); x && y;
         x = qz_json_next(x), y = qz_json_next(y)) {
        snprintf(at, sizeof at, "%s.%d", path, i++);
        compare(at, x, y);
    }
}

static void compare(const char *path, const qz_json_node *then, const qz_json_node *now)
{
    const bool nested = then && now && is_nested(then) && qz_json_type_of(then) == qz_json_type_of(now);
    if (!nested || qz_json_count(then) != qz_json_count(now)) tell(path, then, now);
    if (nested && qz_json_is(then, QZ_JSON_OBJECT)) compare_members(path, then, now);
    if (nested && qz_json_is(then, QZ_JSON_ARRAY)) compare_elements(path, then, now);
}

static void compare_recipes(const qz_json_node *then, const qz_json_node *now)
{
    static const char *const rounded[] = {"weights", "activations", "kv_cache", "overrides", NULL};
    const qz_json_node *x = qz_json_get(qz_json_get(then, "train"), "adapter"),
                       *y = qz_json_get(qz_json_get(now, "train"), "adapter");
    compare("train.adapter.base", qz_json_get(x, "base"), qz_json_get(y, "base"));
    tell("train.adapter.merge_aware", qz_json_get(x, "merge_aware"), qz_json_get(y, "merge_aware"));
    if (!qz_json_true(qz_json_get(x, "merge_aware")) || !qz_json_true(qz_json_get(y, "merge_aware"))) return;
    for (const char *const *key = rounded; *key; key++) compare(*key, qz_json_get(then, *key), qz_json_get(now, *key));
    tell("export.container", qz_json_get(qz_json_get(then, "export"), "container"),
         qz_json_get(qz_json_get(now, "export"), "container"));
}

static qz_status compare_with(const char *folder, const qz_recipe *recipe, qz_arena *arena)
{
    char *text;
    size_t size;
    qz_json *report, *own;
    const char *path = qz_path_join(arena, folder, "report.json");
    if (!path || !qz_path_exists(path)) return QZ_OK;
    QZ_TRY(qz_file_read(&text, &size, path, LARGEST_REPORT, arena));
    QZ_TRY(qz_json_parse(&report, text, size));
    qz_status status = qz_json_parse(&own, recipe->text, strlen(recipe->text));
    if (status == QZ_OK) {
        const qz_json_node *then = qz_json_get(qz_json_root(report), "recipe");
        if (qz_json_get(qz_json_get(then, "train"), "adapter")) compare_recipes(then, qz_json_root(own));
        qz_json_close(own);
    }
    qz_json_close(report);
    return status;
}

void qz_adapter_warn_other_grid(const char *folder, const qz_recipe *recipe)
{
    qz_arena *arena;
    qz_error saved;
    qz_error_save(&saved, QZ_OK);
    if (qz_arena_new(&arena, "adapter") == QZ_OK) {
        if (compare_with(folder, recipe, arena) != QZ_OK)
            qz_warn("%s/report.json cannot be read, so it is not known what the adapter was trained for", folder);
        qz_arena_free(arena);
    }
    (void)qz_error_restore(&saved);
}
