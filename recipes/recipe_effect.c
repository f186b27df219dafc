/* Keys of "train" that nothing would come of: a rate of scales that are not learned, a temperature without the
 * divergence it belongs to. Who sets them expects something, so each is refused with what it needs. Values that are the
 * default pass, since a recipe's canonical text has them too. */
#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

bool qz_recipe_learns_scales(const qz_recipe_train *t)
{
    return t->quantizer.wanted && (t->quantizer.scales == QZ_TRAIN_LEARNED || t->quantizer.learned_activations);
}

bool qz_recipe_learns_offsets(const qz_recipe_train *t)
{
    return t->quantizer.wanted && t->quantizer.method == QZ_TRAIN_LSQ_PLUS;
}

static qz_status check_rates(reader *r, const qz_recipe_train *t)
{
    if (t->scale_learning_rate > 0 && !qz_recipe_learns_scales(t))
        return qz_recipe_fail(r, "train.scale_learning_rate",
                              "found %g, but no scales are learned: set train.quantizer.method to \"lsq\" or \"lsq+\", "
                              "or leave the key out",
                              t->scale_learning_rate);
    if (t->offset_learning_rate > 0 && !qz_recipe_learns_offsets(t))
        return qz_recipe_fail(r, "train.offset_learning_rate",
                              "found %g, but only lsq+ learns zero points: set train.quantizer.method to \"lsq+\", or "
                              "leave the key out",
                              t->offset_learning_rate);
    return QZ_OK;
}

static bool has_static(const qz_recipe *r)
{
    if (r->activations.mode == QZ_ACT_TENSOR) return true;
    for (int i = 0; i < r->overrides; i++)
        if (r->override[i].activations.mode == QZ_ACT_TENSOR) return true;
    return false;
}

static qz_status check_activations(reader *r, const qz_recipe_train *t)
{
    if (!t->quantizer.learned_activations || has_static(r->recipe)) return QZ_OK;
    return qz_recipe_fail(r, "train.quantizer.activations",
                          "found \"learned\", but no activations have static scales: set activations.mode to "
                          "\"static\", or leave the key out");
}

qz_status qz_recipe_check_effects(reader *r)
{
    const qz_recipe_train *t = &r->recipe->train;
    if (!t->wanted) return QZ_OK;
    if (t->loss.temperature != 1 && t->loss.divergence == 0)
        return qz_recipe_fail(r, "train.loss.temperature",
                              "found %g, but it belongs to the divergence, whose weight is 0: set "
                              "train.loss.divergence, or leave the key out",
                              t->loss.temperature);
    if (t->adapter.loftq_iterations > 1 && !t->adapter.loftq)
        return qz_recipe_fail(r, "train.adapter.loftq_iterations",
                              "found %lld, but the adapter starts with zeros: set train.adapter.start to \"loftq\", or "
                              "leave the key out",
                              (long long)t->adapter.loftq_iterations);
    QZ_TRY(check_activations(r, t));
    return check_rates(r, t);
}
