/* Llama: plain decoder, optional biases by flags. Its tensor names are those of Mistral and Qwen, too.
 * Source: transformers, models/llama/{configuration,modeling}_llama.py. */
#include "models/families.h"

/* Written by transformers before 4.31 into every layer. */
static const char *const derived[] = {"model.layers.*.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
                                      NULL};

const qz_tensor_names qz_llama_names = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers",
    .linear = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
               "mlp.up_proj", "mlp.down_proj"},
    .norm = {"input_layernorm.weight", "post_attention_layernorm.weight"},
    .q_norm = "self_attn.q_norm.weight",
    .k_norm = "self_attn.k_norm.weight",
    .derived = derived,
};

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    QZ_TRY(qz_config_flag(config, "attention_bias", false, &out->qkv_bias));
    out->o_bias = out->qkv_bias;
    return qz_config_flag(config, "mlp_bias", false, &out->mlp_bias);
}

const qz_family qz_family_llama = {
    .plugin = {"llama", "Llama 1 to 3 and models of the same form", "Touvron et al. 2023; transformers, models/llama",
               NULL},
    .architecture = "LlamaForCausalLM",
    .model_type = "llama",
    .names = &qz_llama_names,
    .read_config = read_config,
};
