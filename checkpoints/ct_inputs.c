/* Scales of static inputs and of the key-value cache in compressed-tensors checkpoints.
 *
 * Both are F32: vLLM keeps them so, and nothing was rounded to a smaller type when they were chosen. */
#include <math.h>

#include "checkpoints/ct_tensors.h"
#include "checkpoints/tensor_parts.h"

/* ---- reading ---- */

static qz_status one_float(float *out, const qz_ckpt *c, const char *module, const char *suffix)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, suffix);
    QZ_TRY(qz_part_find(&t, c, module, suffix, QZ_DTYPE_COUNT, t && t->view.ndim == 0 ? 0 : 1, (int64_t[]){1}));
    QZ_TRY(qz_part_floats(out, c, t));
    if (*out > 0) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" is %.9g; a scale is positive", qz_ckpt_folder(c), t->file, t->name,
                   (double)*out);
}

qz_status qz_ct_read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme, qz_act_values *values)
{
    qz_ct_group group;
    const qz_stored *zero = qz_ckpt_find_part(c, module, "input_zero_point");
    QZ_TRY(qz_ct_find_group(&group, c, module));
    QZ_TRY_CTX(qz_ct_input_scheme(scheme, &group.input), "%s/config.json: quantization_config", qz_ckpt_folder(c));
    if (scheme->mode != QZ_ACT_TENSOR) return QZ_OK;
    QZ_TRY(one_float(&values->scale, c, module, "input_scale"));
    if (scheme->format != QZ_FORMAT_INT8 || scheme->symmetric) return QZ_OK;
    QZ_TRY(qz_part_find(&zero, c, module, "input_zero_point", QZ_I8, zero && zero->view.ndim == 0 ? 0 : 1,
                        (int64_t[]){1}));
    values->zero = *(const int8_t *)zero->view.data;
    return QZ_OK;
}

static qz_status read_cache_scales(float *out, const qz_ckpt *c, const char *attention, const char *suffix,
                                   int64_t heads, bool per_head)
{
    if (!per_head) {
        QZ_TRY(one_float(out, c, attention, suffix));
        for (int64_t h = 1; h < heads; h++) out[h] = out[0];
        return QZ_OK;
    }
    const qz_stored *t = qz_ckpt_find_part(c, attention, suffix);
    QZ_TRY(qz_part_find(&t, c, attention, suffix, QZ_DTYPE_COUNT, t && t->view.ndim == 1 ? 1 : 3,
                        (int64_t[]){heads, 1, 1}));
    QZ_TRY(qz_part_floats(out, c, t));
    for (int64_t h = 0; h < heads; h++)
        if (!(out[h] > 0))
            return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds %.9g for head %lld; a scale is positive",
                           qz_ckpt_folder(c), t->file, t->name, (double)out[h], (long long)h);
    return QZ_OK;
}

qz_status qz_ct_read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme, float *key,
                        float *value)
{
    qz_ct_args args;
    QZ_TRY_CTX(qz_ct_config_kv(&args, qz_json_get(qz_json_root(qz_ckpt_config(c)), "quantization_config")),
               "%s/config.json: quantization_config", qz_ckpt_folder(c));
    *scheme = (qz_kv_scheme){.wanted = args.present,
                             .format = args.floating ? QZ_FORMAT_FP8_E4M3 : QZ_FORMAT_INT8,
                             .per_head = args.strategy == QZ_CT_ATTN_HEAD};
    if (!args.present) return QZ_OK;
    QZ_TRY(read_cache_scales(key, c, attention, "k_scale", kv_heads, scheme->per_head));
    return read_cache_scales(value, c, attention, "v_scale", kv_heads, scheme->per_head);
}

/* ---- writing ---- */

static bool has_input_zero(const qz_act_scheme *a)
{
    return a->mode == QZ_ACT_TENSOR && a->format == QZ_FORMAT_INT8 && !a->symmetric;
}

qz_status qz_ct_declare_input(qz_shards *s, const qz_export_linear *l)
{
    if (l->activation.mode != QZ_ACT_TENSOR) return QZ_OK;
    QZ_TRY(qz_part_declare(s, l->module, "input_scale", QZ_F32, 1, (int64_t[]){1}));
    if (!has_input_zero(&l->activation)) return QZ_OK;
    return qz_part_declare(s, l->module, "input_zero_point", QZ_I8, 1, (int64_t[]){1});
}

qz_status qz_ct_write_input(qz_shards *s, const qz_export_linear *l, const qz_act_values *act)
{
    if (l->activation.mode != QZ_ACT_TENSOR) return QZ_OK;
    if (!act || !(act->scale > 0) || !isfinite(act->scale) || act->zero < INT8_MIN || act->zero > INT8_MAX)
        return QZ_FAIL(QZ_NUMERIC,
                       "%s: the scale of its input is %.9g, the zero %d; a static input needs a positive "
                       "scale and a zero of -128 to 127",
                       l->module, act ? (double)act->scale : 0.0, act ? act->zero : 0);
    const int8_t zero = (int8_t)act->zero;
    QZ_TRY(qz_part_write(s, l->module, "input_scale", &act->scale, sizeof act->scale));
    if (has_input_zero(&l->activation)) return qz_part_write(s, l->module, "input_zero_point", &zero, sizeof zero);
    if (zero) return QZ_FAIL(QZ_NUMERIC, "%s: the zero of its input is %d, but it is symmetric", l->module, zero);
    return QZ_OK;
}

static int64_t cache_scales(const qz_export_plan *plan)
{
    return plan->kv.per_head ? plan->kv_heads : 1;
}

qz_status qz_ct_declare_kv(qz_shards *s, const qz_export_plan *plan, int layer)
{
    const int64_t shape[3] = {cache_scales(plan), 1, 1};
    const int ndim = plan->kv.per_head ? 3 : 1; /* as llm-compressor stores them, and vLLM flattens */
    QZ_TRY(qz_part_declare(s, plan->attention[layer], "k_scale", QZ_F32, ndim, shape));
    return qz_part_declare(s, plan->attention[layer], "v_scale", QZ_F32, ndim, shape);
}

qz_status qz_ct_write_kv(qz_shards *s, const qz_export_plan *plan, int layer, const qz_kv_values *values)
{
    const int64_t count = cache_scales(plan);
    const char *module = plan->attention[layer];
    for (int64_t i = 0; i < count; i++)
        if (!(values->key[i] > 0) || !(values->value[i] > 0) || !isfinite(values->key[i]) ||
            !isfinite(values->value[i]))
            return QZ_FAIL(QZ_NUMERIC, "%s: the scales of its cache are %.9g and %.9g; they must be positive", module,
                           (double)values->key[i], (double)values->value[i]);
    QZ_TRY(qz_part_write(s, module, "k_scale", values->key, (size_t)count * sizeof *values->key));
    return qz_part_write(s, module, "v_scale", values->value, (size_t)count * sizeof *values->value);
}
