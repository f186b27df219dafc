/* compressed-tensors checkpoints <-> qz_qtensor: what llm-compressor writes and vLLM reads.
 *
 * Layout: compressed_tensors/compressors/{pack_quantized,naive_quantized}/base.py (0.19).
 *   pack-quantized    <module>.weight_packed      I32 (N, K b / 32)  codes of b = 2 to 8 bits along K as one stream
 *                     <module>.weight_zero_point  I32 (N b / 32, G)  asymmetric: zeros, packed along N
 *                     <module>.weight_shape       I64 (2)            N, K
 *   int-quantized     <module>.weight             I8 (N, K)          code - 128
 *   float-, naive-    <module>.weight             F8_E4M3 (N, K)
 *   all               <module>.weight_scale       (N, G), (N, 1), (1) or (blocks of N, blocks of K)
 *   static inputs     <module>.input_scale        F32 (1); asymmetric also input_zero_point I8 (1)
 *   cache             <attention>.k_scale, v_scale  F32 (1), or (kv heads, 1, 1)
 * Stored codes are signed; ours are unsigned, 2^(b-1) more, and packing adds the same. value = (code - zero) * scale.
 *
 * Types of weight_scale: the model's in BF16, since vLLM casts packed weights' scales to it, transformers casts all of
 * them, and BF16 widens exactly where vLLM wants F32. In an F16 model only packed weights' scales are F16: the others
 * may be too small for F16, and vLLM reads F32 for them. */
#include <string.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/ct_config.h"
#include "checkpoints/ct_tensors.h"

static const char *const suffixes[] = {"weight",       "weight_packed",
                                       "weight_scale", "weight_zero_point",
                                       "weight_shape", "weight_g_idx",
                                       "input_scale",  "input_zero_point",
                                       "bias",         NULL};
/* Scales of queries and zeros are there in files of llm-compressor; servers do not use them. */
static const char *const kv_suffixes[] = {"k_scale",      "v_scale",      "q_scale", "k_zero_point",
                                          "v_zero_point", "q_zero_point", NULL};

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(qz_json_get(config, "quantization_config"), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "compressed-tensors") == 0;
}

/* That of the first group. */
static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    const qz_json_node *block = qz_json_get(config, "quantization_config");
    const qz_json_node *first = qz_json_first(qz_json_get(block, "config_groups"));
    qz_ct_group group = {0};
    QZ_TRY(qz_ct_config_check(block));
    if (first) QZ_TRY(qz_ct_group_read(&group, first));
    return qz_ct_weight_scheme(out, &group.weights);
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_ckpt_find_part(c, module, "weight_packed") || qz_ckpt_find_part(c, module, "weight_scale");
}

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    const bool integer = qz_format_of(l->scheme.format)->kind == QZ_KIND_INTEGER;
    const bool small = plain_type == QZ_F16 && qz_ct_form_of(l) != QZ_CT_PACKED;
    if (integer) l->scheme.zero_rule = QZ_ROUND_SUM;
    l->scheme.scale_type = small ? QZ_F32 : plain_type;
}

const qz_container qz_container_compressed_tensors = {
    .plugin = {.name = "compressed-tensors",
               .help = "int2 to int8 and fp8 weights, int8 and fp8 inputs and cache, as llm-compressor writes them",
               .source = "compressed-tensors 0.19, compressed_tensors/compressors"},
    .consumers =
        "vLLM (int4 and int8 weights, W8A8, W4A8, fp8; on a CPU not int8 weights alone, nor fp8 weights alone, "
        "nor blocks, and W4A8 with inputs as they are), transformers with the package compressed-tensors, "
        "SGLang",
    .recognise = recognise,
    .can_express = qz_ct_can_express,
    .read_scheme = read_scheme,
    .suffixes = suffixes,
    .kv_suffixes = kv_suffixes,
    .holds = holds,
    .read_linear = qz_ct_read_linear,
    .declare_linear = qz_ct_declare_linear,
    .write_linear = qz_ct_write_linear,
    .declare_kv = qz_ct_declare_kv,
    .write_kv = qz_ct_write_kv,
    .read_activation = qz_ct_read_activation,
    .read_kv = qz_ct_read_kv,
    .config_block = qz_ct_block,
    .settle = settle,
    .preferred_plain_type = QZ_BF16,
    .int8_divisor = QZ_CT_INT8_DIVISOR,
    .consumer = "vllm",
};
