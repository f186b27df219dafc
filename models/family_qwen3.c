/* Qwen3 (dense): q and k of each head are normalized before the rotation; heads * head_dim need not be hidden_size.
 * Source: Yang et al. 2025; transformers, models/qwen3/{configuration,modeling}_qwen3.py. */
#include "models/families.h"

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    out->qk_norm = true;
    QZ_TRY(qz_config_flag(config, "attention_bias", false, &out->qkv_bias));
    out->o_bias = out->qkv_bias;
    return qz_config_qwen_window(out, config);
}

const qz_family qz_family_qwen3 = {
    .plugin = {"qwen3", "Qwen3 (dense): q and k normalized per head", "Yang et al. 2025; transformers, models/qwen3",
               NULL},
    .architecture = "Qwen3ForCausalLM",
    .model_type = "qwen3",
    .default_kv_heads = 32,
    .default_head_dim = 128,
    .names = &qz_llama_names,
    .read_config = read_config,
};
