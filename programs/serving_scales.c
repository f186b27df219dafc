/* Rules about tensors: that what the config promises is stored, and that scales are numbers somebody measured. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "programs/served.h"

/* ---- config against tensors ---- */

static void check_said(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    static const char *const list = "make the list of plain modules agree with what is stored (lm_head included)";
    if (l->said == l->stored) return;
    /* vLLM of 2026 finds plain modules of AWQ in the headers when no list is given. */
    const bool scanned = s->consumer == QZ_FOR_VLLM && s->method == QZ_METHOD_AWQ && l->said &&
                         !qz_json_count(qz_json_get(s->quant, "modules_to_not_convert"));
    const qz_harm harm = scanned                              ? QZ_HARM_LIMITED
                         : s->consumer == QZ_FOR_TRANSFORMERS ? QZ_HARM_WRONG
                                                              : QZ_HARM_REFUSED;
    if (l->said)
        qz_finding_add(f, harm, l->module, list, "is stored plain, but the config does not list it as plain%s",
                       scanned                              ? "; vLLM before 2026 fails"
                       : s->consumer == QZ_FOR_TRANSFORMERS ? "; it is made anew with random weights"
                                                            : "");
    else
        qz_finding_add(f, harm, l->module, list, "is stored quantized, but the config says it is plain");
}

qz_status qz_serving_ignored(const qz_served *s, qz_findings *f)
{
    if (s->method == QZ_METHOD_MODELOPT || s->method == QZ_METHOD_OTHER) return QZ_OK;
    for (size_t i = 0; i < s->linears; i++) check_said(s, &s->linear[i], f);
    return QZ_OK;
}

static void need(const qz_served *s, const qz_served_linear *l, const char *suffix, qz_findings *f)
{
    if (qz_served_part(s, l->module, suffix)) return;
    qz_finding_add(f, QZ_HARM_REFUSED, l->module, "write the checkpoint again", "the tensor \"%s\" is missing", suffix);
}

static void need_positive(const qz_served *s, const qz_served_linear *l, const char *suffix, qz_findings *f)
{
    const qz_stored *t = qz_served_part(s, l->module, suffix);
    need(s, l, suffix, f);
    if (!t || qz_tensor_count(&t->view) != 1) return;
    const double value = qz_served_number(t);
    if (!isfinite(value) || value <= 0)
        qz_finding_add(f, QZ_HARM_WRONG, t->name, "calibrate again", "the scale is %g", value);
}

static void need_packed(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    need(s, l, "weight_packed", f);
    need(s, l, "weight_scale", f);
    if (strstr(l->scheme.format, "nvfp4")) need(s, l, "weight_global_scale", f);
    if (l->scheme.floating) return;
    need(s, l, "weight_shape", f);
    if (!l->scheme.symmetric) need(s, l, "weight_zero_point", f);
    if (l->scheme.ordered) need(s, l, "weight_g_idx", f);
}

static void need_compressed(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    if (strstr(l->scheme.format, "pack")) {
        need_packed(s, l, f);
        return;
    }
    need(s, l, "weight", f);
    need(s, l, "weight_scale", f);
    if (l->scheme.inputs != QZ_INPUTS_STATIC) return;
    need_positive(s, l, "input_scale", f);
    if (!l->scheme.inputs_symmetric) need(s, l, "input_zero_point", f);
}

static void need_bitsandbytes(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    char state[64];
    need(s, l, "weight", f);
    if (l->scheme.bits == 8) {
        need(s, l, "SCB", f);
        return;
    }
    snprintf(state, sizeof state, "weight.quant_state.bitsandbytes__%s",
             qz_served_text(s->quant, "bnb_4bit_quant_type", "fp4"));
    need(s, l, "weight.absmax", f);
    need(s, l, "weight.quant_map", f);
    need(s, l, state, f);
    if (!qz_served_bool(s->quant, "bnb_4bit_use_double_quant", false)) return;
    need(s, l, "weight.nested_absmax", f);
    need(s, l, "weight.nested_quant_map", f);
}

static void need_parts(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    switch (s->method) {
    case QZ_METHOD_AWQ:
    case QZ_METHOD_GPTQ:
        need(s, l, "qweight", f);
        need(s, l, "qzeros", f);
        need(s, l, "scales", f);
        if (l->scheme.ordered) need(s, l, "g_idx", f);
        return;
    case QZ_METHOD_COMPRESSED:
        need_compressed(s, l, f);
        return;
    case QZ_METHOD_FP8:
        need(s, l, "weight", f);
        need_positive(s, l, l->scheme.granularity == QZ_PER_BLOCK ? "weight_scale_inv" : "weight_scale", f);
        if (l->scheme.inputs == QZ_INPUTS_STATIC) need_positive(s, l, "input_scale", f);
        return;
    case QZ_METHOD_BITSANDBYTES:
        need_bitsandbytes(s, l, f);
        return;
    default:
        return;
    }
}

/* Linears that are quantized in both ways; of the others the rule before tells. */
qz_status qz_serving_missing(const qz_served *s, qz_findings *f)
{
    for (size_t i = 0; i < s->linears; i++) {
        const qz_served_linear *l = &s->linear[i];
        if (l->said && l->stored) need_parts(s, l, f);
        if (!l->stored && !qz_served_part(s, l->module, "weight"))
            qz_finding_add(f, QZ_HARM_REFUSED, l->module, "write the checkpoint again", "no weight is stored");
    }
    return QZ_OK;
}

/* A tensor that says that the module of `tensor` ("lm_head.weight") is stored quantized; NULL: none. */
static const qz_stored *quantized_part(const qz_served *s, const char *tensor)
{
    static const char *const parts[] = {"qweight", "weight_packed", "weight_scale", "weight_scale_inv", "SCB", NULL};
    char module[256];
    const char *dot = strrchr(tensor, '.');
    snprintf(module, sizeof module, "%.*s", (int)(dot ? dot - tensor : 0), tensor);
    for (const char *const *part = parts; *part; part++)
        if (qz_served_part(s, module, *part)) return qz_served_part(s, module, *part);
    return NULL;
}

qz_status qz_serving_tied_head(const qz_served *s, qz_findings *f)
{
    const qz_stored *t = s->model.tied ? quantized_part(s, s->names->head) : NULL;
    if (t)
        qz_finding_add(f, QZ_HARM_WRONG, t->name,
                       "leave the head plain, or set tie_word_embeddings to false and store "
                       "both",
                       "the output head is quantized, but tie_word_embeddings makes it the embedding table");
    return QZ_OK;
}

qz_status qz_serving_embeddings(const qz_served *s, qz_findings *f)
{
    const qz_stored *t = quantized_part(s, s->names->embedding);
    if (!t) return QZ_OK;
    const bool packed = strstr(t->name, ".weight_packed") != NULL;
    if (s->consumer == QZ_FOR_VLLM && packed && !s->model.tied)
        qz_finding_add(f, QZ_HARM_LIMITED, t->name, "serve it with llama, mistral, phi3 or qwen models on a GPU",
                       "vLLM looks rows up in codes since June 2026, on GPUs, in models that pass their embeddings the "
                       "scheme");
    else
        qz_finding_add(f, QZ_HARM_REFUSED, t->name, "leave the embeddings plain",
                       "the embeddings are stored quantized, which this consumer does not load");
    return QZ_OK;
}

/* ---- the cache ---- */

static const qz_json_node *cache_scheme(const qz_served *s)
{
    const qz_json_node *node = qz_json_get(s->quant, "kv_cache_scheme");
    return qz_json_type_of(node) == QZ_JSON_NULL ? NULL : node;
}

/* Under any of the names that vLLM maps to its own (FORMATS.md 4.3). */
static const qz_stored *find_cache_scale(const qz_served *s, int layer, char which)
{
    const char *attention = qz_served_attention(s, layer);
    char part[4][32];
    snprintf(part[0], sizeof *part, "%c_scale", which);
    snprintf(part[1], sizeof *part, "%c_proj.%c_scale", which, which);
    snprintf(part[2], sizeof *part, "%c_proj.output_scale", which);
    snprintf(part[3], sizeof *part, "attn.%c_scale", which);
    for (int i = 0; i < 4; i++) {
        const qz_stored *t = qz_served_part(s, attention, part[i]);
        if (t) return t;
    }
    return qz_served_part(s, attention, "kv_scale");
}

static bool has_cache_scales(const qz_served *s)
{
    for (int i = 0; i < (int)s->model.layers; i++)
        if (find_cache_scale(s, i, 'k') || find_cache_scale(s, i, 'v')) return true;
    return false;
}

static bool is_readable_scheme(const qz_json_node *scheme)
{
    const char *strategy = qz_served_text(scheme, "strategy", "tensor");
    return qz_served_int(scheme, "num_bits", 0) == 8 && strcmp(qz_served_text(scheme, "type", ""), "float") == 0 &&
           qz_served_bool(scheme, "symmetric", true) && !qz_served_bool(scheme, "dynamic", false) &&
           (strcmp(strategy, "tensor") == 0 || strcmp(strategy, "attn_head") == 0);
}

static const char *const start_fp8 = "start the server with --kv-cache-dtype fp8, or export compressed-tensors";

qz_status qz_serving_kv_scheme(const qz_served *s, qz_findings *f)
{
    const qz_json_node *scheme = cache_scheme(s);
    const char *const where = "quantization_config.kv_cache_scheme";
    if (!scheme && !has_cache_scales(s)) return QZ_OK;
    if (s->consumer == QZ_FOR_TRANSFORMERS) {
        if (s->method != QZ_METHOD_COMPRESSED || !scheme)
            qz_finding_add(f, QZ_HARM_LIMITED, where, "judge the rounded cache with the server that rounds it",
                           "the cache's scales lie unused: transformers rounds it by compressed-tensors only");
        return QZ_OK;
    }
    if (s->method == QZ_METHOD_COMPRESSED && scheme && !is_readable_scheme(scheme))
        qz_finding_add(f, QZ_HARM_REFUSED, where, "use fp8 (8 bits, float, symmetric, static; per tensor or attn_head)",
                       "a form of the cache that %s does not read", qz_consumer_name(s->consumer));
    else if (s->method == QZ_METHOD_COMPRESSED && !scheme)
        qz_finding_add(f, QZ_HARM_LIMITED, where, start_fp8, "scales of the cache are stored, but no scheme says so");
    else if (s->method != QZ_METHOD_COMPRESSED && s->method != QZ_METHOD_MODELOPT)
        qz_finding_add(f, QZ_HARM_LIMITED, where, start_fp8,
                       "quant_method %s does not switch the cache by itself; its scales lie unused", s->method_name);
    return QZ_OK;
}

static void check_cache_values(const qz_stored *t, qz_findings *f)
{
    const int64_t count = t ? qz_tensor_count(&t->view) : 0;
    bool ones = count > 0;
    for (int64_t i = 0; i < count; i++) {
        float x;
        if (qz_convert(&x, QZ_F32, (const char *)t->view.data + i * qz_dtype_bits(t->view.dtype) / 8, t->view.dtype,
                       1) != QZ_OK)
            return;
        ones &= x == 1;
        if (isfinite(x) && x > 0) continue;
        qz_finding_add(f, QZ_HARM_WRONG, t->name, "calibrate the cache again", "the scale is %g", (double)x);
        return;
    }
    if (ones)
        qz_finding_add(f, QZ_HARM_WRONG, t->name, "calibrate the cache: nothing measured gives exactly 1",
                       "the scale is exactly 1.0, which is what a server takes when there is none");
}

qz_status qz_serving_kv_scales(const qz_served *s, qz_findings *f)
{
    if (!cache_scheme(s) && !has_cache_scales(s)) return QZ_OK;
    for (int i = 0; i < (int)s->model.layers; i++) {
        const qz_stored *key = find_cache_scale(s, i, 'k'), *value = find_cache_scale(s, i, 'v');
        if (!key && !value)
            qz_finding_add(f, QZ_HARM_WRONG, qz_served_attention(s, i), "calibrate the cache of every layer",
                           "k_scale and v_scale are missing: the server takes 1.0");
        else if (!key || !value)
            qz_finding_add(f, QZ_HARM_WRONG, qz_served_attention(s, i), "store both",
                           "only one of k_scale and v_scale is there: the server takes it for both");
        check_cache_values(key, f);
        if (value != key) check_cache_values(value, f);
    }
    return QZ_OK;
}
