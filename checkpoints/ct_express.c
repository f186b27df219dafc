/* What compressed-tensors and its readers hold, and what not: one reason a line.
 *
 *   pack-quantized   int2 to int8, group or channel, inputs as they are; int4 symmetric with int8 inputs per token
 *   int-quantized    int8 symmetric, tensor or channel, int8 inputs per token or static
 *   float-quantized  fp8 e4m3, tensor or channel, fp8 inputs per token or static; blocks of 128 x 128 with inputs in
 *                    groups of 128
 *   naive-quantized  fp8 e4m3 with inputs as they are
 * as vLLM chooses a scheme (model_executor/layers/quantization/compressed_tensors/compressed_tensors.py, 0.32). What
 * only some of its kernels take is a warning. */
#include "base/log.h"
#include "checkpoints/ct_config.h"
#include "checkpoints/plan_check.h"

enum { BLOCK = 128 };

static bool is_block(const qz_scheme *s)
{
    return s->piece_rows == BLOCK && s->piece_cols == BLOCK;
}

/* One scale for the tensor, or for each output. */
static bool is_whole(const qz_export_linear *l)
{
    const qz_ct_strategy strategy = qz_ct_strategy_of(l);
    return strategy == QZ_CT_CHANNEL || (strategy == QZ_CT_TENSOR && l->scheme.piece_cols == 0);
}

static void check_packed(qz_reasons *r, const qz_export_linear *l, qz_dtype plain)
{
    static const int64_t usual[] = {32, 64, 128, 0};
    const qz_scheme *s = &l->scheme;
    const qz_act_scheme *a = &l->activation;
    if (s->piece_rows != 1)
        qz_reasons_add(r, "%s: packed weights need a scale for each output (group or channel)", l->module);
    else
        qz_reasons_group(r, l, usual);
    if (l->k % 32) qz_reasons_add(r, "%s: found %lld inputs; a multiple of 32 is needed", l->module, (long long)l->k);
    if (s->scale_type == QZ_F32 && plain != QZ_F32)
        qz_reasons_add(r, "%s: found scales in F32, which readers round to the model's type, %s", l->module,
                       qz_dtype_name(plain));
    if (a->mode == QZ_ACT_NONE) return;
    if (s->format != QZ_FORMAT_INT4 || !s->symmetric || a->mode != QZ_ACT_TOKEN || a->format != QZ_FORMAT_INT8 ||
        !a->symmetric)
        qz_reasons_add(r,
                       "%s: with rounded inputs packed weights are int4 symmetric, and inputs int8 symmetric per token",
                       l->module);
}

static void check_int(qz_reasons *r, const qz_export_linear *l)
{
    const qz_act_scheme *a = &l->activation;
    if (!l->scheme.symmetric || !is_whole(l))
        qz_reasons_add(r,
                       "%s: int8 weights with rounded inputs must be symmetric, with a scale for each output or one "
                       "for all",
                       l->module);
    if (a->format != QZ_FORMAT_INT8 || a->mode == QZ_ACT_GROUP)
        qz_reasons_add(r, "%s: int8 weights go with int8 inputs per token or static per tensor", l->module);
}

static void check_float(qz_reasons *r, const qz_export_linear *l)
{
    const qz_act_scheme *a = &l->activation;
    const bool block = is_block(&l->scheme);
    if (l->scheme.format != QZ_FORMAT_FP8_E4M3)
        qz_reasons_add(r, "%s: found %s; compressed-tensors holds fp8_e4m3", l->module,
                       qz_format_of(l->scheme.format)->name);
    if (!block && !is_whole(l))
        qz_reasons_add(r, "%s: fp8 weights have a scale for the tensor, for each output, or for blocks of 128 x 128",
                       l->module);
    if (a->mode == QZ_ACT_NONE) return;
    if (a->format != QZ_FORMAT_FP8_E4M3)
        qz_reasons_add(r, "%s: fp8 weights go with fp8_e4m3 inputs, found %s", l->module,
                       qz_format_of(a->format)->name);
    if (block != (a->mode == QZ_ACT_GROUP) || (block && a->group != BLOCK))
        qz_reasons_add(r, "%s: blocks of 128 x 128 and inputs in groups of 128 go together", l->module);
}

/* vLLM looks rows up in packed codes without zeros, and takes no word that codes straddle (vLLM 0.32,
 * compressed_tensors_embedding.py). */
static void check_embedding(qz_reasons *r, const qz_export_linear *l)
{
    const qz_format_info *f = qz_format_of(l->scheme.format);
    if (f->kind != QZ_KIND_INTEGER || 32 % f->bits || !l->scheme.symmetric)
        qz_reasons_add(r, "%s: found %s%s; vLLM takes embeddings of int2, int4 and int8, symmetric", l->module, f->name,
                       l->scheme.symmetric ? "" : " with zeros");
}

static void check_linear(qz_reasons *r, const qz_export_linear *l, qz_dtype plain)
{
    const qz_format_info *f = qz_format_of(l->scheme.format);
    if ((f->kind != QZ_KIND_INTEGER && f->kind != QZ_KIND_FLOAT) || l->scheme.flat || l->scheme.double_quant) {
        qz_reasons_add(r, "%s: found %s%s; compressed-tensors holds int2 to int8 and fp8_e4m3", l->module, f->name,
                       l->scheme.double_quant ? " with double quantization" : "");
        return;
    }
    if (!qz_dtype_is_plain(l->scheme.scale_type))
        qz_reasons_add(r, "%s: found scales in %s", l->module, qz_dtype_name(l->scheme.scale_type));
    if (l->ordered)
        qz_reasons_add(r, "%s: its groups are to be ordered, which readers no longer take: use static groups",
                       l->module);
    if (l->embedding) check_embedding(r, l);
    switch (qz_ct_form_of(l)) {
    case QZ_CT_PACKED:
        check_packed(r, l, plain);
        break;
    case QZ_CT_INT:
        check_int(r, l);
        break;
    default:
        check_float(r, l);
    }
}

static void check_cache(qz_reasons *r, const qz_export_plan *plan)
{
    if (!plan->kv.wanted) return;
    if (plan->kv.format != QZ_FORMAT_FP8_E4M3 && plan->kv.format != QZ_FORMAT_INT8)
        qz_reasons_add(r, "the key-value cache is to be %s; compressed-tensors says fp8_e4m3 or int8",
                       qz_format_of(plan->kv.format)->name);
    if (!plan->attention || plan->layers < 1)
        qz_reasons_add(r, "scales of the key-value cache are asked for, but the model names no attention modules");
}

/* ---- what only some readers take ---- */

static bool ends_its_set(const qz_export_plan *plan, size_t at)
{
    for (size_t i = at + 1; i < plan->linears; i++)
        if (plan->linear[i].layer == plan->linear[at].layer && plan->linear[i].fused == plan->linear[at].fused)
            return false;
    return true;
}

static void warn_of_readers(const qz_export_plan *plan)
{
    const qz_export_linear *odd = NULL, *uneven = NULL, *wide = NULL, *table = NULL;
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!l->quantized) continue;
        const int bits = qz_format_of(l->scheme.format)->bits;
        if (l->embedding) table = l;
        const bool packed = qz_ct_form_of(l) == QZ_CT_PACKED, block = is_block(&l->scheme);
        if (!odd && packed && bits != 4 && bits != 8) odd = l;
        if (!wide && packed && bits == 8 && !l->scheme.symmetric) wide = l;
        const bool cut_rows = l->fused >= 0 && l->n % BLOCK && !ends_its_set(plan, i);
        if (!uneven && block && (cut_rows || l->k % BLOCK)) uneven = l;
    }
    if (plan->kv.wanted && plan->kv.format == QZ_FORMAT_INT8)
        qz_warn("kv_cache int8: vLLM has caches of fp8 only; fp8_e4m3 is read by it");
    if (table)
        qz_warn(
            "%s: quantized embeddings: vLLM since June 2026 takes them on GPUs, and only in models that pass it the "
            "scheme (llama, mistral, phi3, qwen2, qwen3 do; gemma2 and mixtral do not)",
            table->module);
    if (odd)
        qz_warn(
            "%s: compressed-tensors with %s: vLLM needs its Humming kernels (GPU), and compressed-tensors since June "
            "2026",
            odd->module, qz_format_of(odd->scheme.format)->name);
    if (wide) qz_warn("%s: int8 weights with zeros: vLLM has kernels for them on few GPUs only", wide->module);
    if (uneven)
        qz_warn("%s: blocks of 128 x 128 do not divide (%lld, %lld), which vLLM refuses inside a fused set or along "
                "inputs",
                uneven->module, (long long)uneven->n, (long long)uneven->k);
}

qz_status qz_ct_can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "compressed-tensors"};
    if (!qz_export_first_quantized(plan) && !plan->kv.wanted)
        qz_reasons_add(&r, "no linear is quantized, nor the key-value cache; compressed-tensors needs one of them");
    if (!qz_dtype_is_plain(plan->plain_type))
        qz_reasons_add(&r, "plain tensors are to be %s; F32, F16 or BF16 is expected", qz_dtype_name(plan->plain_type));
    for (size_t i = 0; i < plan->linears; i++)
        if (plan->linear[i].quantized) check_linear(&r, &plan->linear[i], plan->plain_type);
    check_cache(&r, plan);
    qz_reasons_fused(&r, plan);
    if (r.count == 0) warn_of_readers(plan);
    return qz_reasons_status(&r);
}
