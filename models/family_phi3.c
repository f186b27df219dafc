/* Phi-3, Phi-3.5 (dense) and Phi-4: q, k and v are stored as one matrix, gate and up as another; long contexts by a
 * factor for each frequency; Phi-4-mini rotates a part of each head.
 * Source: Abdin et al. 2024; transformers, models/phi3/{configuration,modeling}_phi3.py. */
#include "models/families.h"

static const qz_tensor_names names = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers",
    .linear = {"self_attn.qkv_proj", NULL, NULL, "self_attn.o_proj", "mlp.gate_up_proj", NULL, "mlp.down_proj"},
    .norm = {"input_layernorm.weight", "post_attention_layernorm.weight"},
};

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    return qz_config_window(out, config, 0);
}

const qz_family qz_family_phi3 = {
    .plugin = {"phi3", "Phi-3, Phi-3.5 and Phi-4: q, k and v stored as one matrix, gate and up as another",
               "Abdin et al. 2024; transformers, models/phi3", NULL},
    .architecture = "Phi3ForCausalLM",
    .model_type = "phi3",
    .default_norm_eps = 1e-5,
    .partial_rotation = true,
    .names = &names,
    .read_config = read_config,
};
