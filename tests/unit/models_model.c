/* Opening a model: which folders are refused and why; the facts it tells. */
#include "model_folder.h"

static qz_status open_changed(const char *from, const char *label, change c)
{
    qz_ckpt *ckpt;
    qz_model *m;
    check_ok(qz_ckpt_open(&ckpt, changed_model(golden_path(from), label, c)));
    qz_status status = qz_model_open(&m, ckpt, ref_backend(), NULL);
    cr_assert((status == QZ_OK) == (m != NULL));
    qz_model_close(m);
    qz_ckpt_close(ckpt);
    return status;
}

#define LLAMA "models/llama"
#define TIED "models/llama_tied_rope3"
#define Q0 "model.layers.0.self_attn.q_proj.weight"

Test(model, facts)
{
    opened o = open_model(golden_path("models/qwen3"));
    static const int64_t shape[QZ_ROLES][2] = {{128, 64}, {64, 64},  {64, 64}, {64, 128},
                                               {128, 64}, {128, 64}, {64, 128}};
    cr_assert(qz_model_linears(o.model, 0) == QZ_ROLES && qz_model_inputs(o.model, 0) == QZ_STAGES);
    for (int i = 0; i < QZ_ROLES; i++) {
        const qz_linear_place *l = qz_model_linear(o.model, 0, i);
        cr_assert(l->n == shape[i][0] && l->k == shape[i][1] && l->role == (qz_role)i && l->roles == 1);
        cr_assert(l->input == (int)qz_role_stage(l->role) && l->expert == 0);
    }
    cr_assert_str_eq(qz_model_linear_name(o.model, 1, QZ_ROLE_UP), "model.layers.1.mlp.up_proj");
    cr_assert_str_eq(qz_model_family(o.model)->plugin.name, "qwen3");
    cr_assert(qz_model_ckpt(o.model) == o.ckpt && qz_model_backend(o.model) == ref_backend());
    cr_assert(!qz_model_linear(o.model, 0, QZ_ROLE_Q)->has_bias);
    cr_assert_str_eq(qz_model_attention_name(o.model, 1), "model.layers.1.self_attn");
    cr_assert(qz_model_router_name(o.model, 1) == NULL);
    close_model(&o);
}

Test(model, roles_and_stages)
{
    cr_assert(qz_role_stage(QZ_ROLE_V) == QZ_STAGE_QKV && qz_role_stage(QZ_ROLE_O) == QZ_STAGE_O);
    cr_assert(qz_role_stage(QZ_ROLE_UP) == QZ_STAGE_GATE_UP && qz_role_stage(QZ_ROLE_DOWN) == QZ_STAGE_DOWN);
    cr_assert_str_eq(qz_stage_name(QZ_STAGE_GATE_UP), "gate_up");
}

Test(model, biases_of_qwen2)
{
    opened o = open_model(golden_path("models/qwen2"));
    cr_assert(qz_model_linear(o.model, 1, QZ_ROLE_K)->has_bias && !qz_model_linear(o.model, 1, QZ_ROLE_O)->has_bias);
    cr_assert(!qz_model_linear(o.model, 1, QZ_ROLE_DOWN)->has_bias);
    close_model(&o);
}

Test(model, plain_names_in_order)
{
    opened o = open_model(golden_path("models/qwen3"));
    const char **names;
    size_t count;
    check_ok(qz_model_plain_names(o.model, &names, &count, o.arena));
    cr_assert(count == 2 + 2 * 4);
    cr_assert_str_eq(names[0], "model.embed_tokens.weight");
    cr_assert_str_eq(names[1], "model.layers.0.input_layernorm.weight");
    cr_assert_str_eq(names[4], "model.layers.0.self_attn.k_norm.weight");
    cr_assert_str_eq(names[count - 1], "model.norm.weight");
    close_model(&o);
    o = open_model(golden_path(LLAMA));
    check_ok(qz_model_plain_names(o.model, &names, &count, o.arena));
    cr_assert_str_eq(names[count - 1], "lm_head.weight");
    close_model(&o);
}

Test(model, missing_tensors_are_named)
{
    check_fails(QZ_FORMAT, Q0 ": missing", open_changed(LLAMA, "q", (change){.kind = DROP, .tensor = Q0}));
    check_fails(QZ_FORMAT, "(64, 64)", open_changed(LLAMA, "q2", (change){.kind = DROP, .tensor = Q0}));
    check_fails(QZ_FORMAT, "lm_head.weight: missing",
                open_changed(LLAMA, "h", (change){.kind = DROP, .tensor = "lm_head.weight"}));
    check_fails(
        QZ_FORMAT, "model.layers.1.self_attn.v_proj.bias: missing",
        open_changed("models/qwen2", "b", (change){.kind = DROP, .tensor = "model.layers.1.self_attn.v_proj.bias"}));
    check_fails(
        QZ_FORMAT, "model.layers.0.self_attn.k_norm.weight: missing",
        open_changed("models/qwen3", "n", (change){.kind = DROP, .tensor = "model.layers.0.self_attn.k_norm.weight"}));
}

Test(model, wrong_shapes_and_types)
{
    check_fails(QZ_SHAPE, Q0 ": shape is (63, 64), config.json says (64, 64)",
                open_changed(LLAMA, "s", (change){.kind = RESHAPE, .tensor = Q0}));
    check_fails(QZ_FORMAT, "model.norm.weight: type is I32, allowed are F32, F16 and BF16",
                open_changed(LLAMA, "t", (change){.kind = RETYPE, .tensor = "model.norm.weight", .type = QZ_I32}));
    check_fails(QZ_SHAPE, "config.json says (96, 64)",
                open_changed(LLAMA, "f", (change){.key = "intermediate_size", .value = "96"}));
    check_fails(QZ_FORMAT, "model.layers.2.self_attn.q_proj.weight: missing",
                open_changed(LLAMA, "l", (change){.key = "num_hidden_layers", .value = "3"}));
}

Test(model, unknown_tensors_are_named)
{
    change extra = {.kind = TWICE, .tensor = "model.norm.weight", .to = "model.extra.weight"};
    check_fails(QZ_FORMAT, "model.extra.weight", open_changed(LLAMA, "x", extra));
    extra.to = "model.layers.0.self_attn.q_proj.bias";
    check_fails(QZ_FORMAT, "q_proj.bias", open_changed(LLAMA, "b", extra));
    check_fails(QZ_FORMAT, "pass_through",
                open_changed(LLAMA, "l", (change){.key = "num_hidden_layers", .value = "1"}));
}

Test(model, scales_of_the_cache_are_known_where_the_container_has_them)
{
    change scale = {.kind = TWICE, .tensor = "model.norm.weight", .to = "model.layers.1.self_attn.k_scale"};
    check_fails(QZ_FORMAT, "self_attn.k_scale", open_changed(LLAMA, "p", scale));
    scale.key = "quantization_config";
    scale.value = "{\"quant_method\": \"fp8\", \"activation_scheme\": \"dynamic\"}";
    check_ok(open_changed(LLAMA, "k", scale));
    scale.to = "model.layers.1.self_attn.q_scale";
    check_fails(QZ_FORMAT, "self_attn.q_scale", open_changed(LLAMA, "q", scale));
    scale.to = "model.layers.1.self_attn.q_proj.weight.absmax";
    check_fails(QZ_FORMAT, "weight.absmax", open_changed(LLAMA, "w", scale));
}

Test(model, pass_through_is_told_to_exporters)
{
    static const char *const globs[] = {"other.*", "model.ext*", NULL};
    change c = {.kind = TWICE, .tensor = "model.norm.weight", .to = "model.extra.weight"};
    qz_ckpt *ckpt;
    qz_model *m;
    qz_arena *arena;
    const char **names;
    size_t count;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_ckpt_open(&ckpt, changed_model(golden_path(LLAMA), "pass", c)));
    check_ok(qz_model_open(&m, ckpt, ref_backend(), globs));
    check_ok(qz_model_plain_names(m, &names, &count, arena));
    cr_assert_str_eq(names[count - 1], "model.extra.weight");
    qz_model_close(m);
    qz_ckpt_close(ckpt);
    qz_arena_free(arena);
}

Test(model, old_frequency_buffers_are_skipped)
{
    change c = {.kind = TWICE, .tensor = "model.norm.weight", .to = "model.layers.0.self_attn.rotary_emb.inv_freq"};
    check_ok(open_changed(LLAMA, "inv", c));
}

Test(model, tied_head_may_be_stored_if_equal)
{
    change same = {.kind = TWICE, .tensor = "model.embed_tokens.weight", .to = "lm_head.weight"};
    check_ok(open_changed(TIED, "same", same));
    change other = {.key = "tie_word_embeddings", .value = "true"};
    check_fails(QZ_FORMAT, "lm_head.weight: differs from model.embed_tokens.weight",
                open_changed(LLAMA, "other", other));
}

Test(model, stored_type_from_the_weights_when_not_said)
{
    opened o = open_model(changed_model(golden_path("models/mistral"), "dtype", (change){.key = "torch_dtype"}));
    cr_assert(qz_model_config_of(o.model)->stored == QZ_BF16);
    close_model(&o);
}

Test(model, config_errors_name_folder_and_field)
{
    check_fails(QZ_FORMAT, "config.json: hidden_size", open_changed(LLAMA, "c", (change){.key = "hidden_size"}));
}

#define AWQ "samples/awq_g64"

Test(model, quantized_folder)
{
    opened o = open_model(golden_path(AWQ));
    cr_assert(qz_ckpt_is_quantized(o.ckpt, qz_model_linear_name(o.model, 1, QZ_ROLE_UP)));
    cr_assert(qz_model_config_of(o.model)->stored == QZ_F16);
    close_model(&o);
    change extra = {.kind = TWICE, .tensor = "model.norm.weight", .to = "model.layers.0.self_attn.q_proj.weight"};
    check_fails(QZ_FORMAT, "q_proj.weight", open_changed(AWQ, "w", extra));
    extra.to = "model.layers.0.self_attn.q_proj.g_idx";
    check_fails(QZ_FORMAT, "q_proj.g_idx", open_changed(AWQ, "g", extra));
}

Test(model, unknown_family)
{
    change c = {.key = "architectures", .value = "[\"GPT2LMHeadModel\"]"};
    qz_ckpt *ckpt;
    qz_model *m;
    check_ok(qz_ckpt_open(&ckpt, changed_model(golden_path("models/llama"), "unknown", c)));
    check_fails(QZ_UNSUPPORTED, "config.json: architectures[0]: found \"GPT2LMHeadModel\"",
                qz_model_open(&m, ckpt, ref_backend(), NULL));
    cr_assert(m == NULL);
    qz_ckpt_close(ckpt);
}

Test(model, experts_are_checked)
{
    const char *mixtral = "models/mixtral";
    change c = {.kind = DROP, .tensor = "model.layers.1.block_sparse_moe.experts.2.w3.weight"};
    check_fails(QZ_FORMAT, "model.layers.1.block_sparse_moe.experts.2.w3.weight: missing",
                open_changed(mixtral, "e", c));
    c = (change){.kind = RESHAPE, .tensor = "model.layers.0.block_sparse_moe.gate.weight"};
    check_fails(QZ_SHAPE, "gate.weight: shape is (3, 64), config.json says (4, 64)", open_changed(mixtral, "g", c));
    c = (change){.key = "num_local_experts", .value = "3"};
    check_fails(QZ_SHAPE, "block_sparse_moe.gate.weight", open_changed(mixtral, "n", c));
    c = (change){.kind = RENAME,
                 .tensor = "model.layers.0.block_sparse_moe.experts.0.w1.weight",
                 .to = "model.layers.0.block_sparse_moe.experts.gate_up_proj"};
    check_fails(QZ_UNSUPPORTED,
                "experts.gate_up_proj: all experts in one tensor, expected model.layers.0.block_sparse_moe",
                open_changed(mixtral, "f", c));
}

Test(model, linears_stored_as_one)
{
    opened o = open_model(golden_path("models/phi3"));
    cr_assert(qz_model_linears(o.model, 0) == 4 && qz_model_inputs(o.model, 0) == 4);
    cr_assert_str_eq(qz_model_linear_name(o.model, 1, 0), "model.layers.1.self_attn.qkv_proj");
    cr_assert_str_eq(qz_model_linear_name(o.model, 1, 2), "model.layers.1.mlp.gate_up_proj");
    cr_assert_str_eq(qz_model_attention_name(o.model, 1), "model.layers.1.self_attn");
    cr_assert(qz_model_linear(o.model, 0, 0)->roles == 3 && qz_model_linear(o.model, 0, 0)->n == 128);
    cr_assert(qz_model_linear(o.model, 0, 2)->roles == 2 && qz_model_linear(o.model, 0, 2)->n == 256);
    cr_assert(qz_model_linear(o.model, 0, 2)->input == QZ_STAGE_GATE_UP);
    close_model(&o);
}

Test(model, linears_of_experts)
{
    opened o = open_model(golden_path("models/mixtral"));
    cr_assert(qz_model_linears(o.model, 0) == 4 + 3 * 4 && qz_model_inputs(o.model, 0) == 2 + 2 * 4);
    const qz_linear_place *p = qz_model_linear(o.model, 0, 4 + 3 * 2 + 2);
    cr_assert_str_eq(qz_model_linear_name(o.model, 0, 4 + 3 * 2 + 2), "model.layers.0.block_sparse_moe.experts.2.w2");
    cr_assert_str_eq(qz_model_router_name(o.model, 1), "model.layers.1.block_sparse_moe.gate");
    cr_assert(p->role == QZ_ROLE_DOWN && p->expert == 2 && p->input == qz_input_of(QZ_STAGE_DOWN, 2) && p->k == 128);
    cr_assert(qz_model_input_width(o.model, 0, p->input) == 128 &&
              qz_model_input_width(o.model, 0, p->input - 1) == 64);
    close_model(&o);
}

/* A file whose header is one byte longer, so that all of its data lies at odd addresses. */
static const char *odd_folder(const char *from)
{
    char path[600];
    char *data;
    size_t size;
    uint64_t header;
    qz_arena *arena;
    const char *folder = test_path("odd");
    check_ok(qz_arena_new(&arena, "test"));
    cr_assert(mkdir(folder, 0700) == 0);
    snprintf(path, sizeof path, "%s/config.json", from);
    check_ok(qz_file_read(&data, &size, path, 1 << 20, arena));
    snprintf(path, sizeof path, "%s/config.json", folder);
    test_write_file(path, data, size);
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    check_ok(qz_file_read(&data, &size, path, 1 << 26, arena));
    memcpy(&header, data, 8);
    char *moved = qz_arena_alloc(arena, size + 1);
    memcpy(moved, data, 8 + header);
    moved[8 + header] = ' ';
    memcpy(moved + 9 + header, data + 8 + header, size - 8 - header);
    header++;
    memcpy(moved, &header, 8);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    test_write_file(path, moved, size + 1);
    qz_arena_free(arena);
    return folder;
}

Test(model, data_at_odd_addresses)
{
    static const char *const from[] = {TIED, LLAMA};
    for (int i = 0; i < 2; i++) {
        char even_path[600];
        snprintf(even_path, sizeof even_path, "%s", golden_path(from[i]));
        const char *odd_path = odd_folder(even_path);
        opened even = open_model(even_path), odd = open_model(odd_path);
        int32_t ids[] = {9, 150};
        qz_tensor a = matrix(even.arena, 2, 64), b = matrix(odd.arena, 2, 64);
        qz_tensor la = matrix(even.arena, 2, 160), lb = matrix(odd.arena, 2, 160);
        check_ok(qz_model_embed(even.model, ids, &a));
        check_ok(qz_model_embed(odd.model, ids, &b));
        check_ok(qz_model_logits(even.model, &a, &la, even.arena));
        check_ok(qz_model_logits(odd.model, &b, &lb, odd.arena));
        cr_assert(memcmp(a.data, b.data, 2 * 64 * 4) == 0 && memcmp(la.data, lb.data, 2 * 160 * 4) == 0);
        close_model(&even);
        close_model(&odd);
        char command[700];
        snprintf(command, sizeof command, "rm -r '%s'", odd_path);
        cr_assert(system(command) == 0);
    }
}

Test(model, every_allocation_may_fail)
{
    qz_ckpt *ckpt;
    qz_model *m = NULL;
    int n = 0;
    check_ok(qz_ckpt_open(&ckpt, golden_path("models/qwen3")));
    for (;;) {
        qz_alloc_fail_at(++n);
        qz_status status = qz_model_open(&m, ckpt, ref_backend(), NULL);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && m == NULL, "allocation %d: %s", n, qz_error_message());
        cr_assert(n < 10000);
    }
    qz_alloc_fail_at(0);
    cr_assert(n > 3);
    qz_model_close(m);
    qz_model_close(NULL);
    qz_ckpt_close(ckpt);
}
