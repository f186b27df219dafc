/* See outside.h. */
#include "calib/outside.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum { NAME = 256 };

/* "lm_head.weight" -> "lm_head"; recipes name it even where the model has none of its own. */
static const char *head_name(char out[NAME], const qz_model *m)
{
    const char *tensor = qz_model_family(m)->names->head, *dot = strrchr(tensor, '.');
    snprintf(out, NAME, "%.*s", (int)(dot ? dot - tensor : 0), tensor);
    return out;
}

static bool matches(const char *pattern, const char *module)
{
    const qz_patterns one = {.pattern = {pattern}, .count = 1};
    return qz_patterns_match(&one, module);
}

static bool matches_linear(const char *pattern, const qz_model *m)
{
    for (int i = 0; i < (int)qz_model_config_of(m)->layers; i++)
        for (int j = 0; j < qz_model_linears(m, i); j++)
            if (matches(pattern, qz_model_linear_name(m, i, j))) return true;
    return false;
}

/* ---- patterns that match nothing ---- */

static bool matches_head(const char *pattern, const qz_model *m)
{
    char module[NAME];
    return matches(pattern, head_name(module, m));
}

static bool matches_router(const char *pattern, const qz_model *m)
{
    for (int i = 0; i < (int)qz_model_config_of(m)->layers; i++)
        if (qz_model_router_name(m, i) && matches(pattern, qz_model_router_name(m, i))) return true;
    return false;
}

static void warn_unmatched(const char *where, const qz_patterns *p, const qz_patterns *told, const qz_model *m)
{
    for (int i = 0; i < p->count; i++) {
        const char *pattern = p->pattern[i];
        bool known = matches_head(pattern, m) || matches(pattern, qz_model_end_name(m, QZ_END_EMBEDDING)) ||
                     matches_linear(pattern, m) || matches_router(pattern, m);
        for (int j = 0; told && j < told->count; j++) known |= strcmp(told->pattern[j], pattern) == 0;
        if (!known)
            qz_warn("%s: \"%s\" matches no module of the model; names look like %s", where, pattern,
                    qz_model_linear_name(m, 0, 0));
    }
}

/* Only the linears of the layers can have an adapter. */
static void warn_adapter(const qz_recipe_adapter *a, const qz_model *m)
{
    for (int i = 0; i < a->targets.count; i++)
        if (!matches_linear(a->targets.pattern[i], m))
            qz_warn("train.adapter.targets: \"%s\" matches no linear of the layers; names look like %s",
                    a->targets.pattern[i], qz_model_linear_name(m, 0, 0));
    if (a->base.wanted) warn_unmatched("train.adapter.base.skip", &a->base.skip, NULL, m);
}

void qz_outside_warn_unmatched(const qz_recipe *recipe, const qz_model *model)
{
    char where[64];
    if (recipe->train.adapter.wanted) warn_adapter(&recipe->train.adapter, model);
    warn_unmatched("weights.skip", &recipe->weights.skip, NULL, model);
    for (int i = 0; i < recipe->overrides; i++) {
        const qz_recipe_exception *e = &recipe->override[i];
        snprintf(where, sizeof where, "overrides.%d.match", i);
        warn_unmatched(where, &e->match, NULL, model);
        snprintf(where, sizeof where, "overrides.%d.weights.skip", i);
        warn_unmatched(where, &e->weights.skip, &recipe->weights.skip, model);
    }
}

/* ---- what is quantized ---- */

/* The override that names the embeddings and no linear; the last one holds. */
static const qz_recipe_exception *names_embedding(const qz_recipe *r, const qz_model *m)
{
    const char *module = qz_model_end_name(m, QZ_END_EMBEDDING);
    const qz_recipe_exception *found = NULL;
    for (int i = 0; i < r->overrides; i++)
        for (int j = 0; j < r->override[i].match.count; j++) {
            const char *pattern = r->override[i].match.pattern[j];
            if (matches(pattern, module) && !matches_linear(pattern, m)) found = &r->override[i];
        }
    return found;
}

static void warn_of_inputs(const qz_recipe_activations *a, const char *module)
{
    if (a->mode != QZ_ACT_NONE)
        qz_warn("%s: its input stays as it is; only inputs of the layers' linears are rounded", module);
}

static qz_status find_head(qz_outside *out, int *count, const qz_recipe *r, const qz_model *m)
{
    const char *module = qz_model_end_name(m, QZ_END_HEAD);
    char name[NAME];
    const char *looked_up = head_name(name, m);
    const qz_recipe_activations *activations;
    out->end = QZ_END_HEAD;
    out->module = module;
    out->quantized = qz_recipe_module(r, looked_up, &out->weights, &activations);
    *count += module && (out->quantized || qz_ckpt_is_quantized(qz_model_ckpt(m), module));
    if (!out->quantized) return QZ_OK;
    if (!module)
        return QZ_FAIL(
            QZ_ARG,
            "weights.skip: %s is not skipped, but the model ties it to %s (tie_word_embeddings), which would "
            "be quantized with it; skip \"%s\", or untie the model: store its weights and set "
            "tie_word_embeddings to false",
            looked_up, qz_model_end_name(m, QZ_END_EMBEDDING), looked_up);
    warn_of_inputs(activations, module);
    return QZ_OK;
}

static qz_status find_embedding(qz_outside *out, int *count, const qz_recipe *r, const qz_model *m)
{
    const qz_recipe_exception *e = names_embedding(r, m);
    const char *module = qz_model_end_name(m, QZ_END_EMBEDDING);
    *out = (qz_outside){QZ_END_EMBEDDING, module, e ? &e->weights : &r->weights, false};
    *count += qz_ckpt_is_quantized(qz_model_ckpt(m), module);
    if (!e || e->skip || qz_patterns_match(&e->weights.skip, module)) return QZ_OK;
    if (qz_model_config_of(m)->tied)
        return QZ_FAIL(
            QZ_ARG,
            "overrides: %s is to be quantized, but it is the output head too (tie_word_embeddings); take the "
            "override away, or untie the model: store the head's weights and set tie_word_embeddings to false",
            module);
    *count += !qz_ckpt_is_quantized(qz_model_ckpt(m), module);
    out->quantized = true;
    return QZ_OK;
}

qz_status qz_outside_find(qz_outside out[QZ_ENDS], int *count, const qz_recipe *recipe, const qz_model *model)
{
    *count = 0;
    QZ_TRY(find_head(&out[0], count, recipe, model));
    return find_embedding(&out[*count], count, recipe, model);
}

const qz_export_linear *qz_outside_planned(const qz_export_plan *plan, const qz_model *model, qz_end end)
{
    const char *module = qz_model_end_name(model, end);
    for (size_t i = plan->first[plan->layers]; module && i < plan->linears; i++)
        if (strcmp(plan->linear[i].module, module) == 0) return &plan->linear[i];
    return NULL;
}

qz_status qz_outside_even(qz_stats *out, int64_t k, qz_arena *arena)
{
    QZ_TRY(qz_stats_new(out, k, (qz_stats_wants){0}, 0, 0, arena));
    for (int64_t i = 0; i < k; i++) {
        out->gram[i * (k + 1)] = 1;
        out->absmax[i] = 1;
        out->abssum[i] = 1;
    }
    out->tokens = 1;
    return QZ_OK;
}
