/* Combinations of values that are each allowed but make no sense together. What depends on the model (does the group
 * divide?) or on the container (can it hold this scheme?) is checked later, where those are known. */
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

static qz_status check_floating(reader *r, const qz_json_node *root)
{
    qz_recipe *recipe = r->recipe;
    const qz_format_info *format = qz_format_of(recipe->weights.format);
    if (format->kind != QZ_KIND_FLOAT) return QZ_OK;
    const qz_json_node *symmetric = qz_json_get(qz_json_get(root, "weights"), "symmetric");
    if (symmetric && !qz_json_true(symmetric))
        return qz_recipe_fail(r, "weights.symmetric", "found false, but %s has no zero points; leave the key out",
                              format->name);
    recipe->weights.symmetric = true;
    if (recipe->weights.group > 0)
        return qz_recipe_fail(r, "weights.group", "found %lld, but %s takes one scale a row; use \"channel\"",
                              (long long)recipe->weights.group, format->name);
    return QZ_OK;
}

/* Why there are no statistics, or NULL. */
static const char *no_statistics(const qz_recipe *recipe)
{
    if (!recipe->calibration.data) return "calibration.data is missing";
    if (recipe->calibration.samples == 0) return "calibration.samples is 0";
    return NULL;
}

static qz_status check_needs(reader *r, const char *path, const qz_plugins *list, const qz_choice *choice)
{
    const char *why = no_statistics(r->recipe);
    if (!why || !r->catalog->needs_statistics || !r->catalog->needs_statistics(list, choice->index)) return QZ_OK;
    return qz_recipe_fail(r, path, "the %s \"%s\" needs statistics of calibration text, but %s", list->kind,
                          choice->name, why);
}

static qz_status check_statistics(reader *r)
{
    const qz_recipe *recipe = r->recipe;
    for (int i = 0; i < recipe->transforms; i++) {
        char path[64];
        snprintf(path, sizeof path, "transforms.%d", i);
        QZ_TRY(check_needs(r, path, r->catalog->transforms, &recipe->transform[i]));
    }
    QZ_TRY(check_needs(r, "weights.range", r->catalog->ranges, &recipe->weights.range));
    return check_needs(r, "weights.solver", r->catalog->solvers, &recipe->weights.solver);
}

/* A folder that is input and output at once would be replaced under our feet. */
static qz_status check_paths(reader *r)
{
    if (strcmp(r->recipe->model, r->recipe->output) == 0)
        return qz_recipe_fail(r, "output", "found \"%.128s\", which is the model; choose another folder",
                              r->recipe->output);
    return QZ_OK;
}

qz_status qz_recipe_check_rules(reader *r, const qz_json_node *root)
{
    QZ_TRY(check_floating(r, root));
    QZ_TRY(check_statistics(r));
    return check_paths(r);
}
