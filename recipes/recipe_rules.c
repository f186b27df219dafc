/* Combinations of values that are each allowed but make no sense together. What depends on the model (does the group
 * divide?) or on the container (can it hold this scheme?) is checked later, where those are known. */
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

/* Why there are no statistics, or NULL. */
static const char *no_statistics(const qz_recipe *recipe)
{
    if (!recipe->calibration.data) return "calibration.data is missing";
    if (recipe->calibration.samples == 0) return "calibration.samples is 0";
    return NULL;
}

/* The same for static scales of inputs and of the cache, which training that rounds takes from its own batches. */
static const char *no_scales(const qz_recipe *recipe)
{
    const qz_recipe_train *t = &recipe->train;
    const bool rounds = t->wanted && (t->parameters != QZ_TRAIN_ADAPTER || t->adapter.merge_aware);
    return rounds && !qz_recipe_starts_from_ptq(recipe) ? NULL : no_statistics(recipe);
}

static qz_status check_needs(reader *r, const char *path, const qz_plugins *list, const qz_choice *choice)
{
    const char *why = no_statistics(r->recipe);
    if (!why || !r->catalog->needs_statistics || !r->catalog->needs_statistics(list, choice->index)) return QZ_OK;
    return qz_recipe_fail(r, path, "the %s \"%s\" needs statistics of calibration text, but %s", list->kind,
                          choice->name, why);
}

static qz_status check_statistics(reader *r, const qz_recipe_weights *w)
{
    QZ_TRY(check_needs(r, "weights.range", r->catalog->ranges, &w->range));
    return check_needs(r, "weights.solver", r->catalog->solvers, &w->solver);
}

/* Formats whose codes are numbers by themselves: the key may be left out, but false is a mistake. */
static qz_status check_symmetric(reader *r, const qz_json_node *part, const char *path, const char *format, bool *out)
{
    const qz_json_node *symmetric = qz_json_get(part, "symmetric");
    if (symmetric && !qz_json_true(symmetric))
        return qz_recipe_fail(r, path, "found false, but %s has no zero points; set true or leave the key out", format);
    *out = true;
    return QZ_OK;
}

static qz_status check_float_group(reader *r, const char *path, const char *format, int64_t group)
{
    if (group <= 0) return QZ_OK;
    return qz_recipe_fail(r, path, "found %lld, but %s takes \"channel\", \"tensor\" or \"block\"", (long long)group,
                          format);
}

static qz_status check_integer_group(reader *r, const char *path, const char *format, int64_t group)
{
    if (group != QZ_GROUP_BLOCK) return QZ_OK;
    return qz_recipe_fail(r, path,
                          "found \"block\", but %s takes a number of inputs, \"channel\" or \"tensor\"; blocks are "
                          "for fp8",
                          format);
}

/* Block sizes that every release of bitsandbytes with 4 bits takes (functional.py, quantize_4bit; 0.50 takes 32 too).
 */
static qz_status check_codebook_group(reader *r, const char *path, const char *format, const qz_json_node *part,
                                      int64_t *group)
{
    if (!qz_json_get(part, "group")) *group = 64;
    if (*group >= 64 && *group <= 4096 && (*group & (*group - 1)) == 0) return QZ_OK;
    return qz_recipe_fail(r, path,
                          "%s takes a group of 64, 128, 256, 512, 1024, 2048 or 4096; 64 is what "
                          "bitsandbytes takes when nothing is said",
                          format);
}

qz_status qz_recipe_check_scheme(reader *r, const char *path, const qz_json_node *part, qz_recipe_weights *w)
{
    const qz_format_info *format = qz_format_of(w->format);
    char symmetric[QZ_RECIPE_PATH], group[QZ_RECIPE_PATH], twice[QZ_RECIPE_PATH];
    snprintf(symmetric, sizeof symmetric, "%s.symmetric", path);
    snprintf(group, sizeof group, "%s.group", path);
    snprintf(twice, sizeof twice, "%s.double_quant", path);
    bool integer = format->kind == QZ_KIND_INTEGER, codebook = format->kind == QZ_KIND_CODEBOOK;
    if (!integer) QZ_TRY(check_symmetric(r, part, symmetric, format->name, &w->symmetric));
    if (integer) QZ_TRY(check_integer_group(r, group, format->name, w->group));
    if (format->kind == QZ_KIND_FLOAT) QZ_TRY(check_float_group(r, group, format->name, w->group));
    if (codebook) QZ_TRY(check_codebook_group(r, group, format->name, part, &w->group));
    if (w->double_quant && !codebook)
        return qz_recipe_fail(r, twice, "found true, but %s has none: it is for nf4 and fp4", format->name);
    return QZ_OK;
}

qz_status qz_recipe_check_weights(reader *r, const qz_json_node *root, qz_recipe_weights *w)
{
    QZ_TRY(qz_recipe_check_scheme(r, "weights", qz_json_get(root, "weights"), w));
    return check_statistics(r, w);
}

/* Training may leave all weights as they are; then there is nothing that the rest could be about. */
static qz_status check_no_weights(reader *r, const qz_json_node *root)
{
    static const char *const need_weights[] = {"transforms", "activations", "kv_cache", "overrides", NULL};
    if (!r->recipe->train.wanted) return qz_recipe_fail(r, "weights", "missing: %s", qz_field_at("weights")->help);
    for (const char *const *key = need_weights; *key; key++) {
        const qz_json_node *node = qz_json_get(root, *key);
        if (node && !(qz_json_is(node, QZ_JSON_ARRAY) && qz_json_count(node) == 0))
            return qz_recipe_fail(r, *key, "nothing is quantized without \"weights\": add it, or leave this key out");
    }
    return QZ_OK;
}

/* An override that sets the mode alone leaves the base's observer behind. */
static qz_status check_dynamic(reader *r, const qz_json_node *part, qz_recipe_activations *a)
{
    const qz_json_node *own = r->entry ? qz_json_get(r->entry, "activations") : part;
    const qz_json_node *observer = qz_json_get(own, "observer");
    if (observer && !qz_json_is(observer, QZ_JSON_NULL))
        return qz_recipe_fail(r, "activations.observer",
                              "dynamic scales are not observed: leave the key out, or "
                              "set the mode to \"static\"");
    a->observer = (qz_choice){.index = -1};
    if (a->group > 0) a->mode = QZ_ACT_GROUP;
    return QZ_OK;
}

static qz_status check_static(reader *r, const qz_recipe_activations *a)
{
    const char *why = no_scales(r->recipe);
    if (a->group > 0)
        return qz_recipe_fail(r, "activations.group",
                              "found %lld, but static activations have one scale for all; "
                              "leave the key out, or set the mode to \"dynamic\"",
                              (long long)a->group);
    if (!why) return QZ_OK;
    return qz_recipe_fail(r, "activations.mode", "static scales need statistics of calibration text, but %s", why);
}

qz_status qz_recipe_check_activations(reader *r, const qz_json_node *root, qz_recipe_activations *a)
{
    const qz_format_info *format = qz_format_of(a->format);
    const qz_json_node *part = qz_json_get(root, "activations");
    if (a->mode == QZ_ACT_NONE) return QZ_OK;
    if (format->kind == QZ_KIND_FLOAT)
        QZ_TRY(check_symmetric(r, part, "activations.symmetric", format->name, &a->symmetric));
    return a->mode == QZ_ACT_TENSOR ? check_static(r, a) : check_dynamic(r, part, a);
}

static qz_status check_cache(reader *r)
{
    const char *why = no_scales(r->recipe);
    if (!r->recipe->kv_cache.scheme.wanted || !why) return QZ_OK;
    return qz_recipe_fail(r, "kv_cache", "scales need statistics of calibration text, but %s", why);
}

/* A threshold that nothing is held against would pass for a promise. */
qz_status qz_recipe_check_figures(reader *r, const qz_json_node *root)
{
    const qz_json_node *evaluate = qz_json_get(root, "evaluate"), *accept = qz_json_get(evaluate, "accept");
    if (!accept || qz_json_get(evaluate, "data")) return QZ_OK;
    for (size_t i = 0; i < qz_recipe_field_count; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        if (qz_field_is_in(f, "evaluate.accept") && qz_json_get(accept, qz_field_key(f)))
            return qz_recipe_fail(r, f->path, "this figure is not evaluated: evaluate.data: missing");
    }
    return QZ_OK;
}

static qz_status check_accept(reader *r)
{
    const char *why = no_statistics(r->recipe);
    if (r->recipe->evaluate.accept_layer_error == 0 || !why) return QZ_OK;
    return qz_recipe_fail(r, "evaluate.accept.layer_error", "layer errors are measured on the calibration text, but %s",
                          why);
}

static qz_status check_transforms(reader *r)
{
    const qz_recipe *recipe = r->recipe;
    for (int i = 0; i < recipe->transforms; i++) {
        char path[64];
        snprintf(path, sizeof path, "transforms.%d", i);
        QZ_TRY(check_needs(r, path, r->catalog->transforms, &recipe->transform[i]));
    }
    return QZ_OK;
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
    const bool quantizes = r->recipe->weights.wanted;
    QZ_TRY(check_transforms(r));
    if (!quantizes) QZ_TRY(check_no_weights(r, root));
    if (quantizes) QZ_TRY(qz_recipe_check_weights(r, root, &r->recipe->weights));
    QZ_TRY(qz_recipe_check_activations(r, root, &r->recipe->activations));
    QZ_TRY(check_cache(r));
    QZ_TRY(check_accept(r));
    if (r->recipe->train.wanted) QZ_TRY(qz_recipe_check_train(r, root));
    return check_paths(r);
}
