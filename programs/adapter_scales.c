/* See adapter_scales.h. Tensors:
 *
 *     MODULE.input_scale        F32 (1)           of each linear whose input has a static scale
 *     MODULE.input_zero_point   I32 (1)
 *     ATTENTION.k_scale         F32 (kv_heads)    of each layer, where the cache is rounded; v_scale likewise
 *
 * The scales are those of the last step, bit for bit, so that the merged checkpoint computes what was trained. */
#include "programs/adapter_scales.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "programs/adapter_folder.h"

#define SCALES "activation_scales.safetensors"

enum { NAME = 512 };

static bool is_static(const qz_export_linear *l)
{
    return l && l->quantized && l->activation.mode == QZ_ACT_TENSOR;
}

bool qz_adapter_scales_needed(const qz_export_plan *plan)
{
    bool needed = plan->kv.wanted;
    for (size_t i = 0; i < plan->linears; i++) needed |= is_static(&plan->linear[i]);
    return needed;
}

static char *path_in(const char *folder, qz_arena *arena)
{
    return qz_path_join(arena, folder, SCALES);
}

bool qz_adapter_scales_exist(const char *folder)
{
    qz_arena *arena;
    if (qz_arena_new(&arena, "adapter") != QZ_OK) return false;
    const char *path = path_in(folder, arena);
    const bool exist = path && qz_path_exists(path);
    qz_arena_free(arena);
    return exist;
}

static const char *name_of(char out[NAME], const char *module, const char *what)
{
    snprintf(out, NAME, "%s.%s", module, what);
    return out;
}

/* ---- writing ---- */

static qz_status put(qz_shards *shards, const char *name, qz_dtype type, int64_t count, const void *data, bool writes)
{
    if (!writes) return qz_shards_declare(shards, name, name, type, 1, &count);
    return qz_shards_write(shards, name, data, (size_t)count * 4);
}

static qz_status put_input(qz_shards *shards, const char *module, qz_act_values v, bool writes)
{
    char name[NAME];
    const int32_t zero = v.zero;
    QZ_TRY(put(shards, name_of(name, module, "input_scale"), QZ_F32, 1, &v.scale, writes));
    return put(shards, name_of(name, module, "input_zero_point"), QZ_I32, 1, &zero, writes);
}

static qz_status put_caches(qz_shards *shards, const qz_student *s, const qz_export_plan *plan, bool writes,
                            qz_arena *arena)
{
    char name[NAME];
    const int64_t heads = plan->kv_heads;
    float *key = qz_arena_array(arena, float, (size_t)heads), *value = qz_arena_array(arena, float, (size_t)heads);
    if (!key || !value) return qz_arena_failed(arena);
    for (int i = 0; i < plan->layers; i++) {
        QZ_TRY(qz_student_kv(s, i, key, value));
        QZ_TRY(put(shards, name_of(name, plan->attention[i], "k_scale"), QZ_F32, heads, key, writes));
        QZ_TRY(put(shards, name_of(name, plan->attention[i], "v_scale"), QZ_F32, heads, value, writes));
    }
    return QZ_OK;
}

static qz_status fill(qz_shards *shards, qz_student *s, const qz_export_plan *plan, bool writes)
{
    qz_arena *arena;
    for (int i = 0; i < qz_student_linears(s); i++) {
        qz_act_values v;
        const qz_student_linear *l = qz_student_linear_at(s, i);
        if (!is_static(l->planned)) continue;
        QZ_TRY(qz_student_activation(s, i, &v));
        QZ_TRY(put_input(shards, l->module, v, writes));
    }
    if (!plan->kv.wanted) return QZ_OK;
    QZ_TRY(qz_arena_new(&arena, "adapter"));
    qz_status status = put_caches(shards, s, plan, writes, arena);
    qz_arena_free(arena);
    return status;
}

qz_status qz_adapter_scales_write(const char *folder, qz_student *s, const qz_export_plan *plan)
{
    return qz_adapter_write_file(folder, SCALES, fill, s, plan);
}

/* ---- reading ---- */

typedef struct source {
    const char *path;
    const qz_safetensors *file;
} source;

static qz_status find(const void **out, const source *from, const char *name, qz_dtype type, int64_t count)
{
    const qz_stored *t = qz_safetensors_find(from->file, name);
    *out = NULL;
    if (!t)
        return QZ_FAIL(QZ_ARG,
                       "%s: holds no %s: the adapter was trained with other activations or another kv_cache than the "
                       "recipe has",
                       from->path, name);
    if (t->view.dtype != type || t->view.ndim != 1 || t->view.shape[0] != count)
        return QZ_FAIL(QZ_SHAPE, "%s: %s is not %lld numbers of the type %s", from->path, name, (long long)count,
                       qz_dtype_name(type));
    *out = t->view.data;
    return QZ_OK;
}

static qz_status get_scales(float *out, const source *from, const char *name, int64_t count)
{
    const void *data;
    QZ_TRY(find(&data, from, name, QZ_F32, count));
    memcpy(out, data, (size_t)count * sizeof *out);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(out[i]) || out[i] <= 0)
            return QZ_FAIL(QZ_NUMERIC, "%s: %s: %g is no scale", from->path, name, (double)out[i]);
    return QZ_OK;
}

static qz_status get_input(qz_act_values *out, const source *from, const char *module)
{
    char name[NAME];
    const void *data;
    int32_t zero;
    QZ_TRY(get_scales(&out->scale, from, name_of(name, module, "input_scale"), 1));
    QZ_TRY(find(&data, from, name_of(name, module, "input_zero_point"), QZ_I32, 1));
    memcpy(&zero, data, sizeof zero);
    out->zero = zero;
    if (zero >= -128 && zero <= 127) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC, "%s: %s: %d is no zero point of 8 bits", from->path, name, (int)zero);
}

static qz_status get_caches(qz_student *s, const source *from, const qz_export_plan *plan, qz_arena *arena)
{
    char name[NAME];
    const int64_t heads = plan->kv_heads;
    float *key = qz_arena_array(arena, float, (size_t)heads), *value = qz_arena_array(arena, float, (size_t)heads);
    if (!key || !value) return qz_arena_failed(arena);
    for (int i = 0; i < plan->layers; i++) {
        QZ_TRY(get_scales(key, from, name_of(name, plan->attention[i], "k_scale"), heads));
        QZ_TRY(get_scales(value, from, name_of(name, plan->attention[i], "v_scale"), heads));
        qz_student_set_kv(s, i, key, value);
    }
    return QZ_OK;
}

static qz_status get_all(qz_student *s, const source *from, const qz_export_plan *plan, qz_arena *arena)
{
    for (int i = 0; i < qz_student_linears(s); i++) {
        qz_act_values v;
        const qz_student_linear *l = qz_student_linear_at(s, i);
        if (!is_static(l->planned)) continue;
        QZ_TRY(get_input(&v, from, l->module));
        qz_student_set_activation(s, i, v);
    }
    return plan->kv.wanted ? get_caches(s, from, plan, arena) : QZ_OK;
}

qz_status qz_adapter_scales_read(qz_student *s, const char *folder, const qz_export_plan *plan)
{
    qz_arena *arena;
    qz_safetensors *file = NULL;
    QZ_TRY(qz_arena_new(&arena, "adapter"));
    const char *path = path_in(folder, arena);
    qz_status status = path ? qz_safetensors_open(&file, path) : qz_arena_failed(arena);
    if (status == QZ_OK) status = get_all(s, &(source){path, file}, plan, arena);
    qz_safetensors_close(file);
    qz_arena_free(arena);
    return status;
}
