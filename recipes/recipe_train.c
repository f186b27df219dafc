/* Training, as a recipe says it: what depends on the mode is filled in, and what contradicts itself is refused.
 *
 * The modes, and what they take when nothing is said (the sources of the figures are in docs/training.md):
 *
 *                      learning_rate  weight_decay  steps  scales
 *     start random     1e-3           0.1           2000   by the quantizer
 *     adapter          2e-4           0             500    by the quantizer
 *     all, scales      1e-4           0             1000   by the quantizer
 *
 * Scales by the quantizer are learned (lsq, lsq+), frozen (with init) or dynamic.
 *
 * After this the recipe's values are final, and stand in its canonical text; nothing that reads them knows a default.
 */
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

bool qz_recipe_starts_from_ptq(const qz_recipe *r)
{
    return r->train.wanted && r->train.init && strcmp(r->train.init, "ptq") == 0;
}

/* ---- what is filled in ---- */

static void set_absent(double *value, const qz_json_node *object, const char *key, double fallback)
{
    if (!qz_json_get(object, key)) *value = fallback;
}

static qz_train_scales default_scales(const qz_recipe_train *t)
{
    if (t->quantizer.method != QZ_TRAIN_STE) return QZ_TRAIN_LEARNED;
    return t->init ? QZ_TRAIN_FROZEN : QZ_TRAIN_DYNAMIC;
}

/* LSQ+ learns the zero point as scale times code. Scales of trained models are about 1/50 (our demo model: 0.01 to
 * 0.05), so a step in its codes is that much longer. */
static const double codes_a_scale = 50;

/* Of what is not learned none is filled in, so that one that is there was given. */
static void fill_rates(qz_recipe_train *t, const qz_json_node *train)
{
    if (qz_recipe_learns_scales(t)) set_absent(&t->scale_learning_rate, train, "scale_learning_rate", t->learning_rate);
    if (qz_recipe_learns_offsets(t))
        set_absent(&t->offset_learning_rate, train, "offset_learning_rate", codes_a_scale * t->scale_learning_rate);
}

static void fill_defaults(qz_recipe *recipe, const qz_json_node *train)
{
    qz_recipe_train *t = &recipe->train;
    const bool random = t->start == QZ_TRAIN_FROM_RANDOM, adapter = t->parameters == QZ_TRAIN_ADAPTER;
    set_absent(&t->learning_rate, train, "learning_rate", random ? 1e-3 : adapter ? 2e-4 : 1e-4);
    set_absent(&t->weight_decay, train, "weight_decay", random ? 0.1 : 0);
    if (t->steps == 0) t->steps = random ? 2000 : adapter ? 500 : 1000;
    if (t->micro_batch == 0) t->micro_batch = t->batch;
    t->adapter.wanted = t->adapter.wanted || adapter;
    t->quantizer.wanted = t->quantizer.wanted || (recipe->weights.wanted && (!adapter || t->adapter.merge_aware));
    if (!qz_json_get(qz_json_get(train, "quantizer"), "scales")) t->quantizer.scales = default_scales(t);
    fill_rates(t, train);
}

/* ---- what is refused ---- */

static qz_status check_batch(reader *r, const qz_recipe_train *t)
{
    if (t->batch % t->micro_batch == 0) return QZ_OK;
    return qz_recipe_fail(r, "train.micro_batch", "found %lld, which does not divide train.batch, %lld",
                          (long long)t->micro_batch, (long long)t->batch);
}

static qz_status check_start(reader *r, const qz_recipe_train *t)
{
    if (t->start != QZ_TRAIN_FROM_RANDOM) return QZ_OK;
    if (t->init)
        return qz_recipe_fail(r, "train.init",
                              "there is nothing to quantize in random weights: leave it out, or set "
                              "train.start to \"model\"");
    if (t->parameters != QZ_TRAIN_ALL)
        return qz_recipe_fail(r, "train.parameters",
                              "random weights have to be trained themselves: set \"all\", or train.start to \"model\"");
    if (t->loss.divergence > 0 && !t->loss.teacher)
        return qz_recipe_fail(r, "train.loss.teacher",
                              "missing: the divergence from the model before training would be that from random "
                              "weights; name a folder, or set train.loss.divergence to 0");
    return QZ_OK;
}

static qz_status check_loss(reader *r, const qz_recipe_train *t)
{
    if (t->loss.cross_entropy == 0 && t->loss.divergence == 0)
        return qz_recipe_fail(r, "train.loss",
                              "cross_entropy and divergence are both 0, so there is nothing to learn: set one of them");
    if (t->loss.teacher && t->loss.divergence == 0)
        return qz_recipe_fail(r, "train.loss.teacher",
                              "a teacher is asked for the divergence only, whose weight is 0: set "
                              "train.loss.divergence, or leave the teacher out");
    return QZ_OK;
}

static qz_status check_validation(reader *r, const qz_recipe_train *t)
{
    if (!t->validation.wanted || !r->recipe->evaluate.wanted) return QZ_OK;
    if (strcmp(t->validation.data, r->recipe->evaluate.data) != 0) return QZ_OK;
    return qz_recipe_fail(r, "train.validation.data",
                          "found the text of evaluate.data, \"%s\": what training is chosen by cannot be what it is "
                          "measured on; name another text",
                          t->validation.data);
}

static qz_status check_evaluations(reader *r, const qz_recipe_train *t)
{
    if (r->recipe->evaluate.accept_layer_error > 0)
        return qz_recipe_fail(r, "evaluate.accept.layer_error",
                              "errors of layers are measured by `qcal run` only: leave it out of a recipe that trains");
    QZ_TRY(check_validation(r, t));
    const char *key = t->evaluate_every > 0 ? "train.evaluate_every"
                      : t->patience > 0     ? "train.patience"
                      : t->keep_best        ? "train.keep_best"
                                            : NULL;
    if (!key) return QZ_OK;
    if (!t->validation.wanted)
        return qz_recipe_fail(r, key,
                              "train.validation is missing: name a text to judge by, another one than evaluate.data, "
                              "so that the figures at the end are of a text that nothing was chosen on");
    if (t->evaluate_every > 0) return QZ_OK;
    return qz_recipe_fail(r, key, "nothing is evaluated while training: set train.evaluate_every");
}

/* ---- the quantizer ---- */

static const char *method_name(const qz_recipe_quantizer *q)
{
    static const char *const names[] = {[QZ_TRAIN_STE] = "ste", [QZ_TRAIN_LSQ] = "lsq", [QZ_TRAIN_LSQ_PLUS] = "lsq+"};
    return names[q->method];
}

static qz_status check_method(reader *r, const qz_recipe_quantizer *q)
{
    const bool learned = q->scales == QZ_TRAIN_LEARNED;
    if (q->method == QZ_TRAIN_STE && learned)
        return qz_recipe_fail(r, "train.quantizer.scales",
                              "found \"learned\", but ste has no gradient of a scale: set train.quantizer.method to "
                              "\"lsq\" or \"lsq+\"");
    if (q->method == QZ_TRAIN_STE) return QZ_OK;
    if (!learned)
        return qz_recipe_fail(r, "train.quantizer.scales",
                              "%s learns the scales: set \"learned\", or train.quantizer.method to \"ste\"",
                              method_name(q));
    if (q->pass)
        return qz_recipe_fail(r, "train.quantizer.gradient",
                              "found \"pass\", but %s stops the gradient of clipped weights: leave the key out",
                              method_name(q));
    return QZ_OK;
}

/* Codes are trained with the groups of neighbours that they are stored in. */
static qz_status check_order(reader *r, const qz_recipe_weights *w)
{
    if (!qz_weights_ordered(w) || w->group <= 0) return QZ_OK;
    return qz_recipe_fail(r, "weights.solver.order",
                          "found \"desc\", whose groups are permuted (g_idx), which is not trained with: set "
                          "\"static\"");
}

qz_status qz_recipe_check_trained(reader *r, const qz_recipe_weights *w)
{
    const qz_recipe_quantizer *q = &r->recipe->train.quantizer;
    const qz_format_info *format = qz_format_of(w->format);
    if (!q->wanted) return QZ_OK;
    if (q->method != QZ_TRAIN_STE && format->kind != QZ_KIND_INTEGER)
        return qz_recipe_fail(
            r, "weights.format",
            "found \"%s\", but scales are learned of integer formats only: set train.quantizer.method "
            "to \"ste\"",
            format->name);
    if (w->double_quant)
        return qz_recipe_fail(r, "weights.double_quant",
                              "found true, but scales that are quantized themselves are not trained through: set "
                              "false, or train an adapter with train.adapter.merge_aware false and double_quant in "
                              "train.adapter.base");
    if (q->method == QZ_TRAIN_LSQ_PLUS && w->symmetric)
        return qz_recipe_fail(
            r, "weights.symmetric",
            "found true, but lsq+ learns zero points: set false, or train.quantizer.method to \"lsq\"");
    if (!qz_recipe_starts_from_ptq(r->recipe) && w->range.index > 0)
        return qz_recipe_fail(r, "weights.range",
                              "found \"%s\", but training takes its scales from the extremes of the weights and runs a "
                              "range only with train.init \"ptq\": set it, or leave the range out",
                              w->range.name);
    if (!qz_recipe_starts_from_ptq(r->recipe) && w->solver.index > 0)
        return qz_recipe_fail(r, "weights.solver",
                              "found \"%s\", but training rounds to nearest and runs a solver only with train.init "
                              "\"ptq\": set it, or leave the solver out",
                              w->solver.name);
    return check_order(r, w);
}

/* Where the quantizer's scales come from. */
static qz_status check_sources(reader *r, const qz_recipe_train *t)
{
    if (t->init && t->quantizer.scales == QZ_TRAIN_DYNAMIC)
        return qz_recipe_fail(r, "train.quantizer.scales",
                              "found \"dynamic\", which would throw the scales of train.init away: set \"learned\" or "
                              "\"frozen\"");
    if (!qz_recipe_starts_from_ptq(r->recipe) && r->recipe->transforms > 0)
        return qz_recipe_fail(r, "transforms",
                              "they are fitted before training only with train.init \"ptq\": set it, or "
                              "leave them out");
    return qz_recipe_check_trained(r, &r->recipe->weights);
}

static qz_status check_no_quantizer(reader *r, const qz_recipe_train *t)
{
    if (t->init)
        return qz_recipe_fail(r, "train.init", "nothing is rounded while training (%s): leave it out",
                              r->recipe->weights.wanted ? "train.adapter.merge_aware is false" : "there is no weights");
    if (t->parameters == QZ_TRAIN_SCALES)
        return qz_recipe_fail(r, "train.parameters", "there are no scales without \"weights\": add it, or set \"all\"");
    return QZ_OK;
}

static qz_status check_quantizer(reader *r, const qz_recipe_train *t)
{
    const qz_recipe_quantizer *q = &t->quantizer;
    const bool adapter = t->parameters == QZ_TRAIN_ADAPTER;
    if (!q->wanted) return check_no_quantizer(r, t);
    if (!r->recipe->weights.wanted)
        return qz_recipe_fail(r, "train.quantizer",
                              "there is nothing to round without \"weights\": add it, or leave the "
                              "quantizer out");
    if (adapter && !t->adapter.merge_aware)
        return qz_recipe_fail(r, "train.quantizer",
                              "an adapter is trained beside unrounded weights unless it is merge_aware: set "
                              "train.adapter.merge_aware, or leave the quantizer out");
    if (t->parameters == QZ_TRAIN_SCALES && q->scales != QZ_TRAIN_LEARNED)
        return qz_recipe_fail(r, "train.parameters",
                              "found \"scales\", but they are not learned: set train.quantizer.method to \"lsq\"");
    if (q->after >= t->steps)
        return qz_recipe_fail(r, "train.quantizer.after", "found %lld, but training ends after %lld steps",
                              (long long)q->after, (long long)t->steps);
    QZ_TRY(check_method(r, q));
    return check_sources(r, t);
}

/* ---- the adapter ---- */

static qz_status check_loftq(reader *r, const qz_recipe_adapter *a)
{
    if (!a->loftq || a->base.wanted) return QZ_OK;
    return qz_recipe_fail(
        r, "train.adapter.start",
        "found \"loftq\", which makes good what quantizing the base loses: add train.adapter.base, or "
        "set \"zeros\"");
}

static qz_status check_merge(reader *r, const qz_recipe_train *t)
{
    const qz_recipe_adapter *a = &t->adapter;
    if (!a->merge_aware) return QZ_OK;
    if (!r->recipe->weights.wanted)
        return qz_recipe_fail(r, "train.adapter.merge_aware",
                              "there is no scheme to round the merged weights by: add \"weights\", or set false");
    if (a->dropout > 0)
        return qz_recipe_fail(
            r, "train.adapter.dropout",
            "found %g, but merge_aware computes with one merged weight, which has no inputs of its own "
            "to leave out: set 0",
            a->dropout);
    if (t->init || t->quantizer.scales != QZ_TRAIN_DYNAMIC)
        return qz_recipe_fail(
            r, t->init ? "train.init" : "train.quantizer.scales",
            "the merged weight changes with its adapter and gets its scales from itself in each step: "
            "leave this out");
    if (t->quantizer.freeze > 0)
        return qz_recipe_fail(r, "train.quantizer.freeze",
                              "found %g, but codes of merged weights are not followed from step to step, so none can "
                              "be frozen: leave it out",
                              t->quantizer.freeze);
    return QZ_OK;
}

static qz_status check_adapter(reader *r, const qz_json_node *train, qz_recipe_train *t)
{
    qz_recipe_adapter *a = &t->adapter;
    if (!a->wanted) return QZ_OK;
    if (t->parameters != QZ_TRAIN_ADAPTER)
        return qz_recipe_fail(r, "train.adapter",
                              "train.parameters does not ask for an adapter: set it to \"adapter\", or leave this out");
    const qz_json_node *base = qz_json_get(qz_json_get(train, "adapter"), "base");
    if (a->base.wanted) QZ_TRY(qz_recipe_check_scheme(r, "train.adapter.base", base, &a->base));
    QZ_TRY(check_loftq(r, a));
    return check_merge(r, t);
}

qz_status qz_recipe_check_train(reader *r, const qz_json_node *root)
{
    qz_recipe_train *t = &r->recipe->train;
    const qz_json_node *train = qz_json_get(root, "train");
    if (r->outer)
        return qz_recipe_fail(r, "train", "a recipe that trains writes one checkpoint: leave \"outputs\" out");
    fill_defaults(r->recipe, train);
    QZ_TRY(check_batch(r, t));
    QZ_TRY(check_start(r, t));
    QZ_TRY(check_loss(r, t));
    QZ_TRY(check_evaluations(r, t));
    QZ_TRY(check_adapter(r, train, t));
    return check_quantizer(r, t);
}
