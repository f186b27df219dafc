/* See train_rules.h. */
#include "train/train_rules.h"

#include <math.h>

/* Targets as in weights.skip: by name, last part, or glob; none given: every linear. */
static bool is_target(void *context, const char *module)
{
    const qz_recipe_train *how = context;
    return how->adapter.targets.count == 0 || qz_patterns_match(&how->adapter.targets, module);
}

static bool keeps_base(void *context, const char *module)
{
    const qz_recipe_train *how = context;
    return qz_patterns_match(&how->adapter.base.skip, module);
}

static void set_adapters(qz_train_rules *out, const qz_recipe_train *how)
{
    const qz_recipe_adapter *a = &how->adapter;
    const double rank = (double)a->rank;
    out->adapters = (qz_student_adapters){.rank = a->rank,
                                          .factor = (float)(a->alpha / (a->rslora ? sqrt(rank) : rank)),
                                          .dropout = (float)a->dropout,
                                          .seed = how->seed,
                                          .merge_aware = a->merge_aware,
                                          .loftq = a->loftq ? a->loftq_iterations : 0,
                                          .wanted = is_target,
                                          .context = (void *)(uintptr_t)how};
    if (a->base.wanted) {
        out->base = qz_weights_scheme(&a->base, QZ_F32);
        out->adapters.base = &out->base;
        out->adapters.base_skips = keeps_base;
    }
    out->student.adapters = &out->adapters;
}

static qz_ste rule_of(const qz_recipe_quantizer *q)
{
    if (q->method != QZ_TRAIN_STE) return QZ_STE_LSQ;
    return q->pass ? QZ_STE_PASS : QZ_STE_CLIP;
}

/* Beside a base that stays as it is, an adapter changes nothing of what is stored. */
static void set_plain(qz_student_rule *out, const qz_train_args *args)
{
    if (!args->plan) return;
    out->plain_type = args->plan->plain_type;
    out->plain_values = !qz_container_at((size_t)args->recipe->output_as.container.index)->holds;
}

static void set_student(qz_train_rules *out, const qz_train_args *args, bool dry)
{
    const qz_recipe_train *how = &args->recipe->train;
    const qz_recipe_quantizer *q = &how->quantizer;
    out->student = (qz_student_rule){.train_weights = how->parameters == QZ_TRAIN_ALL,
                                     .plan = args->plan,
                                     .recompute = how->recompute,
                                     .random = how->start == QZ_TRAIN_FROM_RANDOM,
                                     .seed = how->seed,
                                     .dry = dry};
    out->student.rounding = (qz_student_rounding){.fit = q->scales == QZ_TRAIN_DYNAMIC,
                                                  .learn_scales = q->wanted && q->scales == QZ_TRAIN_LEARNED,
                                                  .learn_activations = q->learned_activations,
                                                  .learn_offsets = q->method == QZ_TRAIN_LSQ_PLUS,
                                                  .watch = q->wanted,
                                                  .freeze = q->freeze,
                                                  .start_from_grid = how->init != NULL,
                                                  .rule = rule_of(q)};
    if (!how->adapter.wanted || how->adapter.merge_aware) set_plain(&out->student, args);
    if (!q->wanted && !how->adapter.merge_aware) out->student.plan = NULL;
    if (how->adapter.wanted) set_adapters(out, how);
}

static qz_status check(const qz_train_args *args)
{
    const qz_model *m = args->model, *teacher = args->teacher;
    if (!teacher || qz_model_config_of(teacher)->vocabulary == qz_model_config_of(m)->vocabulary) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "train.loss.teacher: its vocabulary has %lld entries, the model's %lld; a divergence needs the "
                   "same tokens",
                   (long long)qz_model_config_of(teacher)->vocabulary, (long long)qz_model_config_of(m)->vocabulary);
}

qz_status qz_train_rules_make(qz_train_rules *out, const qz_train_args *args, bool dry)
{
    const qz_recipe_train *how = &args->recipe->train;
    *out = (qz_train_rules){0};
    QZ_TRY(check(args));
    set_student(out, args, dry);
    out->optimizer = qz_optimizer_options_of(how);
    out->step = (qz_step_rule){.micro_batch = how->micro_batch,
                               .cross_entropy = how->loss.cross_entropy,
                               .divergence = how->loss.divergence,
                               .temperature = how->loss.temperature,
                               .bf16 = how->compute == QZ_BF16};
    out->schedule = qz_schedule_of(how);
    return QZ_OK;
}
