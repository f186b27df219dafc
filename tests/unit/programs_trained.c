/* What was trained, through a container and back: the model that is read from the folder has the loss of the student
 * that was written, to the last bit; and adapters in PEFT's files. */
#include "programs/trained_export.h"

#include <math.h>

#include "base/rng.h"
#include "programs/adapter_folder.h"
#include "testing/calib_case.h"
#include "train/step.h"

enum { RANK = 4, LENGTH = 16, SEQUENCES = 3 };

static bool every(void *context, const char *module)
{
    return true;
}

static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32, .double_quant = true};

/* As after some steps. */
static void shake(qz_student *s)
{
    const qz_parameters *p = qz_student_parameters(s);
    qz_rng rng;
    qz_rng_seed(&rng, 12, 0);
    for (int i = 0; i < p->count; i++)
        for (int64_t j = 0; j < qz_tensor_count(&p->list[i].value); j++) {
            float *x = &qz_f32(&p->list[i].value)[j];
            if (p->list[i].group == QZ_PARAMETER_ADAPTER) *x = (float)(0.05 * qz_rng_normal(&rng));
            if (p->list[i].group == QZ_PARAMETER_MATRIX) *x += (float)(0.01 * qz_rng_normal(&rng));
            if (p->list[i].group == QZ_PARAMETER_NORM) *x *= (float)(1 + 0.01 * qz_rng_normal(&rng));
            if (p->list[i].group == QZ_PARAMETER_SCALE) *x *= (float)(1 + 0.05 * qz_rng_normal(&rng));
        }
}

static double loss_of(qz_student *s)
{
    int32_t ids[SEQUENCES * LENGTH], labels[SEQUENCES * LENGTH];
    qz_rng rng;
    qz_stepper *stepper;
    qz_step_loss loss;
    qz_rng_seed(&rng, 5, 0);
    for (int i = 0; i < SEQUENCES * LENGTH; i++) ids[i] = (int32_t)qz_rng_below(&rng, CASE_VOCABULARY);
    for (int i = 0; i < SEQUENCES * LENGTH; i++) labels[i] = (i + 1) % LENGTH ? ids[i + 1] : QZ_LABEL_NONE;
    const qz_step_rule rule = {.micro_batch = SEQUENCES, .cross_entropy = 1, .temperature = 1};
    const qz_step_batch batch = {ids, labels, NULL, SEQUENCES, LENGTH};
    check_ok(qz_stepper_new(&stepper, s, NULL, &rule, false));
    check_ok(qz_stepper_judge(stepper, &batch, &loss));
    qz_stepper_free(stepper);
    return loss.cross_entropy;
}

static bool is_rounded(const qz_export_plan *plan, const char *tensor)
{
    for (size_t i = 0; i < plan->linears; i++) {
        const size_t n = strlen(plan->linear[i].module);
        if (plan->linear[i].quantized && strncmp(tensor, plan->linear[i].module, n) == 0 &&
            strcmp(tensor + n, ".weight") == 0)
            return true;
    }
    return false;
}

/* What is not rounded is stored in half precision: `to` takes it from where it was trained, or from the source. */
static void take_plain(qz_student *to, qz_student *from, const calib_case *c)
{
    const qz_parameters *p = qz_student_parameters(to);
    for (int i = 0; i < p->count; i++) {
        const qz_tensor *value = &p->list[i].value;
        const qz_parameter *trained = qz_parameters_find(qz_student_parameters(from), p->list[i].name);
        if (is_rounded(&c->plan, p->list[i].name)) continue;
        if (trained)
            memcpy(value->data, trained->value.data, (size_t)qz_tensor_count(value) * sizeof(float));
        else
            check_ok(qz_ckpt_read_plain(c->ckpt, p->list[i].name, value->ndim, value->shape, value->data));
    }
}

/* With the rounded weights of a folder. */
static double loss_of_folder(const char *folder, qz_student *from, const calib_case *c)
{
    qz_ckpt *ckpt;
    qz_model *m;
    qz_student *s;
    check_ok(qz_ckpt_open(&ckpt, folder));
    check_ok(qz_model_open(&m, ckpt, qz_backend_best(), NULL));
    check_ok(qz_student_new(&s, m, &(qz_student_rule){.train_weights = true}));
    take_plain(s, from, c);
    const double loss = loss_of(s);
    qz_student_free(s);
    qz_model_close(m);
    qz_ckpt_close(ckpt);
    return loss;
}

/* ---- rounded in training, and in the folder ---- */

static const char *const forms[][CASE_SETS] = {
    {"export.container=compressed-tensors", "weights.symmetric=true", NULL},
    {"export.container=compressed-tensors", "weights.symmetric=false", NULL},
    {"export.container=compressed-tensors", "weights.format=int8", "weights.group=channel", "weights.symmetric=true",
     NULL},
    {"export.container=gptq", "weights.symmetric=true", NULL},
    {"export.container=gptq", "weights.symmetric=false", NULL},
    {"export.container=gptq", "weights.format=int8", "weights.symmetric=true", NULL},
    {"export.container=gptq", "weights.format=int3", "weights.group=64", "weights.symmetric=true", NULL},
    {"export.container=gptq", "weights.format=int2", "weights.symmetric=true", NULL},
    {"export.container=awq", "weights.symmetric=false", NULL},
};
enum { FORMS = sizeof forms / sizeof *forms };

static const char *const plain[] = {"transforms=[]", "weights.range=minmax", NULL};

static calib_case case_of(const char *model, const char *const *form)
{
    const char *sets[CASE_SETS] = {NULL};
    int count = 0;
    for (int i = 0; plain[i]; i++) sets[count++] = plain[i];
    for (int i = 0; form[i]; i++) sets[count++] = form[i];
    calib_case c = case_open(model, sets);
    case_plan(&c);
    return c;
}

static void comes_back(const char *model, int form, const qz_student_rule *rule)
{
    char name[64];
    calib_case c = case_of(model, forms[form]);
    qz_student *s;
    qz_student_rule mine = *rule;
    snprintf(name, sizeof name, "%s-%d-%d-%d", model, form, rule->train_weights, rule->rounding.learn_scales);
    const char *folder = case_folder(name);
    const qz_calib_output output = case_output(&c, folder);
    mine.plan = &c.plan;
    check_ok(qz_student_new(&s, c.model, &mine));
    shake(s);
    const double trained = loss_of(s);
    check_ok(qz_trained_export(s, c.model, &output, NULL));
    const double read = loss_of_folder(folder, s, &c);
    cr_assert(read == trained, "%s, form %d: %.17g in the folder, %.17g trained", model, form, read, trained);
    qz_student_free(s);
    case_close(&c);
}

Test(trained, merge_aware_checkpoints_are_what_was_trained)
{
    const qz_student_adapters how = {.rank = RANK, .factor = 1.5f, .wanted = every, .base = &nf4, .merge_aware = true};
    const qz_student_rule rule = {.adapters = &how, .rounding = {.fit = true, .rule = QZ_STE_CLIP}};
    for (int i = 0; i < FORMS; i++) comes_back("llama", i, &rule);
}

Test(trained, fused_and_biased_linears_too)
{
    const qz_student_adapters how = {.rank = RANK, .factor = 1.5f, .wanted = every, .merge_aware = true};
    const qz_student_rule rule = {.adapters = &how, .rounding = {.fit = true, .rule = QZ_STE_CLIP}};
    comes_back("phi3", 3, &rule);
    comes_back("qwen2", 0, &rule);
}

Test(trained, quantization_aware_training_too)
{
    const qz_student_rule dynamic = {.train_weights = true, .rounding = {.fit = true, .rule = QZ_STE_CLIP}};
    const qz_student_rule learned = {.train_weights = true, .rounding = {.learn_scales = true, .rule = QZ_STE_LSQ}};
    for (int i = 0; i < FORMS; i++) {
        comes_back("llama", i, &dynamic);
        comes_back("llama", i, &learned);
    }
}
