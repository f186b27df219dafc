/* bitsandbytes checkpoints as transformers saves and loads them <-> qz_qtensor.
 *
 * NF4 and FP4 with plain or quantized scales (bnb_4bit.c), LLM.int8() (bnb_int8.c); FORMATS.md 5. One kind for all
 * linears of a folder, which is what its config says. Inputs of LLM.int8() are rounded to int8 by the library as it
 * runs, apart from outliers; nothing of that is stored. Each weight says its own block size and type when read. */
#include <string.h>

#include "checkpoints/bnb_weights.h"
#include "checkpoints/checkpoints.h"
#include "checkpoints/plain_list.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

static const char *const suffixes[] = {"weight",
                                       "weight.absmax",
                                       "weight.quant_map",
                                       "weight.nested_absmax",
                                       "weight.nested_quant_map",
                                       "weight.quant_state.bitsandbytes__nf4",
                                       "weight.quant_state.bitsandbytes__fp4",
                                       "SCB",
                                       "weight_format",
                                       "bias",
                                       NULL};

/* ---- reading ---- */

static const qz_json_node *config_of(const qz_json_node *config)
{
    return qz_json_get(config, "quantization_config");
}

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(config_of(config), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "bitsandbytes") == 0;
}

static qz_status read_flag(bool *out, const qz_json_node *q, const char *key)
{
    *out = false;
    return qz_json_get(q, key) ? qz_json_bool(qz_json_get(q, key), key, out) : QZ_OK;
}

static qz_status read_4bit(qz_scheme *out, const qz_json_node *q)
{
    const char *type = "fp4"; /* what the library takes when nothing is said */
    bool twice = false;
    if (qz_json_get(q, "bnb_4bit_quant_type"))
        QZ_TRY(qz_json_string(qz_json_get(q, "bnb_4bit_quant_type"), "bnb_4bit_quant_type", &type));
    const qz_format format = qz_format_find(type);
    if (format == QZ_FORMAT_COUNT || qz_format_of(format)->kind != QZ_KIND_CODEBOOK)
        return QZ_FAIL(QZ_FORMAT, "bnb_4bit_quant_type: found \"%s\", expected \"nf4\" or \"fp4\"", type);
    QZ_TRY(read_flag(&twice, q, "bnb_4bit_use_double_quant"));
    *out = (qz_scheme){
        .format = format, .flat = QZ_BNB_BLOCK, .symmetric = true, .scale_type = QZ_F32, .double_quant = twice};
    return QZ_OK;
}

static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    const qz_json_node *q = config_of(config);
    bool four = false, eight = false;
    QZ_TRY(read_flag(&four, q, "load_in_4bit"));
    QZ_TRY(read_flag(&eight, q, "load_in_8bit"));
    if (four == eight) return QZ_FAIL(QZ_FORMAT, "exactly one of load_in_4bit and load_in_8bit must be true");
    if (four) return read_4bit(out, q);
    *out =
        (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .narrow = true, .scale_type = QZ_F32};
    return QZ_OK;
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_bnb_holds_4bit(c, module) || qz_ckpt_find_part(c, module, "SCB") != NULL;
}

static qz_status read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena)
{
    if (qz_bnb_holds_4bit(c, module)) return qz_bnb_read_4bit(c, module, n, k, out, arena);
    return qz_bnb_read_int8(c, module, n, k, out, arena);
}

/* ---- what can be written ---- */

static bool is_4bit(const qz_scheme *s)
{
    return qz_format_of(s->format)->kind == QZ_KIND_CODEBOOK;
}

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    qz_scheme *s = &l->scheme;
    l->plain_type = plain_type;
    s->scale_type = QZ_F32;
    if (s->format == QZ_FORMAT_INT8 && s->symmetric) s->narrow = true;
    if (!is_4bit(s)) return;
    s->symmetric = true;
    if (s->flat == QZ_BNB_BLOCK || (s->piece_rows == 1 && s->piece_cols == QZ_BNB_BLOCK))
        qz_bnb_cut(s, QZ_BNB_BLOCK, l->k);
}

static bool has_blocks(const qz_export_linear *l)
{
    qz_scheme wanted = l->scheme;
    qz_bnb_cut(&wanted, QZ_BNB_BLOCK, l->k);
    return qz_scheme_same(&wanted, &l->scheme);
}

static void check_linear(qz_reasons *r, const qz_export_linear *l)
{
    const qz_scheme *s = &l->scheme;
    char found[120];
    qz_scheme_describe(s, found, sizeof found);
    if (is_4bit(s) && !has_blocks(l))
        qz_reasons_add(r, "%s: found %s; bitsandbytes has a scale for each 64 weights", l->module, found);
    else if (s->format == QZ_FORMAT_INT8 && !(s->narrow && s->symmetric && s->piece_rows == 1 && s->piece_cols == 0))
        qz_reasons_add(r, "%s: found %s; LLM.int8() is symmetric with one scale an output (\"channel\")", l->module,
                       found);
    else if (!is_4bit(s) && s->format != QZ_FORMAT_INT8)
        qz_reasons_add(r, "%s: found %s; bitsandbytes holds nf4, fp4 and int8", l->module, found);
    if (s->double_quant && !is_4bit(s))
        qz_reasons_add(r, "%s: found quantized scales, which bitsandbytes has for nf4 and fp4 only", l->module);
    if (s->scale_type != QZ_F32)
        qz_reasons_add(r, "%s: found scales in %s; bitsandbytes stores F32", l->module, qz_dtype_name(s->scale_type));
    if (l->ordered) qz_reasons_add(r, "%s: bitsandbytes has no place for an order of the inputs", l->module);
    qz_reasons_embedding(r, l);
    if (l->layer < 0 && !l->embedding)
        qz_reasons_add(r, "%s lies outside the decoder layers, which readers of bitsandbytes leave plain: skip it",
                       l->module);
}

/* The cut depends on the width and may differ. */
static bool same_kind(const qz_scheme *a, const qz_scheme *b)
{
    return a->format == b->format && a->double_quant == b->double_quant;
}

static qz_status can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "bitsandbytes"};
    const qz_export_linear *first = qz_export_first_quantized(plan);
    if (!first) qz_reasons_add(&r, "no linear is quantized; bitsandbytes needs at least one");
    if (!qz_dtype_is_plain(plan->plain_type))
        qz_reasons_add(&r, "plain tensors are to be %s; F32, F16 or BF16 is expected", qz_dtype_name(plan->plain_type));
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!l->quantized) continue;
        check_linear(&r, l);
        if (!same_kind(&l->scheme, &first->scheme))
            qz_reasons_add(&r, "%s and %s have different formats; a bitsandbytes config says one for all",
                           first->module, l->module);
    }
    qz_reasons_weights_only(&r, plan);
    qz_reasons_fused(&r, plan);
    return qz_reasons_status(&r);
}

/* ---- writing ---- */

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    return is_4bit(&l->scheme) ? qz_bnb_declare_4bit(s, l) : qz_bnb_declare_int8(s, l);
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    (void)act;
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: bitsandbytes cannot hold an order of the inputs", l->module);
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = (is_4bit(&l->scheme) ? qz_bnb_write_4bit : qz_bnb_write_int8)(s, l, q, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

static const char *type_name(qz_dtype t)
{
    return t == QZ_F16 ? "float16" : t == QZ_BF16 ? "bfloat16" : "float32";
}

static void put_4bit(qz_json_writer *w, const qz_export_plan *plan, const qz_scheme *s)
{
    qz_json_put_string(w, "bnb_4bit_quant_type", qz_format_of(s->format)->name);
    qz_json_put_bool(w, "bnb_4bit_use_double_quant", s->double_quant);
    qz_json_put_string(w, "bnb_4bit_compute_dtype", type_name(plan->plain_type));
    qz_json_put_string(w, "bnb_4bit_quant_storage", "uint8");
}

static qz_status config_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    if (!first) return QZ_FAIL(QZ_UNSUPPORTED, "no linear is quantized; bitsandbytes needs at least one");
    const bool four = is_4bit(&first->scheme);
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "quant_method", "bitsandbytes");
    qz_json_put_bool(w, "load_in_4bit", four);
    qz_json_put_bool(w, "load_in_8bit", !four);
    if (four) put_4bit(w, plan, &first->scheme);
    qz_json_put_raw(w, "llm_int8_threshold", "6.0"); /* readers ask for a number with a fraction */
    qz_export_put_plain(w, "llm_int8_skip_modules", plan);
    qz_json_put_bool(w, "llm_int8_has_fp16_weight", false);
    qz_json_put_bool(w, "llm_int8_enable_fp32_cpu_offload", false);
    qz_json_end(w);
    return qz_part_finish_text(out, w, arena);
}

const qz_container qz_container_bitsandbytes = {
    .plugin = {.name = "bitsandbytes",
               .help = "nf4 and fp4 in blocks of 64, with plain or quantized scales, and LLM.int8()",
               .source = "bitsandbytes 0.50, functional.py (QuantState); Dettmers et al. 2022 and 2023"},
    .consumers = "transformers (bitsandbytes), PEFT (QLoRA); vLLM up to 2026-04, later with its bitsandbytes plug-in. "
                 "bitsandbytes 0.50 on a CPU decodes 4-bit weights wrongly where inputs % 64 is not 0",
    .recognise = recognise,
    .can_express = can_express,
    .read_scheme = read_scheme,
    .suffixes = suffixes,
    .holds = holds,
    .read_linear = read_linear,
    .declare_linear = declare_linear,
    .write_linear = write_linear,
    .config_block = config_block,
    .settle = settle,
    .preferred_plain_type = QZ_BF16,
    .consumer = "transformers",
};
