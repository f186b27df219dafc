/* See choices.h. */
#include "calib/choices.h"

static const qz_recipe_exception *exception_of(const qz_recipe *r, const char *module)
{
    for (int i = r->overrides - 1; i >= 0; i--)
        if (qz_patterns_match(&r->override[i].match, module)) return &r->override[i];
    return NULL;
}

bool qz_choice_skips(const qz_recipe *r, const char *module)
{
    const qz_recipe_exception *e = exception_of(r, module);
    return (e && e->skip) || qz_patterns_match(&r->weights.skip, module);
}

const qz_recipe_weights *qz_choice_weights(const qz_recipe *r, const char *module)
{
    const qz_recipe_exception *e = exception_of(r, module);
    return e ? &e->weights : &r->weights;
}

const qz_recipe_activations *qz_choice_activations(const qz_recipe *r, const char *module)
{
    const qz_recipe_exception *e = exception_of(r, module);
    return e ? &e->activations : &r->activations;
}

qz_search_weight qz_choice_range(const qz_recipe_weights *w, qz_role role)
{
    const qz_range *range = qz_range_at((size_t)w->range.index);
    const bool product = role == QZ_ROLE_Q || role == QZ_ROLE_K;
    if (!product || !range->for_products)
        return (qz_search_weight){.range = range, .range_options = w->range.options};
    range = range->for_products;
    return (qz_search_weight){.range = range, .range_options = qz_options_default(range->plugin.options)};
}

static unsigned needs_of(const qz_recipe_weights *w, const qz_recipe_activations *a)
{
    return qz_range_at((size_t)w->range.index)->needs | qz_solver_at((size_t)w->solver.index)->needs |
           (a->mode == QZ_ACT_TENSOR ? QZ_NEED_ABSMAX | QZ_NEED_RESERVOIR | QZ_NEED_HISTOGRAM : 0u);
}

unsigned qz_choice_needs(const qz_recipe *r)
{
    unsigned needs = needs_of(&r->weights, &r->activations);
    for (int i = 0; i < r->overrides; i++) needs |= needs_of(&r->override[i].weights, &r->override[i].activations);
    for (int i = 0; i < r->transforms; i++) needs |= qz_transform_at((size_t)r->transform[i].index)->needs;
    if (r->kv_cache.scheme.wanted) needs |= QZ_NEED_HISTOGRAM;
    return needs;
}
