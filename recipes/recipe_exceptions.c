/* "overrides": what some linears have instead. An entry's "weights" and "activations" are laid over the recipe's and
 * the result is read by the same rows of the table, so an entry may hold whatever those objects may hold. */
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

static const char *const merged_keys[] = {"weights", "activations", NULL};

/* {"weights": ..., "activations": ...} as they are for this entry. */
static qz_status merge(qz_json **out, const qz_json_node *root, const qz_json_node *entry)
{
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_json_begin_object(w, NULL);
    for (const char *const *key = merged_keys; *key; key++) {
        const qz_json_node *base = qz_json_get(root, *key), *change = qz_json_get(entry, *key);
        if (change)
            qz_recipe_put_merged(w, *key, base, change);
        else if (base)
            qz_recipe_put_node(w, *key, base);
    }
    qz_json_end(w);
    return qz_recipe_writer_parse(out, w);
}

static qz_status read_merged(reader *r, const qz_json_node *merged, qz_recipe_exception *out)
{
    qz_recipe_reader part = *r;
    part.base = (char *)&out->weights;
    part.from = offsetof(qz_recipe, weights);
    QZ_TRY(qz_recipe_read_field(&part, qz_field_at("weights"), merged));
    part.base = (char *)&out->activations;
    part.from = offsetof(qz_recipe, activations);
    QZ_TRY(qz_recipe_read_field(&part, qz_field_at("activations"), merged));
    if (r->relaxed) return QZ_OK;
    QZ_TRY(qz_recipe_check_weights(r, merged, &out->weights));
    QZ_TRY(qz_recipe_check_trained(r, &out->weights));
    return qz_recipe_check_activations(r, merged, &out->activations);
}

static qz_status read_own(reader *r, const char *prefix, const qz_json_node *entry, qz_recipe_exception *out)
{
    qz_recipe_reader own = *r;
    own.prefix = prefix;
    own.cut = strlen("overrides.");
    own.base = (char *)out;
    own.outer = NULL;
    QZ_TRY(qz_recipe_read_object(&own, "overrides", entry));
    if (out->match.count == 0 && !r->relaxed)
        return qz_recipe_fail(&own, "overrides.match", "found no pattern, expected at least one");
    return QZ_OK;
}

static qz_status read_entry(reader *r, const char *prefix, const qz_json_node *root, const qz_json_node *entry,
                            qz_recipe_exception *out)
{
    qz_json *doc;
    QZ_TRY(read_own(r, prefix, entry, out));
    qz_recipe_reader inner = *r;
    inner.prefix = prefix;
    inner.entry = entry;
    inner.outer = r;
    QZ_TRY(merge(&doc, root, entry));
    qz_status status = read_merged(&inner, qz_json_root(doc), out);
    qz_json_close(doc);
    const qz_json_node *skip = qz_json_get(entry, "skip");
    if (skip && !out->skip) out->weights.skip.count = 0;
    return status;
}

qz_status qz_recipe_read_exceptions(reader *r, const qz_json_node *root)
{
    qz_recipe *recipe = r->recipe;
    const qz_json_node *list = qz_json_get(root, "overrides");
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c)) {
        char prefix[QZ_RECIPE_PATH];
        snprintf(prefix, sizeof prefix, "%soverrides.%d.", r->prefix ? r->prefix : "", recipe->overrides);
        QZ_TRY(read_entry(r, prefix, root, c, &recipe->override[recipe->overrides]));
        recipe->overrides++;
    }
    return QZ_OK;
}

bool qz_recipe_module(const qz_recipe *r, const char *module, const qz_recipe_weights **weights,
                      const qz_recipe_activations **activations)
{
    bool skip = false;
    *weights = &r->weights;
    *activations = &r->activations;
    for (int i = 0; i < r->overrides; i++) {
        const qz_recipe_exception *e = &r->override[i];
        if (!qz_patterns_match(&e->match, module)) continue;
        *weights = &e->weights;
        *activations = &e->activations;
        skip = e->skip;
    }
    return (*weights)->wanted && !skip && !qz_patterns_match(&(*weights)->skip, module);
}
