/* See choices.h. */
#include "calib/choices.h"

const qz_recipe_weights *qz_choice_weights(const qz_recipe *r, const char *module)
{
    const qz_recipe_weights *weights;
    const qz_recipe_activations *activations;
    (void)qz_recipe_module(r, module, &weights, &activations);
    return weights;
}

qz_search_weight qz_choice_range(const qz_recipe_weights *w, qz_role role)
{
    const qz_range *range = qz_range_at((size_t)w->range.index);
    const bool product = role == QZ_ROLE_Q || role == QZ_ROLE_K;
    if (!product || !range->for_products) return (qz_search_weight){.range = range, .range_options = w->range.options};
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
