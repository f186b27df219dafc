/* Qwen2 and Qwen2.5: biases on q, k and v (there is no flag for it), none on o; layers from max_window_layers on slide
 * when use_sliding_window says so. Source: transformers, models/qwen2/{configuration,modeling}_qwen2.py. */
#include "models/families.h"

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    out->qkv_bias = true;
    return qz_config_qwen_window(out, config);
}

const qz_family qz_family_qwen2 = {
    .plugin = {"qwen2", "Qwen2 and Qwen2.5: biases on q, k and v", "Yang et al. 2024; transformers, models/qwen2",
               NULL},
    .architecture = "Qwen2ForCausalLM",
    .model_type = "qwen2",
    .default_kv_heads = 32,
    .names = &qz_llama_names,
    .read_config = read_config,
};
