/* Mixtral: Mistral whose MLP is a mixture of experts in every layer; a token goes to num_experts_per_tok of them, with
 * weights that add up to 1. w1 is gate, w3 is up, w2 is down.
 * Source: Jiang et al. 2024, section 2.1; transformers, models/mixtral/{configuration,modeling}_mixtral.py. */
#include <string.h>

#include "models/families.h"

static const qz_tensor_names names = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers",
    .linear = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"},
    .norm = {"input_layernorm.weight", "post_attention_layernorm.weight"},
    .router = "block_sparse_moe.gate.weight",
    .experts = "block_sparse_moe.experts",
    .expert_linear = {"w1", "w3", "w2"},
};

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    QZ_TRY(qz_config_experts(out, config, "num_local_experts", 8, 2));
    out->expert_ffn = out->ffn;
    out->normalize_routing = true;
    memset(out->layer_routes, 1, (size_t)out->layers);
    return qz_config_window(out, config, 0);
}

const qz_family qz_family_mixtral = {
    .plugin = {"mixtral", "Mixtral: Mistral with a mixture of experts in every layer",
               "Jiang et al. 2024; transformers, models/mixtral", NULL},
    .architecture = "MixtralForCausalLM",
    .model_type = "mixtral",
    .default_kv_heads = 8,
    .default_theta = 1e6,
    .default_norm_eps = 1e-5,
    .names = &names,
    .read_config = read_config,
};
