/* Rules about quantization_config itself: methods, keys and combinations that a consumer's loader knows. What was read
 * of each loader is cited in docs/serving.md. */
#include <string.h>

#include "programs/served.h"

static const char *const as_compressed = "export the compressed-tensors container instead";

/* ---- method ---- */

static void check_vllm_method(const qz_served *s, qz_findings *f)
{
    if (s->method == QZ_METHOD_BITSANDBYTES)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.quant_method",
                       "install the plugin vllm-bnb-plugin, or export awq, gptq or compressed-tensors",
                       "bitsandbytes moved out of vLLM's tree in 2026 (\"Unknown quantization method\")");
    else if (s->method == QZ_METHOD_OTHER)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.quant_method", as_compressed,
                       "\"%s\" is no method that vLLM reads", s->method_name);
}

static void check_transformers_method(const qz_served *s, qz_findings *f)
{
    if (s->method == QZ_METHOD_MODELOPT || s->method == QZ_METHOD_OTHER)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.quant_method", as_compressed,
                       "\"%s\" is no method that transformers reads", s->method_name);
    else if (s->method == QZ_METHOD_AWQ || s->method == QZ_METHOD_GPTQ)
        qz_finding_add(f, QZ_HARM_LIMITED, "quantization_config.quant_method", "install gptqmodel beside transformers",
                       "transformers loads %s through the package gptqmodel only", s->method_name);
    else if (s->method == QZ_METHOD_COMPRESSED)
        qz_finding_add(f, QZ_HARM_LIMITED, "quantization_config.quant_method", "install compressed-tensors",
                       "transformers loads it through the package compressed-tensors only");
}

/* load_hf_quant_config of its PyTorch backend. */
static void check_trt_method(const qz_served *s, qz_findings *f)
{
    static const char *const advice = "export compressed-tensors fp8 (channel and token, or blocks of 128), fp8 in "
                                      "blocks, or make a ModelOpt export";
    if (s->method == QZ_METHOD_NONE || s->method == QZ_METHOD_MODELOPT || s->method == QZ_METHOD_COMPRESSED) return;
    if (s->method == QZ_METHOD_FP8 && qz_json_count(qz_json_get(s->quant, "weight_block_size")) == 2) return;
    qz_finding_add(
        f, QZ_HARM_REFUSED, "quantization_config.quant_method", advice,
        "TensorRT-LLM's PyTorch backend reads ModelOpt, compressed-tensors and fp8 in blocks, but not \"%s\"%s",
        s->method_name, s->method == QZ_METHOD_FP8 ? " without weight_block_size" : "");
}

qz_status qz_serving_method(const qz_served *s, qz_findings *f)
{
    if (s->consumer == QZ_FOR_VLLM) check_vllm_method(s, f);
    if (s->consumer == QZ_FOR_TRANSFORMERS) check_transformers_method(s, f);
    if (s->consumer == QZ_FOR_TRT_LLM) check_trt_method(s, f);
    return QZ_OK;
}

/* ---- keys ---- */

/* `or`: the older name of the same key, or NULL. */
static void need_key(const qz_served *s, qz_findings *f, const char *key, const char * or)
{
    if (qz_json_get(s->quant, key) || (or &&qz_json_get(s->quant, or))) return;
    qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config", "add the key to config.json", "the key \"%s\" is missing",
                   key);
}

static void only_keys(qz_findings *f, const qz_json_node *object, const char *const *known, const char *where)
{
    for (const qz_json_node *m = qz_json_first(object); m; m = qz_json_next(m)) {
        const char *const *name = known;
        while (*name && strcmp(*name, qz_json_key(m)) != 0) name++;
        if (!*name)
            qz_finding_add(f, QZ_HARM_REFUSED, where, "remove the key: compressed-tensors allows no others here",
                           "the key \"%s\" is not known", qz_json_key(m));
    }
}

static void check_compressed_keys(const qz_served *s, qz_findings *f)
{
    static const char *const scheme[] = {"targets", "weights", "input_activations", "output_activations",
                                         "format",  NULL};
    static const char *const args[] = {
        "num_bits",    "type",     "symmetric", "group_size",      "strategy", "block_structure", "dynamic", "actorder",
        "scale_dtype", "zp_dtype", "observer",  "observer_kwargs", NULL};
    need_key(s, f, "config_groups", NULL);
    const qz_json_node *groups = qz_json_get(s->quant, "config_groups");
    for (const qz_json_node *g = qz_json_first(groups); g; g = qz_json_next(g)) {
        only_keys(f, g, scheme, "quantization_config.config_groups");
        only_keys(f, qz_json_get(g, "weights"), args, "quantization_config.config_groups.weights");
        only_keys(f, qz_json_get(g, "input_activations"), args, "quantization_config.config_groups.input_activations");
    }
    const char *status = qz_served_text(s->quant, "quantization_status", "");
    if (s->consumer == QZ_FOR_TRANSFORMERS && strcmp(status, "compressed") != 0)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.quantization_status", "set it to \"compressed\"",
                       "\"%s\": transformers takes the tensors for packed only when it says \"compressed\"", status);
}

static void check_bitsandbytes_keys(const qz_served *s, qz_findings *f)
{
    const bool four = qz_served_bool(s->quant, "load_in_4bit", false);
    if (four == qz_served_bool(s->quant, "load_in_8bit", false))
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config", "set exactly one of them",
                       "load_in_4bit and load_in_8bit are both %s", four ? "true" : "false");
}

qz_status qz_serving_keys(const qz_served *s, qz_findings *f)
{
    switch (s->method) {
    case QZ_METHOD_AWQ:
        need_key(s, f, "bits", "w_bit");
        need_key(s, f, "group_size", "q_group_size");
        need_key(s, f, "zero_point", NULL);
        break;
    case QZ_METHOD_GPTQ:
        need_key(s, f, "bits", NULL);
        need_key(s, f, "group_size", NULL);
        need_key(s, f, "desc_act", NULL);
        need_key(s, f, "sym", NULL);
        break;
    case QZ_METHOD_COMPRESSED:
        check_compressed_keys(s, f);
        break;
    case QZ_METHOD_FP8:
        if (s->consumer == QZ_FOR_VLLM) need_key(s, f, "activation_scheme", NULL);
        break;
    case QZ_METHOD_BITSANDBYTES:
        check_bitsandbytes_keys(s, f);
        break;
    default:
        break;
    }
    return QZ_OK;
}

/* ---- AWQ and GPTQ ---- */

qz_status qz_serving_awq(const qz_served *s, qz_findings *f)
{
    if (s->method != QZ_METHOD_AWQ) return QZ_OK;
    const char *version = qz_served_text(s->quant, "version", "gemm");
    if (strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0)
        qz_finding_add(f, s->consumer == QZ_FOR_VLLM ? QZ_HARM_WRONG : QZ_HARM_LIMITED, "quantization_config.version",
                       "store the layout \"gemm\"", "\"%s\" is another layout%s", version,
                       s->consumer == QZ_FOR_VLLM ? ", but vLLM reads every file as \"gemm\"" : " than kernels expect");
    if (!qz_served_bool(s->quant, "zero_point", true))
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.zero_point",
                       "store qzeros (8 for symmetric codes) and say true",
                       "false: readers for GPUs have no kernel for AWQ without zeros");
    return QZ_OK;
}

static void check_vllm_gptq(const qz_served_linear *l, qz_findings *f)
{
    const qz_served_scheme *x = &l->scheme;
    if (!x->symmetric || (x->bits != 4 && x->bits != 8))
        qz_finding_add(f, QZ_HARM_REFUSED, l->module,
                       "use 4 or 8 bits, symmetric, or serve it with transformers and gptqmodel",
                       "%d bits, %s: vLLM takes GPTQ with 4 and 8 bits, symmetric, only", x->bits,
                       x->symmetric ? "symmetric" : "asymmetric");
    if (x->ordered)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "quantize with act_order \"static\" (no g_idx)",
                       "desc_act is true: vLLM dropped activation ordering of groups");
}

qz_status qz_serving_gptq(const qz_served *s, qz_findings *f)
{
    if (s->method != QZ_METHOD_GPTQ) return QZ_OK;
    for (size_t i = 0; i < s->linears && s->consumer == QZ_FOR_VLLM; i++)
        if (s->linear[i].said) check_vllm_gptq(&s->linear[i], f);
    if (s->consumer == QZ_FOR_TRANSFORMERS && qz_json_count(qz_json_get(s->quant, "dynamic")))
        qz_finding_add(
            f, QZ_HARM_WRONG, "quantization_config.dynamic",
            "quantize all linears alike for transformers, or serve it with vLLM",
            "transformers 5.17 with gptqmodel 7.7 did not follow these rules: skipped linears were made anew");
    return QZ_OK;
}

/* Words of qzeros of symmetric codes, as format v1 stores them: 2^(bits - 1) - 1 in each field. */
qz_status qz_serving_gptq_zeros(const qz_served *s, qz_findings *f)
{
    const bool second = strcmp(qz_served_text(s->quant, "checkpoint_format", "gptq"), "gptq_v2") == 0;
    if (s->method != QZ_METHOD_GPTQ) return QZ_OK;
    for (size_t i = 0; i < s->linears; i++) {
        const qz_served_linear *l = &s->linear[i];
        const qz_stored *t = qz_served_part(s, l->module, "qzeros");
        if (!t || !l->said || !l->scheme.symmetric || (l->scheme.bits != 4 && l->scheme.bits != 8)) continue;
        const uint32_t expected = (l->scheme.bits == 4 ? 0x77777777u : 0x7F7F7F7Fu) +
                                  (second ? (l->scheme.bits == 4 ? 0x11111111u : 0x01010101u) : 0);
        uint64_t same = 0;
        for (; same + 4 <= t->bytes; same += 4)
            if (memcmp((const char *)t->view.data + same, &expected, 4) != 0) break;
        if (same + 4 <= t->bytes)
            qz_finding_add(f, QZ_HARM_WRONG, t->name, "store the zeros of symmetric codes, or say \"sym\": false",
                           "\"sym\" is true, but not all zeros are 2^(bits - 1); vLLM does not look at them");
    }
    return QZ_OK;
}

/* ---- compressed-tensors and fp8 ---- */

static void check_vllm_format(const qz_served_linear *l, qz_findings *f)
{
    const qz_served_scheme *x = &l->scheme;
    if (!x->floating && x->inputs == QZ_INPUTS_PLAIN && strcmp(x->format, "pack-quantized") != 0)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "store it as \"pack-quantized\"",
                       "integer weights with plain inputs in the format \"%s\"", x->format);
    if (!x->floating && x->bits == 8 && !x->symmetric && x->inputs != QZ_INPUTS_PLAIN)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "make the weights symmetric",
                       "asymmetric int8 weights with rounded inputs");
    if (x->inputs == QZ_INPUTS_STATIC && x->floating && x->granularity == QZ_PER_BLOCK)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "round the inputs dynamically", "blocks with static inputs");
    if (x->floating && x->bits == 8 && x->inputs != QZ_INPUTS_PLAIN && !x->inputs_floating)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "round weights and inputs to one kind of number",
                       "fp8 weights with integer inputs");
    if (!x->floating && x->bits == 8 && x->inputs != QZ_INPUTS_PLAIN && x->inputs_floating)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "round weights and inputs to one kind of number",
                       "int8 weights with fp8 inputs");
}

/* update_quant_config_from_compressed_tensors: bits and strategies are read, the type of 8-bit weights is not. */
static void check_trt_format(const qz_served_linear *l, qz_findings *f)
{
    static const char *const advice = "quantize to fp8: channels with inputs per token, or blocks of 128 with groups "
                                      "of 128";
    const qz_served_scheme *x = &l->scheme;
    if (x->floating && x->bits == 4 && (x->inputs != QZ_INPUTS_PLAIN || strstr(x->format, "mxfp4"))) return;
    if (x->inputs == QZ_INPUTS_PLAIN)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, advice, "input_activations is null: its reader needs them");
    else if (x->bits != 8 || (x->granularity != QZ_PER_CHANNEL && x->granularity != QZ_PER_BLOCK))
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, advice, "%d bits %s: only 8 bits per channel or block are read",
                       x->bits, x->granularity == QZ_PER_GROUP ? "in groups" : "per tensor");
    else if (!x->floating)
        qz_finding_add(f, QZ_HARM_WRONG, l->module, advice, "int8 weights: its reader takes all 8-bit weights for fp8");
    else if (x->inputs == QZ_INPUTS_STATIC)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, advice, "static inputs: only those per token or group are read");
}

static void check_whole_format(const qz_served *s, qz_findings *f)
{
    const char *format = qz_served_text(s->quant, "format", "");
    if (strstr(format, "sparse") || strcmp(format, "marlin-24") == 0)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.format", "store it without sparsity",
                       "\"%s\": vLLM no longer reads sparse formats", format);
    if (qz_json_count(qz_json_get(s->quant, "sparsity_config")))
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.sparsity_config", "remove the key",
                       "vLLM no longer reads sparse formats");
}

qz_status qz_serving_formats(const qz_served *s, qz_findings *f)
{
    if (s->method != QZ_METHOD_COMPRESSED) return QZ_OK;
    if (s->consumer == QZ_FOR_VLLM) check_whole_format(s, f);
    for (size_t i = 0; i < s->linears; i++) {
        if (!s->linear[i].said) continue;
        if (s->consumer == QZ_FOR_VLLM) check_vllm_format(&s->linear[i], f);
        if (s->consumer == QZ_FOR_TRT_LLM) check_trt_format(&s->linear[i], f);
    }
    return QZ_OK;
}

qz_status qz_serving_fp8(const qz_served *s, qz_findings *f)
{
    if (s->method != QZ_METHOD_FP8) return QZ_OK;
    const bool blocks = qz_json_count(qz_json_get(s->quant, "weight_block_size")) == 2;
    const bool fixed = strcmp(qz_served_text(s->quant, "activation_scheme", ""), "static") == 0;
    if (s->consumer == QZ_FOR_TRANSFORMERS && !blocks)
        qz_finding_add(f, QZ_HARM_WRONG, "quantization_config.weight_block_size", as_compressed,
                       "absent: transformers' fp8 reads blocks of 128 and leaves other scales out");
    if (blocks && fixed)
        qz_finding_add(f, QZ_HARM_REFUSED, "quantization_config.activation_scheme", "say \"dynamic\"",
                       "\"static\" with weight_block_size");
    for (size_t i = 0; i < s->linears; i++) {
        const qz_stored *t = qz_served_part(s, s->linear[i].module, "weight_scale");
        if (t && qz_tensor_count(&t->view) > 1)
            qz_finding_add(f, QZ_HARM_REFUSED, t->name, as_compressed,
                           "holds several scales, but quant_method fp8 has one for a matrix, or blocks");
    }
    return QZ_OK;
}

qz_status qz_serving_stored_type(const qz_served *s, qz_findings *f)
{
    const bool half = s->method == QZ_METHOD_AWQ || s->method == QZ_METHOD_GPTQ;
    if (!half || s->model.stored == QZ_F16) return QZ_OK;
    if (s->model.stored == QZ_F32)
        qz_finding_add(
            f, QZ_HARM_LIMITED, "torch_dtype", "set it to \"float16\"",
            "float32: %s has no kernel for it; vLLM casts the model down unless --dtype insists, then it refuses",
            s->method_name);
    else
        qz_finding_add(f, QZ_HARM_LIMITED, "torch_dtype", "set it to \"float16\" for the widest choice of kernels",
                       "bfloat16: kernels of vLLM before 2026 other than Marlin take float16 only");
    return QZ_OK;
}
