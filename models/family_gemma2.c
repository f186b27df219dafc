/* Gemma 2: norms multiply by 1 + w and stand also behind attention and MLP, embeddings are scaled by sqrt(C), scores
 * and logits are capped, gates pass gelu, every other layer slides. The norm before the MLP has a name of its own.
 * Source: Gemma Team 2024 (Gemma 2), section 2; transformers, models/gemma2/{configuration,modeling}_gemma2.py. */
#include <math.h>

#include "models/families.h"

enum { DEFAULT_WINDOW = 4096, DEFAULT_HEAD_DIM = 256, MOST = 1 << 20 };

static const qz_tensor_names names = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers",
    .linear = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
               "mlp.up_proj", "mlp.down_proj"},
    .norm = {"input_layernorm.weight", "pre_feedforward_layernorm.weight", "post_attention_layernorm.weight",
             "post_feedforward_layernorm.weight"},
};

/* The first layer slides, the second does not, and so on, where layer_types does not say otherwise. */
static qz_status read_windows(qz_model_config *out, const qz_json_node *config)
{
    bool given;
    QZ_TRY(qz_config_window(out, config, DEFAULT_WINDOW));
    QZ_TRY(qz_config_layer_types(out, config, &given));
    for (int64_t i = 1; !given && i < out->layers; i += 2) out->layer_slides[i] = 0;
    return QZ_OK;
}

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    double scalar;
    bool both_ways;
    out->norms_after = true;
    out->norm_offset = 1;
    out->embedding_scale = sqrt((double)out->hidden);
    QZ_TRY(
        qz_config_number_or(config, "query_pre_attn_scalar", 1e-3, MOST, DEFAULT_HEAD_DIM, DEFAULT_HEAD_DIM, &scalar));
    out->attention_scale = 1 / sqrt(scalar);
    QZ_TRY(qz_config_number_or(config, "attn_logit_softcapping", 1e-3, MOST, 50, 0, &out->attention_softcap));
    QZ_TRY(qz_config_number_or(config, "final_logit_softcapping", 1e-3, MOST, 30, 0, &out->logit_softcap));
    QZ_TRY(qz_config_flag(config, "use_bidirectional_attention", false, &both_ways));
    if (both_ways) return QZ_FAIL(QZ_UNSUPPORTED, "use_bidirectional_attention: found true, allowed is false");
    QZ_TRY(qz_config_flag(config, "attention_bias", false, &out->qkv_bias));
    out->o_bias = out->qkv_bias;
    return read_windows(out, config);
}

const qz_family qz_family_gemma2 = {
    .plugin = {"gemma2", "Gemma 2: soft caps, norms on both sides of attention and MLP, every other layer slides",
               "Gemma Team 2024 (Gemma 2); transformers, models/gemma2", NULL},
    .architecture = "Gemma2ForCausalLM",
    .model_type = "gemma2",
    .default_kv_heads = 4,
    .default_head_dim = DEFAULT_HEAD_DIM,
    .default_tied = true,
    .default_gelu_tanh = true,
    .activation = "hidden_activation",
    .names = &names,
    .read_config = read_config,
};
