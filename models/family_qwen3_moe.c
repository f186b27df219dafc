/* Qwen3 with experts: Qwen3 whose MLP is a mixture of many small experts, but for the layers that mlp_only_layers and
 * decoder_sparse_step leave dense. All layers slide when use_sliding_window says so.
 * Source: Yang et al. 2025; transformers, models/qwen3_moe/{configuration,modeling}_qwen3_moe.py. */
#include "models/families.h"

enum { DEFAULT_WINDOW = 4096, MOST_FFN = 1 << 24, MOST_LAYERS = 1 << 16 };

static const qz_tensor_names names = {
    .embedding = "model.embed_tokens.weight",
    .final_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer = "model.layers",
    .linear = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
               "mlp.up_proj", "mlp.down_proj"},
    .norm = {"input_layernorm.weight", "post_attention_layernorm.weight"},
    .q_norm = "self_attn.q_norm.weight",
    .k_norm = "self_attn.k_norm.weight",
    .router = "mlp.gate.weight",
    .experts = "mlp.experts",
    .expert_linear = {"gate_proj", "up_proj", "down_proj"},
};

/* Layer i has experts when (i + 1) is a multiple of decoder_sparse_step and mlp_only_layers does not list i. */
static qz_status read_routes(qz_model_config *out, const qz_json_node *config)
{
    int64_t step, dense;
    const qz_json_node *list = qz_json_get(config, "mlp_only_layers");
    QZ_TRY(qz_config_int_or(config, "decoder_sparse_step", 1, MOST_LAYERS, 1, 1, &step));
    for (int64_t i = 0; i < out->layers; i++) out->layer_routes[i] = (i + 1) % step == 0;
    if (qz_config_absent(list)) return QZ_OK;
    if (!qz_json_is(list, QZ_JSON_ARRAY))
        return QZ_FAIL(QZ_FORMAT, "mlp_only_layers: found %s, expected an array of layers",
                       qz_json_type_name(qz_json_type_of(list)));
    for (const qz_json_node *n = qz_json_first(list); n; n = qz_json_next(n)) {
        QZ_TRY(qz_json_int(n, "mlp_only_layers", 0, MOST_LAYERS, &dense));
        if (dense < out->layers) out->layer_routes[dense] = 0;
    }
    return QZ_OK;
}

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    bool slides;
    out->qk_norm = true;
    QZ_TRY(qz_config_flag(config, "attention_bias", false, &out->qkv_bias));
    out->o_bias = out->qkv_bias;
    QZ_TRY(qz_config_experts(out, config, "num_experts", 128, 8));
    QZ_TRY(qz_config_int_or(config, "moe_intermediate_size", 1, MOST_FFN, 768, 768, &out->expert_ffn));
    QZ_TRY(qz_config_flag(config, "norm_topk_prob", false, &out->normalize_routing));
    QZ_TRY(read_routes(out, config));
    QZ_TRY(qz_config_flag(config, "use_sliding_window", false, &slides));
    return slides ? qz_config_window(out, config, DEFAULT_WINDOW) : QZ_OK;
}

const qz_family qz_family_qwen3_moe = {
    .plugin = {"qwen3_moe", "Qwen3 with a mixture of experts", "Yang et al. 2025; transformers, models/qwen3_moe",
               NULL},
    .architecture = "Qwen3MoeForCausalLM",
    .model_type = "qwen3_moe",
    .default_kv_heads = 4,
    .names = &names,
    .read_config = read_config,
};
