/* A layer's weights: shapes, values, names, sizes. */
#include "model_folder.h"

Test(layer, weights_are_those_of_the_file)
{
    opened o = open_model(golden_path("models/qwen2"));
    qz_layer layer;
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    cr_assert(layer.index == 1);
    for (int r = 0; r < QZ_ROLES; r++) {
        qz_linear *l = &layer.linear[r];
        const int64_t n = qz_model_linear(o.model, 1, r)->n, k = qz_model_linear(o.model, 1, r)->k;
        float *w = qz_arena_array(o.arena, float, n *k);
        check_ok(qz_ckpt_read_weight(o.ckpt, l->module, n, k, w, o.arena));
        cr_assert(l->role == (qz_role)r && l->weight.shape[0] == n && l->weight.shape[1] == k);
        cr_assert(memcmp(w, l->weight.data, (size_t)(n * k) * 4) == 0);
        cr_assert((l->bias.data != NULL) == (r <= QZ_ROLE_V));
    }
    cr_assert_str_eq(layer.norm_name[0], "model.layers.1.input_layernorm.weight");
    cr_assert_str_eq(layer.norm_name[1], "model.layers.1.post_attention_layernorm.weight");
    cr_assert(layer.q_norm.data == NULL);
    close_model(&o);
}

Test(layer, norms_alone)
{
    opened o = open_model(golden_path("models/qwen3"));
    qz_layer layer;
    check_ok(qz_model_layer_norms(o.model, 0, &layer, o.arena));
    cr_assert(layer.q_norm.shape[0] == 32 && layer.k_norm.data && layer.norm[1].data);
    for (int r = 0; r < QZ_ROLES; r++) cr_assert(layer.linear[r].weight.data == NULL && layer.linear[r].module);
    close_model(&o);
}

Test(layer, size_is_foretold)
{
    static const char *const folders[] = {"models/llama", "models/qwen2",   "models/qwen3",    "models/gemma2",
                                          "models/phi3",  "models/mixtral", "models/qwen3_moe"};
    for (int i = 0; i < 7; i++) {
        opened o = open_model(golden_path(folders[i]));
        qz_layer layer;
        size_t before = qz_arena_used(o.arena);
        check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
        size_t used = qz_arena_used(o.arena) - before, told = qz_model_layer_bytes(o.model);
        cr_assert(used <= told && told <= used + 4096, "%s: used %zu, told %zu", folders[i], used, told);
        close_model(&o);
    }
}

Test(layer, nan_in_a_weight_is_named)
{
    opened o = open_model(changed_model(golden_path("models/llama"), "nan",
                                        (change){.kind = SPOIL, .tensor = "model.layers.1.mlp.up_proj.weight"}));
    qz_layer layer;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    check_fails(QZ_NUMERIC, "model.layers.1.mlp.up_proj", qz_model_layer(o.model, 1, &layer, o.arena));
    close_model(&o);
}

Test(layer, quantized_weights_are_decoded)
{
    opened o = open_model(golden_path("samples/awq_g64"));
    qz_layer layer;
    qz_qtensor q;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    for (int r = 0; r < QZ_ROLES; r++) {
        const qz_tensor *w = &layer.linear[r].weight;
        float *decoded = qz_arena_array(o.arena, float, (size_t)qz_tensor_count(w));
        check_ok(qz_ckpt_read_qtensor(o.ckpt, layer.linear[r].module, w->shape[0], w->shape[1], &q, o.arena));
        qz_qtensor_dequantize(decoded, &q, 0, w->shape[0]);
        cr_assert(memcmp(decoded, w->data, (size_t)qz_tensor_count(w) * sizeof(float)) == 0);
    }
    close_model(&o);
}

Test(layer, quantized_weights_may_be_incomplete)
{
    change c = {.kind = DROP, .tensor = "model.layers.0.mlp.up_proj.qzeros"};
    qz_ckpt *ckpt;
    qz_model *m;
    qz_arena *arena;
    qz_layer layer;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_ckpt_open(&ckpt, changed_model(golden_path("samples/awq_g64"), "z", c)));
    qz_status status = qz_model_open(&m, ckpt, ref_backend(), NULL);
    if (status == QZ_OK) status = qz_model_layer(m, 0, &layer, arena);
    check_fails(QZ_FORMAT, "model.layers.0.mlp.up_proj", status);
    qz_model_close(m);
    qz_ckpt_close(ckpt);
    qz_arena_free(arena);
}

Test(layer, failing_allocations)
{
    opened o = open_model(golden_path("models/llama"));
    qz_arena *arena;
    qz_layer layer;
    check_ok(qz_arena_new(&arena, "small"));
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "small", qz_model_layer(o.model, 0, &layer, arena));
    qz_alloc_fail_at(0);
    qz_arena_free(arena);
    close_model(&o);
}

Test(layer, parts_are_rows_of_what_is_stored)
{
    opened o = open_model(golden_path("models/phi3"));
    qz_layer layer;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    const float *qkv = qz_f32(&layer.linear[0].weight), *gate_up = qz_f32(&layer.linear[2].weight);
    cr_assert(layer.linears == 4 && layer.linear[0].weight.shape[0] == 64 + 32 + 32);
    cr_assert(qz_f32(&qz_layer_part(&layer, QZ_ROLE_Q, 0)->weight) == qkv);
    cr_assert(qz_f32(&qz_layer_part(&layer, QZ_ROLE_K, 0)->weight) == qkv + 64 * 64);
    cr_assert(qz_f32(&qz_layer_part(&layer, QZ_ROLE_V, 0)->weight) == qkv + 96 * 64);
    cr_assert(qz_layer_part(&layer, QZ_ROLE_V, 0)->weight.shape[0] == 32);
    cr_assert(qz_f32(&qz_layer_part(&layer, QZ_ROLE_UP, 0)->weight) == gate_up + 128 * 64);
    cr_assert(qz_layer_part(&layer, QZ_ROLE_UP, 0)->weight.shape[0] == 128);
    close_model(&o);
}

Test(layer, experts_and_router)
{
    opened o = open_model(golden_path("models/qwen3_moe"));
    qz_layer layer;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    cr_assert(layer.linears == 7 && layer.experts == 1 && !layer.router_name && !layer.router.data);
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    cr_assert(layer.linears == 16 && layer.experts == 4 && layer.router.shape[0] == 4 && layer.norm_offset == 0);
    cr_assert_str_eq(layer.router_name, "model.layers.1.mlp.gate.weight");
    for (int e = 0; e < 4; e++)
        for (int r = QZ_ROLE_GATE; r < QZ_ROLES; r++) {
            const qz_linear *l = &layer.linear[4 + 3 * e + r - QZ_ROLE_GATE];
            cr_assert(qz_layer_part(&layer, (qz_role)r, e)->weight.data == l->weight.data && l->expert == e);
            cr_assert(l->input == qz_input_of(qz_role_stage((qz_role)r), e));
        }
    close_model(&o);
}
