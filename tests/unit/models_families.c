/* The table of families is complete and can be looked up. */
#include "models/families.h"

#include "testing/testing.h"

Test(families, every_row_is_filled)
{
    const qz_plugins *list = qz_families();
    cr_assert_str_eq(list->kind, "family");
    cr_assert(list->count >= 4);
    for (size_t i = 0; i < list->count; i++) {
        const qz_family *f = qz_family_at(i);
        cr_assert(qz_plugins_find(list, f->plugin.name) == (int)i);
        cr_assert(f->plugin.help && *f->plugin.help && f->plugin.source && *f->plugin.source);
        cr_assert(f->architecture && f->model_type && f->read_config && f->names);
        cr_assert(f->names->linear[QZ_ROLE_Q] && f->names->linear[QZ_ROLE_O]);
        cr_assert(!f->names->linear[QZ_ROLE_GATE] == !f->names->linear[QZ_ROLE_DOWN]);
        cr_assert(f->names->linear[QZ_ROLE_GATE] || f->names->experts);
        cr_assert(!f->names->router == !f->names->experts);
        for (int r = 0; r < 3; r++) cr_assert(!f->names->expert_linear[r] == !f->names->experts);
        cr_assert(f->names->embedding && f->names->final_norm && f->names->head && f->names->layer);
    }
}

Test(families, those_of_the_issues)
{
    static const char *const names[] = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "mixtral", "qwen3_moe"};
    for (int i = 0; i < 8; i++) cr_assert(qz_plugins_find(qz_families(), names[i]) >= 0, "%s", names[i]);
    cr_assert(qz_plugins_find(qz_families(), "gpt2") < 0);
}

static uint8_t slides[4], routes[4];
static qz_status last;

static qz_model_config try_config(const char *name, const char *text)
{
    qz_json *doc;
    qz_model_config c = {.layers = 4, .hidden = 64, .ffn = 128, .layer_slides = slides, .layer_routes = routes};
    memset(slides, 0, 4);
    memset(routes, 0, 4);
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    last = qz_family_at((size_t)qz_plugins_find(qz_families(), name))->read_config(&c, qz_json_root(doc));
    qz_json_close(doc);
    return c;
}

static qz_model_config config_of(const char *name, const char *text)
{
    qz_model_config c = try_config(name, text);
    check_ok(last);
    return c;
}

Test(families, llama_biases_by_flag)
{
    qz_model_config c = config_of("llama", "{}");
    cr_assert(!c.qkv_bias && !c.o_bias && !c.mlp_bias);
    c = config_of("llama", "{\"attention_bias\": true}");
    cr_assert(c.qkv_bias && c.o_bias && !c.mlp_bias);
    c = config_of("llama", "{\"mlp_bias\": true}");
    cr_assert(!c.qkv_bias && c.mlp_bias);
}

Test(families, mistral_slides_unless_null)
{
    cr_assert(config_of("mistral", "{\"sliding_window\": 6}").window == 6);
    cr_assert(config_of("mistral", "{\"sliding_window\": null}").window == 0);
    cr_assert(config_of("mistral", "{}").window == 4096);
}

Test(families, qwen2_always_has_qkv_biases)
{
    qz_model_config c = config_of("qwen2", "{}");
    cr_assert(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm);
}

Test(families, qwen3_normalizes_q_and_k)
{
    qz_model_config c = config_of("qwen3", "{}");
    cr_assert(c.qk_norm && !c.qkv_bias);
    cr_assert(config_of("qwen3", "{\"attention_bias\": true}").o_bias);
}

Test(families, gemma2_by_default)
{
    qz_model_config c = config_of("gemma2", "{}");
    cr_assert(c.norms_after && c.norm_offset == 1 && c.embedding_scale == 8 && c.attention_scale == 1. / 16);
    cr_assert(c.attention_softcap == 50 && c.logit_softcap == 30 && c.window == 4096 && !c.qkv_bias);
    cr_assert(slides[0] && !slides[1] && slides[2] && !slides[3]);
    const qz_family *f = qz_family_at((size_t)qz_plugins_find(qz_families(), "gemma2"));
    cr_assert(f->default_tied && f->default_gelu_tanh && f->default_head_dim == 256 && f->default_kv_heads == 4);
}

Test(families, gemma2_as_told)
{
    qz_model_config c = config_of("gemma2", "{\"attn_logit_softcapping\": null, \"final_logit_softcapping\": null, "
                                            "\"query_pre_attn_scalar\": 144, \"sliding_window\": null}");
    cr_assert(c.attention_softcap == 0 && c.logit_softcap == 0 && c.attention_scale == 1. / 12);
    cr_assert(!slides[0] && !slides[2]);
    c = config_of("gemma2", "{\"sliding_window\": 6, \"layer_types\": [\"full_attention\", \"sliding_attention\", "
                            "\"full_attention\", \"full_attention\"]}");
    cr_assert(!slides[0] && slides[1] && !slides[2] && c.window == 6);
    try_config("gemma2", "{\"use_bidirectional_attention\": true}");
    check_fails(QZ_UNSUPPORTED, "use_bidirectional_attention: found true", last);
    try_config("gemma2", "{\"query_pre_attn_scalar\": 0}");
    check_fails(QZ_FORMAT, "query_pre_attn_scalar", last);
}

Test(families, phi3_windows)
{
    cr_assert(config_of("phi3", "{}").window == 0);
    cr_assert(config_of("phi3", "{\"sliding_window\": 2047}").window == 2047 && slides[3]);
}

Test(families, mixtral_has_experts_everywhere)
{
    qz_model_config c = config_of("mixtral", "{}");
    cr_assert(c.experts == 8 && c.active_experts == 2 && c.expert_ffn == 128 && c.normalize_routing && c.window == 0);
    cr_assert(routes[0] && routes[3]);
    cr_assert(config_of("mixtral", "{\"num_local_experts\": 4, \"num_experts_per_tok\": 4}").active_experts == 4);
    try_config("mixtral", "{\"num_local_experts\": 4, \"num_experts_per_tok\": 5}");
    check_fails(QZ_FORMAT, "num_experts_per_tok: found 5, allowed is at most num_local_experts, which is 4", last);
}

Test(families, qwen3_moe_has_experts_here_and_there)
{
    qz_model_config c = config_of("qwen3_moe", "{}");
    cr_assert(c.qk_norm && c.experts == 128 && c.active_experts == 8 && c.expert_ffn == 768 && !c.normalize_routing);
    cr_assert(routes[0] && routes[3] && c.window == 0);
    c = config_of("qwen3_moe", "{\"num_local_experts\": 6, \"num_experts_per_tok\": 3, \"norm_topk_prob\": true, "
                               "\"decoder_sparse_step\": 2, \"moe_intermediate_size\": 32}");
    cr_assert(c.experts == 6 && c.normalize_routing && c.expert_ffn == 32);
    cr_assert(!routes[0] && routes[1] && !routes[2] && routes[3]);
    config_of("qwen3_moe", "{\"mlp_only_layers\": [0, 3, 99], \"num_experts\": 16}");
    cr_assert(!routes[0] && routes[1] && routes[2] && !routes[3]);
    try_config("qwen3_moe", "{\"mlp_only_layers\": 3}");
    check_fails(QZ_FORMAT, "mlp_only_layers: found a number", last);
    try_config("qwen3_moe", "{\"mlp_only_layers\": [-1]}");
    check_fails(QZ_FORMAT, "mlp_only_layers", last);
}
