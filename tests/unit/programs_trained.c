/* What was trained, through a container and back: the model that is read from the folder has the loss of the student
 * that was written, to the last bit; and adapters in PEFT's files. */
#include "programs/trained_export.h"

#include <math.h>

#include "base/rng.h"
#include "programs/adapter_folder.h"
#include "testing/calib_case.h"
#include "train/step.h"
#include "train/train.h"

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
            if (p->list[i].group == QZ_PARAMETER_SCALE || p->list[i].group == QZ_PARAMETER_OFFSET)
                *x *= (float)(1 + 0.05 * qz_rng_normal(&rng));
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
    check_ok(qz_stepper_judge(stepper, &batch, &loss, NULL));
    qz_stepper_free(stepper);
    return loss.cross_entropy;
}

/* Of what a folder holds. */
static double loss_of_folder(const char *folder)
{
    qz_ckpt *ckpt;
    qz_model *m;
    qz_student *s;
    check_ok(qz_ckpt_open(&ckpt, folder));
    check_ok(qz_model_open(&m, ckpt, qz_backend_best(), NULL));
    check_ok(qz_student_new(&s, m, &(qz_student_rule){.train_weights = true}));
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
    {"export.container=bitsandbytes", "weights.format=int8", "weights.group=channel", "weights.symmetric=true", NULL},
    {"export.container=compressed-tensors", "weights.format=fp8_e4m3", "weights.group=channel", NULL},
    {"export.container=compressed-tensors", "weights.format=fp8_e4m3", "weights.group=tensor", NULL},
    {"export.container=compressed-tensors", "weights.symmetric=true",
     "weights.skip=[\"lm_head\", \"down_proj\", \"o_proj\"]", NULL},
    {"export.container=dense", "weights.symmetric=true", NULL},
    {"export.container=dense", "export.dtype=float16", "weights.symmetric=false", NULL},
};
enum { FORMS = sizeof forms / sizeof *forms, SKIPPING = 12 };

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

/* Scales of fp8 the recipe refuses to learn. */
static bool is_refused(const calib_case *c, const qz_student_rule *rule)
{
    return rule->rounding.learn_scales && qz_format_of(c->plan.linear[0].scheme.format)->kind == QZ_KIND_FLOAT;
}

/* Servers hold one scale for q, k and v together, and one for gate and up. */
static void check_fused(const qz_student *s, const calib_case *c)
{
    float of_set = 0;
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        qz_qtensor q;
        if (!l->rounded || l->planned->scheme.piece_rows || l->planned->scheme.flat || l->planned->fused < 0) continue;
        const bool begins = strstr(l->module, "q_proj") || strstr(l->module, "gate_proj");
        check_ok(qz_student_codes(s, i, &q, c->arena));
        cr_assert(begins || q.scales[0] == of_set, "%s: %.9g, others %.9g", l->module, q.scales[0], of_set);
        of_set = q.scales[0];
    }
}

static void comes_back(const char *model, int form, const qz_student_rule *rule)
{
    char name[64];
    calib_case c = case_of(model, forms[form]);
    qz_student *s;
    qz_student_rule mine = *rule;
    snprintf(name, sizeof name, "%s-%d-%d-%d-%d", model, form, rule->train_weights, rule->rounding.learn_scales,
             rule->adapters && rule->adapters->base);
    const char *folder = case_folder(name);
    const qz_calib_output output = case_output(&c, folder);
    mine.plan = &c.plan;
    mine.plain_type = c.plan.plain_type;
    mine.plain_values = !qz_container_at((size_t)c.recipe->output_as.container.index)->holds;
    if (is_refused(&c, &mine)) {
        case_close(&c);
        return;
    }
    check_ok(qz_student_new(&s, c.model, &mine));
    check_ok(qz_student_begin_step(s, true)); /* scales have started */
    check_ok(qz_student_end_step(s));
    shake(s);
    const double trained = loss_of(s);
    check_fused(s, &c);
    check_ok(qz_trained_export(s, c.model, &output, NULL));
    const double read = loss_of_folder(folder);
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

static bool some(void *context, const char *module)
{
    return strstr(module, "up_proj") || strstr(module, "down_proj");
}

/* Linears without an adapter, skipped ones with and without; as they are stored, or packed. */
Test(trained, merged_in_part_too)
{
    const qz_student_adapters packed = {
        .rank = RANK, .factor = 1.5f, .wanted = some, .base = &nf4, .base_skips = some, .merge_aware = true};
    const qz_student_adapters stored = {.rank = RANK, .factor = 1.5f, .wanted = some, .merge_aware = true};
    for (int i = 0; i < FORMS; i++) {
        comes_back("llama", i, &(qz_student_rule){.adapters = &packed, .rounding = {.fit = true}});
        comes_back("qwen2", i, &(qz_student_rule){.adapters = &stored, .rounding = {.fit = true}});
        comes_back("llama", i, &(qz_student_rule){.adapters = &stored, .rounding = {.fit = true}});
    }
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
    comes_back("qwen2", 0, &dynamic);
    comes_back("phi3", SKIPPING, &dynamic);
}

Test(trained, learned_scales_alone_too)
{
    const qz_student_rule scales = {.rounding = {.learn_scales = true, .rule = QZ_STE_LSQ}};
    for (int i = 0; i < FORMS; i++) comes_back("qwen2", i, &scales);
}

/* ---- adapters ---- */

/* A recipe for the golden adapter, with further settings. */
static qz_recipe *adapter_recipe(qz_arena *arena, const char *set, const char *value)
{
    static const char text[] =
        "{\"version\": 1, \"model\": \"llama\", \"output\": \"/tmp\", \"export\": {\"container\": \"dense\"},"
        " \"train\": {\"data\": \"a.txt\", \"parameters\": \"adapter\", \"steps\": 1,"
        "             \"adapter\": {\"rank\": 4, \"alpha\": 8}}}";
    const qz_recipe_catalog catalog = {qz_transforms(), qz_ranges(),    qz_solvers(), qz_containers(),
                                       qz_backends(),   qz_observers(), NULL};
    const qz_override over = {set, value, set, false};
    qz_recipe *recipe;
    check_ok(qz_recipe_parse(&recipe, text, strlen(text), "recipe", &catalog, &over, set != NULL, arena));
    return recipe;
}

static qz_student *adapted(const calib_case *c, int64_t rank, bool (*wanted)(void *context, const char *module))
{
    qz_student *s;
    const qz_student_adapters how = {.rank = rank, .factor = 2, .wanted = wanted};
    check_ok(qz_student_new(&s, c->model, &(qz_student_rule){.adapters = &how}));
    return s;
}

static const char golden_adapter[] = "train/lora_adapter";

Test(adapter_files, pefts_tensors_come_back_as_they_were)
{
    calib_case c = case_open("llama", NULL);
    const char *folder = case_folder("adapter");
    const qz_recipe *recipe = adapter_recipe(c.arena, NULL, NULL);
    qz_student *s = adapted(&c, 4, every);
    check_ok(qz_adapter_read(s, golden_path(golden_adapter), recipe));
    check_ok(qz_adapter_write(folder, s, recipe));
    qz_safetensors *ours, *theirs;
    check_ok(qz_safetensors_open(&ours, test_path("adapter/adapter_model.safetensors")));
    check_ok(qz_safetensors_open(&theirs, golden_path("train/lora_adapter/adapter_model.safetensors")));
    cr_assert(qz_safetensors_count(ours) == qz_safetensors_count(theirs) && qz_safetensors_count(ours) > 20);
    for (size_t i = 0; i < qz_safetensors_count(theirs); i++) {
        const qz_stored *b = qz_safetensors_at(theirs, i), *a = qz_safetensors_find(ours, b->name);
        cr_assert(a && a->view.dtype == b->view.dtype && a->bytes == b->bytes, "%s", b->name);
        cr_assert(a->view.shape[0] == b->view.shape[0] && a->view.shape[1] == b->view.shape[1], "%s", b->name);
        cr_assert(memcmp(a->view.data, b->view.data, a->bytes) == 0, "%s", b->name);
    }
    cr_assert(!qz_path_exists(test_path("adapter/adapter_model.safetensors.new")));
    qz_safetensors_close(ours);
    qz_safetensors_close(theirs);
    qz_student_free(s);
    case_close(&c);
}

static qz_json *read_config(const char *path, qz_arena *arena)
{
    char *text;
    size_t size;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, path, 1 << 20, arena));
    check_ok(qz_json_parse(&doc, text, size));
    return doc;
}

/* What we say of an adapter is what PEFT says of the same one; what we leave out is PEFT's default. */
Test(adapter_files, the_configuration_says_what_pefts_says)
{
    static const char *const keys[] = {"r", "lora_alpha", "lora_dropout"};
    calib_case c = case_open("llama", NULL);
    const char *folder = case_folder("config");
    qz_student *s = adapted(&c, 4, every);
    check_ok(qz_adapter_write(folder, s, adapter_recipe(c.arena, NULL, NULL)));
    qz_json *ours = read_config(test_path("config/adapter_config.json"), c.arena),
            *theirs = read_config(golden_path("train/lora_adapter/adapter_config.json"), c.arena);
    const qz_json_node *a = qz_json_root(ours), *b = qz_json_root(theirs);
    for (int i = 0; i < 3; i++)
        cr_assert(qz_json_double(qz_json_get(a, keys[i])) == qz_json_double(qz_json_get(b, keys[i])), "%s", keys[i]);
    cr_assert_str_eq(qz_json_text(qz_json_get(a, "peft_type")), "LORA");
    cr_assert_str_eq(qz_json_text(qz_json_get(a, "task_type")), "CAUSAL_LM");
    cr_assert_str_eq(qz_json_text(qz_json_get(a, "bias")), "none");
    cr_assert(!qz_json_true(qz_json_get(a, "use_rslora")));
    cr_assert(qz_json_count(qz_json_get(a, "target_modules")) == qz_json_count(qz_json_get(b, "target_modules")));
    qz_json_close(ours);
    qz_json_close(theirs);
    qz_student_free(s);
    case_close(&c);
}

/* The base's `skip`: those stay as the folder has them, for LoftQ too, and the plan knows. */
static void check_skips(const char *start)
{
    calib_case c = case_open("llama", NULL);
    char text[256];
    qz_student *s;
    snprintf(text, sizeof text,
             "{\"rank\": 4, \"alpha\": 8, \"start\": \"%s\", \"base\": {\"format\": \"nf4\", \"group\": 64, "
             "\"skip\": [\"down_proj\", \"*.1.mlp.*\"]}}",
             start);
    const qz_train_args args = {.model = c.model, .recipe = adapter_recipe(c.arena, "train.adapter", text)};
    check_ok(qz_train_student(&s, &args, c.arena));
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        const bool skipped = strstr(l->module, "down_proj") || strstr(l->module, ".1.mlp.");
        cr_assert((l->base->plain.data != NULL) == skipped, "%s", l->module);
        cr_assert(!skipped || qz_f32(&l->b->value)[0] == 0, "%s: B starts at zero", l->module);
    }
    qz_student_free(s);
    case_close(&c);
}

Test(adapters, a_base_has_linears_that_stay)
{
    check_skips("zeros");
    check_skips("loftq");
}

static bool first_up(void *context, const char *module)
{
    return strcmp(module, "model.layers.0.mlp.up_proj") == 0;
}

/* PEFT takes "up_proj" for every layer's, so one of several is named in full. */
Test(adapter_files, some_linears_of_a_kind_are_named_in_full)
{
    calib_case c = case_open("llama", NULL);
    const char *folder = case_folder("some");
    qz_student *s = adapted(&c, 4, first_up);
    check_ok(qz_adapter_write(folder, s, adapter_recipe(c.arena, NULL, NULL)));
    qz_json *ours = read_config(test_path("some/adapter_config.json"), c.arena);
    const qz_json_node *targets = qz_json_get(qz_json_root(ours), "target_modules");
    cr_assert(qz_json_count(targets) == 1);
    cr_assert_str_eq(qz_json_text(qz_json_first(targets)), "model.layers.0.mlp.up_proj");
    qz_json_close(ours);
    qz_student_free(s);
    case_close(&c);
}

/* The golden adapter with one key of its configuration changed. */
static const char *changed_adapter(const char *name, const char *key, const char *value, qz_arena *arena)
{
    char *text, path[600];
    size_t size;
    const char *folder = case_folder(name);
    check_ok(qz_file_read(&text, &size, golden_path("train/lora_adapter/adapter_config.json"), 1 << 20, arena));
    check_ok(qz_json_text_set(&text, text, key, value, arena));
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    test_write_file(path, text, strlen(text));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    check_ok(qz_file_copy(path, golden_path("train/lora_adapter/adapter_model.safetensors")));
    return folder;
}

Test(adapter_files, what_cannot_be_merged_is_refused)
{
    static const struct {
        const char *key, *value, *message;
        qz_status status;
    } refused[] = {{"use_dora", "true", "use_dora is true", QZ_UNSUPPORTED},
                   {"peft_type", "\"LOHA\"", "peft_type is not LORA", QZ_UNSUPPORTED},
                   {"fan_in_fan_out", "true", "fan_in_fan_out is true", QZ_UNSUPPORTED},
                   {"rank_pattern", "{\"q_proj\": 8}", "differ between modules", QZ_UNSUPPORTED},
                   {"alpha_pattern", "{\"q_proj\": 8}", "differ between modules", QZ_UNSUPPORTED},
                   {"init_lora_weights", "\"pissa_niter_16\"", "belongs to a base that was changed", QZ_UNSUPPORTED},
                   {"init_lora_weights", "\"loftq\"", "belongs to a base that was changed", QZ_UNSUPPORTED},
                   {"r", "8", "r is 8, the recipe says 4: set train.adapter.rank", QZ_ARG},
                   {"lora_alpha", "16", "lora_alpha is 16, the recipe says 8: set train.adapter.alpha", QZ_ARG},
                   {"use_rslora", "true", "set train.adapter.rslora", QZ_ARG}};
    calib_case c = case_open("llama", NULL);
    qz_student *s = adapted(&c, 4, every);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char name[64];
        snprintf(name, sizeof name, "refused%zu", i);
        const char *folder = changed_adapter(name, refused[i].key, refused[i].value, c.arena);
        check_fails(refused[i].status, refused[i].message,
                    qz_adapter_read(s, folder, adapter_recipe(c.arena, NULL, NULL)));
    }
    qz_student_free(s);
    case_close(&c);
}

static bool no_down(void *context, const char *module)
{
    return strstr(module, "down_proj") == NULL;
}

Test(adapter_files, tensors_and_targets_must_agree)
{
    calib_case c = case_open("llama", NULL);
    const qz_recipe *recipe = adapter_recipe(c.arena, NULL, NULL);
    const char *other = case_folder("other");
    qz_student *few = adapted(&c, 4, no_down), *all = adapted(&c, 4, every), *large = adapted(&c, 5, every);
    check_fails(QZ_ARG, "which train.adapter.targets does not name",
                qz_adapter_read(few, golden_path(golden_adapter), recipe));
    check_ok(qz_adapter_write(other, few, recipe));
    check_fails(QZ_ARG, "train.adapter.targets must name what has an adapter", qz_adapter_read(all, other, recipe));
    check_fails(QZ_SHAPE, "has the shape (4, 64), for this model and rank it would be (5, 64)",
                qz_adapter_read(large, golden_path(golden_adapter), recipe));
    check_fails(QZ_IO, "adapter_config.json", qz_adapter_read(all, case_folder("empty"), recipe));
    qz_student_free(few);
    qz_student_free(all);
    qz_student_free(large);
    case_close(&c);
}

Test(adapter_files, numbers_must_be_finite)
{
    calib_case c = case_open("llama", NULL);
    const qz_recipe *recipe = adapter_recipe(c.arena, NULL, NULL);
    const char *folder = case_folder("spoiled");
    qz_student *s = adapted(&c, 4, every);
    qz_f32(&qz_student_linear_at(s, 3)->a->value)[2] = NAN;
    check_ok(qz_adapter_write(folder, s, recipe));
    check_fails(QZ_NUMERIC, "is not finite at index 2", qz_adapter_read(s, folder, recipe));
    qz_student_free(s);
    case_close(&c);
}

Test(adapter_files, a_recipe_names_the_one_to_go_on_from)
{
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    cr_assert(adapter_recipe(arena, NULL, NULL)->train.adapter.from == NULL);
    cr_assert_str_eq(adapter_recipe(arena, "train.adapter.from", "out/a")->train.adapter.from, "out/a");
    qz_arena_free(arena);
}
