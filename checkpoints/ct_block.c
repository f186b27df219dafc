/* A plan -> compressed-tensors' quantization_config.
 *
 * One kind of linear: one group with the target "Linear". Several: one group each, its targets the full names of its
 * modules, since those are found first and leave no doubt; servers that fuse linears look up the parts. `ignore` names
 * what stays plain, the output head always ("Linear" is its class in transformers).
 * Only keys that every release accepts: unknown ones are refused by the reader (pydantic, extra=forbid). A group's own
 * `format` exists since 2025 only, so it is written where a reader could not guess it: several formats in one model,
 * and packed weights with rounded inputs, which compressed-tensors would take to be int-quantized. */
#include <stdio.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/ct_config.h"
#include "checkpoints/plain_list.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

/* The release whose layout this is: since June 2026 codes of 3, 5, 6 and 7 bits straddle words. */
#define VERSION "0.19.0"

static const char *const form_names[] = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized"};

qz_ct_form qz_ct_form_of(const qz_export_linear *l)
{
    const bool rounds_input = l->activation.mode != QZ_ACT_NONE;
    const qz_format_info *f = qz_format_of(l->scheme.format);
    if (f->kind == QZ_KIND_FLOAT) return rounds_input ? QZ_CT_FLOAT : QZ_CT_NAIVE;
    return rounds_input && f->bits == 8 ? QZ_CT_INT : QZ_CT_PACKED;
}

qz_ct_strategy qz_ct_strategy_of(const qz_export_linear *l)
{
    if (l->scheme.piece_rows == 0) return QZ_CT_TENSOR;
    if (l->scheme.piece_rows > 1) return QZ_CT_BLOCK;
    return qz_export_group(l) < 0 ? QZ_CT_CHANNEL : QZ_CT_GROUP;
}

static bool same_kind(const qz_export_linear *a, const qz_export_linear *b)
{
    const qz_scheme *s = &a->scheme, *t = &b->scheme;
    return a->embedding == b->embedding && s->format == t->format && s->symmetric == t->symmetric &&
           s->piece_rows == t->piece_rows && qz_ct_strategy_of(a) == qz_ct_strategy_of(b) &&
           qz_export_group(a) == qz_export_group(b) && qz_act_scheme_same(&a->activation, &b->activation);
}

static bool is_first_of_its_kind(const qz_export_plan *plan, size_t at)
{
    if (!plan->linear[at].quantized) return false;
    for (size_t i = 0; i < at; i++)
        if (plan->linear[i].quantized && same_kind(&plan->linear[i], &plan->linear[at])) return false;
    return true;
}

/* ---- groups ---- */

static void begin_args(qz_json_writer *w, const char *key, qz_format format, bool symmetric)
{
    const qz_format_info *f = qz_format_of(format);
    qz_json_begin_object(w, key);
    qz_json_put_int(w, "num_bits", f->bits);
    qz_json_put_string(w, "type", f->kind == QZ_KIND_FLOAT ? "float" : "int");
    qz_json_put_bool(w, "symmetric", f->kind == QZ_KIND_FLOAT || symmetric);
}

static void put_weights(qz_json_writer *w, const qz_export_linear *l)
{
    const qz_ct_strategy strategy = qz_ct_strategy_of(l);
    begin_args(w, "weights", l->scheme.format, l->scheme.symmetric);
    qz_json_put_string(w, "strategy", qz_ct_strategy_name(strategy));
    if (strategy == QZ_CT_GROUP) qz_json_put_int(w, "group_size", l->scheme.piece_cols);
    if (strategy == QZ_CT_BLOCK) {
        qz_json_begin_array(w, "block_structure");
        qz_json_put_int(w, NULL, l->scheme.piece_rows);
        qz_json_put_int(w, NULL, l->scheme.piece_cols);
        qz_json_end(w);
    }
    qz_json_put_bool(w, "dynamic", false);
    qz_json_end(w);
}

static void put_input(qz_json_writer *w, const qz_act_scheme *a)
{
    static const qz_ct_strategy strategy[] = {
        [QZ_ACT_TOKEN] = QZ_CT_TOKEN, [QZ_ACT_GROUP] = QZ_CT_GROUP, [QZ_ACT_TENSOR] = QZ_CT_TENSOR};
    if (a->mode == QZ_ACT_NONE) {
        qz_json_put_raw(w, "input_activations", "null");
        return;
    }
    begin_args(w, "input_activations", a->format, a->symmetric);
    qz_json_put_string(w, "strategy", qz_ct_strategy_name(strategy[a->mode]));
    if (a->mode == QZ_ACT_GROUP) qz_json_put_int(w, "group_size", a->group);
    qz_json_put_bool(w, "dynamic", a->mode != QZ_ACT_TENSOR);
    qz_json_end(w);
}

/* All linears of the kind of `first`, or the class and what it does not reach. Embeddings go by their class: not every
 * model of vLLM tells them their name. */
static void put_targets(qz_json_writer *w, const qz_export_plan *plan, const qz_export_linear *first, bool by_name)
{
    qz_json_begin_array(w, "targets");
    if (first->embedding) {
        qz_json_put_string(w, NULL, QZ_CT_EMBEDDING);
        qz_json_end(w);
        return;
    }
    if (!by_name) qz_json_put_string(w, NULL, "Linear");
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (l->quantized && same_kind(l, first) && (by_name || l->layer < 0)) qz_json_put_string(w, NULL, l->module);
    }
    qz_json_end(w);
}

static void put_group(qz_json_writer *w, const qz_export_plan *plan, const qz_export_linear *first, int number,
                      int kinds, bool mixed)
{
    char key[32];
    snprintf(key, sizeof key, "group_%d", number);
    const qz_ct_form form = qz_ct_form_of(first);
    qz_json_begin_object(w, key);
    put_targets(w, plan, first, kinds > 1);
    put_weights(w, first);
    put_input(w, &first->activation);
    qz_json_put_raw(w, "output_activations", "null");
    if (mixed || (form == QZ_CT_PACKED && first->activation.mode != QZ_ACT_NONE))
        qz_json_put_string(w, "format", form_names[form]);
    qz_json_end(w);
}

/* ---- the block ---- */

static void put_cache(qz_json_writer *w, const qz_kv_scheme *kv)
{
    if (!kv->wanted) {
        qz_json_put_raw(w, "kv_cache_scheme", "null");
        return;
    }
    begin_args(w, "kv_cache_scheme", kv->format, true);
    qz_json_put_string(w, "strategy", qz_ct_strategy_name(kv->per_head ? QZ_CT_ATTN_HEAD : QZ_CT_TENSOR));
    qz_json_put_bool(w, "dynamic", false);
    qz_json_end(w);
}

qz_status qz_ct_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    int kinds = 0, number = 0;
    bool mixed = false;
    for (size_t i = 0; i < plan->linears; i++) {
        if (!is_first_of_its_kind(plan, i)) continue;
        kinds++;
        mixed |= qz_ct_form_of(&plan->linear[i]) != qz_ct_form_of(first);
    }
    if (kinds > 99)
        return QZ_FAIL(QZ_UNSUPPORTED, "%d different schemes; compressed-tensors is written with 99", kinds);
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "quant_method", "compressed-tensors");
    qz_json_put_string(w, "version", VERSION);
    qz_json_put_string(w, "format", !first ? "dense" : mixed ? "mixed-precision" : form_names[qz_ct_form_of(first)]);
    qz_json_put_string(w, "quantization_status", "compressed");
    qz_json_begin_object(w, "config_groups");
    for (size_t i = 0; i < plan->linears; i++)
        if (is_first_of_its_kind(plan, i)) put_group(w, plan, &plan->linear[i], number++, kinds, mixed);
    qz_json_end(w);
    qz_export_put_plain(w, "ignore", plan);
    put_cache(w, &plan->kv);
    qz_json_end(w);
    return qz_part_finish_text(out, w, arena);
}
