/* The layout of PEFT 0.21 (src/peft/tuners/lora/config.py, src/peft/utils/save_and_load.py): tensors
 * base_model.model.MODULE.lora_A.weight (rank, inputs) and .lora_B.weight (outputs, rank), which is what the student
 * calls its parameters; a configuration that names modules by their last part where that says it, else in full. */
#include "programs/adapter_folder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "numeric/tensor.h"

#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

enum { LARGEST_CONFIG = 1 << 20 };

/* ---- the configuration ---- */

static const char *last_part(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

/* Does every linear with the last part of this one have an adapter? */
static bool is_whole(const qz_student *s, const char *part)
{
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        if (!l->a && strcmp(last_part(l->module), part) == 0) return false;
    }
    return true;
}

static bool is_first(const qz_student *s, int number)
{
    const char *part = last_part(qz_student_linear_at(s, number)->module);
    for (int i = 0; i < number; i++)
        if (strcmp(last_part(qz_student_linear_at(s, i)->module), part) == 0) return false;
    return true;
}

static void put_targets(qz_json_writer *w, const qz_student *s)
{
    bool parts = true;
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        if (l->a && !is_whole(s, last_part(l->module))) parts = false;
    }
    qz_json_begin_array(w, "target_modules");
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        if (!l->a || (parts && !is_first(s, i))) continue;
        qz_json_put_string(w, NULL, parts ? last_part(l->module) : l->module);
    }
    qz_json_end(w);
}

static void put_config(qz_json_writer *w, const qz_student *s, const qz_recipe *recipe)
{
    const qz_recipe_adapter *a = &recipe->train.adapter;
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "peft_type", "LORA");
    qz_json_put_string(w, "task_type", "CAUSAL_LM");
    qz_json_put_string(w, "base_model_name_or_path", recipe->model);
    qz_json_put_int(w, "r", a->rank);
    qz_json_put_double(w, "lora_alpha", a->alpha);
    qz_json_put_double(w, "lora_dropout", a->dropout);
    qz_json_put_bool(w, "use_rslora", a->rslora);
    put_targets(w, s);
    qz_json_put_string(w, "bias", "none");
    qz_json_put_bool(w, "fan_in_fan_out", false);
    qz_json_put_bool(w, "inference_mode", true);
    qz_json_put_bool(w, "init_lora_weights", true);
    qz_json_end(w);
}

static qz_status write_config(const char *path, const qz_student *s, const qz_recipe *recipe)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    put_config(w, s, recipe);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) status = qz_file_write(path, text, size);
    qz_json_writer_free(w);
    return status;
}

/* ---- writing ---- */

static const qz_parameter *next_tensor(qz_student *s, int *i)
{
    const qz_parameters *p = qz_student_parameters(s);
    for (; *i < p->count; ++*i)
        if (p->list[*i].group == QZ_PARAMETER_ADAPTER) return &p->list[(*i)++];
    return NULL;
}

static qz_status fill_tensors(qz_shards *shards, qz_student *s, const qz_export_plan *plan, bool writes)
{
    const qz_parameter *p;
    (void)plan;
    for (int i = 0; (p = next_tensor(s, &i)) != NULL;) {
        const size_t bytes = (size_t)qz_tensor_count(&p->value) * sizeof(float);
        QZ_TRY(writes ? qz_shards_write(shards, p->name, p->value.data, bytes)
                      : qz_shards_declare(shards, p->name, p->name, QZ_F32, 2, p->value.shape));
    }
    return QZ_OK;
}

static qz_status write_shards(const char *folder, qz_adapter_fill fill, qz_student *s, const qz_export_plan *plan)
{
    qz_shards *shards;
    QZ_TRY(qz_shards_new(&shards, folder, 0));
    qz_status status = fill(shards, s, plan, false);
    if (status == QZ_OK) status = qz_shards_begin(shards);
    if (status == QZ_OK) status = fill(shards, s, plan, true);
    if (status == QZ_OK) status = qz_shards_finish(shards);
    qz_shards_free(shards);
    return status;
}

/* Shards have a name of their own, so the file is made in a folder beside its place. */
static qz_status write_file(const char *folder, const char *name, qz_adapter_fill fill, qz_student *s,
                            const qz_export_plan *plan, qz_arena *arena)
{
    const char *path = qz_path_join(arena, folder, name),
               *beside = path ? qz_arena_printf(arena, "%s.new", path) : NULL;
    const char *made = beside ? qz_path_join(arena, beside, "model.safetensors") : NULL;
    if (!made) return qz_arena_failed(arena);
    QZ_TRY(qz_folder_make(beside));
    QZ_TRY(write_shards(beside, fill, s, plan));
    QZ_TRY(qz_path_rename(made, path));
    return qz_folder_remove(beside);
}

qz_status qz_adapter_write_file(const char *folder, const char *name, qz_adapter_fill fill, qz_student *s,
                                const qz_export_plan *plan)
{
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "adapter"));
    qz_status status = write_file(folder, name, fill, s, plan, arena);
    qz_arena_free(arena);
    return status;
}

qz_status qz_adapter_write(const char *folder, qz_student *s, const qz_recipe *recipe)
{
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "adapter"));
    const char *config = qz_path_join(arena, folder, CONFIG);
    qz_status status = config ? write_file(folder, WEIGHTS, fill_tensors, s, NULL, arena) : qz_arena_failed(arena);
    if (status == QZ_OK) status = write_config(config, s, recipe);
    qz_arena_free(arena);
    return status;
}

/* ---- reading ---- */

static double number_of(const qz_json_node *root, const char *key)
{
    const qz_json_node *node = qz_json_get(root, key);
    return qz_json_is(node, QZ_JSON_NUMBER) ? qz_json_double(node) : NAN;
}

static qz_status check_number(const char *path, const qz_json_node *root, const char *key, double expected,
                              const char *option)
{
    const double found = number_of(root, key);
    if (found == expected) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s: %s is %g, the recipe says %g: set %s", path, key, found, expected, option);
}

/* What else PEFT can do with an adapter would change the sum W + factor B A. */
static qz_status check_kind(const char *path, const qz_json_node *root)
{
    static const char *const foreign[] = {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", NULL};
    const qz_json_node *type = qz_json_get(root, "peft_type");
    if (!qz_json_is(type, QZ_JSON_STRING) || strcmp(qz_json_text(type), "LORA") != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: peft_type is not LORA, the only one that can be merged here", path);
    for (const char *const *key = foreign; *key; key++)
        if (qz_json_true(qz_json_get(root, *key)))
            return QZ_FAIL(QZ_UNSUPPORTED, "%s: %s is true, which cannot be merged here", path, *key);
    if (qz_json_count(qz_json_get(root, "rank_pattern")) || qz_json_count(qz_json_get(root, "alpha_pattern")))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: ranks or factors differ between modules, which cannot be merged here",
                       path);
    return QZ_OK;
}

/* These start from a part of the weight that is taken out of the base, which is then no more the model's: in PEFT's
 * lora/layer.py pissa_init, olora_init, corda_init and loftq_init write the weight that remains. */
static qz_status check_start(const char *path, const qz_json_node *root)
{
    static const char *const residual[] = {"pissa", "olora", "corda", "loftq", "lora_ga", NULL};
    const qz_json_node *start = qz_json_get(root, "init_lora_weights");
    if (!qz_json_is(start, QZ_JSON_STRING)) return QZ_OK;
    for (const char *const *name = residual; *name; name++)
        if (strncmp(qz_json_text(start), *name, strlen(*name)) == 0)
            return QZ_FAIL(
                QZ_UNSUPPORTED,
                "%s: init_lora_weights is \"%s\": the adapter belongs to a base that was changed as it "
                "began, not to the model it came from; convert it with PEFT "
                "(path_initial_model_for_weight_conversion of save_pretrained), or, where the recipe's model "
                "is that changed base, set init_lora_weights to true",
                path, qz_json_text(start));
    return QZ_OK;
}

static qz_status check_config(const char *path, const qz_recipe *recipe, qz_arena *arena)
{
    char *text;
    size_t size;
    qz_json *doc;
    const qz_recipe_adapter *a = &recipe->train.adapter;
    QZ_TRY(qz_file_read(&text, &size, path, LARGEST_CONFIG, arena));
    QZ_TRY_CTX(qz_json_parse(&doc, text, size), "%s", path);
    const qz_json_node *root = qz_json_root(doc);
    qz_status status = check_kind(path, root);
    if (status == QZ_OK) status = check_start(path, root);
    if (status == QZ_OK) status = check_number(path, root, "r", (double)a->rank, "train.adapter.rank");
    if (status == QZ_OK) status = check_number(path, root, "lora_alpha", a->alpha, "train.adapter.alpha");
    if (status == QZ_OK && qz_json_true(qz_json_get(root, "use_rslora")) != a->rslora)
        status = QZ_FAIL(QZ_ARG, "%s: use_rslora is not what the recipe says: set train.adapter.rslora", path);
    qz_json_close(doc);
    return status;
}

static qz_status read_tensor(const char *path, const qz_safetensors *file, const qz_parameter *p)
{
    const qz_stored *t = qz_safetensors_find(file, p->name);
    if (!t)
        return QZ_FAIL(QZ_ARG, "%s: holds no %s; train.adapter.targets must name what has an adapter", path, p->name);
    const qz_tensor *v = &t->view;
    if (v->ndim != 2 || v->shape[0] != p->value.shape[0] || v->shape[1] != p->value.shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: %s has the shape (%lld, %lld), for this model and rank it would be (%lld, %lld)",
                       path, p->name, (long long)v->shape[0], (long long)(v->ndim > 1 ? v->shape[1] : 1),
                       (long long)p->value.shape[0], (long long)p->value.shape[1]);
    if (!qz_dtype_is_plain(v->dtype))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: %s is stored as %s", path, p->name, qz_dtype_name(v->dtype));
    QZ_TRY(qz_convert(p->value.data, QZ_F32, v->data, v->dtype, qz_tensor_count(&p->value)));
    for (int64_t i = 0; i < qz_tensor_count(&p->value); i++)
        if (!isfinite(qz_f32(&p->value)[i]))
            return QZ_FAIL(QZ_NUMERIC, "%s: %s is not finite at index %lld", path, p->name, (long long)i);
    return QZ_OK;
}

static qz_status read_tensors(const char *path, const qz_safetensors *file, qz_student *s)
{
    const qz_parameter *p;
    size_t count = 0;
    for (int i = 0; (p = next_tensor(s, &i)) != NULL; count++) QZ_TRY(read_tensor(path, file, p));
    for (size_t i = 0; i < qz_safetensors_count(file) && count < qz_safetensors_count(file); i++) {
        const char *name = qz_safetensors_at(file, i)->name;
        if (!qz_parameters_find(qz_student_parameters(s), name))
            return QZ_FAIL(QZ_ARG, "%s: holds %s, which train.adapter.targets does not name", path, name);
    }
    return QZ_OK;
}

qz_status qz_adapter_read(qz_student *s, const char *folder, const qz_recipe *recipe)
{
    qz_arena *arena;
    qz_safetensors *file = NULL;
    QZ_TRY(qz_arena_new(&arena, "adapter"));
    const char *config = qz_path_join(arena, folder, CONFIG), *weights = qz_path_join(arena, folder, WEIGHTS);
    qz_status status = config && weights ? check_config(config, recipe, arena) : qz_arena_failed(arena);
    if (status == QZ_OK) status = qz_safetensors_open(&file, weights);
    if (status == QZ_OK) status = read_tensors(weights, file, s);
    qz_safetensors_close(file);
    qz_arena_free(arena);
    return status;
}
