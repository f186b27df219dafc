/* Each serving rule on a small folder that breaks it and on one that does not. */
#include "testing/serving_case.h"

TestSuite(serving_rules, .init = setup, .fini = teardown);

static stored *find(const char *name)
{
    for (int i = 0; i < box.tensors; i++)
        if (strcmp(box.tensor[i].name, name) == 0) return &box.tensor[i];
    cr_assert(false, "%s", name);
    return NULL;
}

static void drop(const char *name)
{
    stored *t = find(name), *last = &box.tensor[--box.tensors];
    if (t != last) *t = *last;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static const qz_finding *finding(const char *rule)
{
    for (const qz_finding *x = findings.first; x; x = x->next)
        if (strcmp(x->rule, rule) == 0) return x;
    return NULL;
}

#define check_finds(consumer, harm_, rule, part, place)                                                                \
    do {                                                                                                               \
        check_for(consumer);                                                                                           \
        const qz_finding *x_ = finding(rule);                                                                          \
        cr_assert(x_ && x_->harm == (harm_), "%s: %s", rule, x_ ? qz_harm_name(x_->harm) : "nothing found");           \
        cr_assert(strstr(x_->what, part) && strstr(x_->where, place), "%s: %s", x_->where, x_->what);                  \
    } while (0)

#define check_silent(consumer, rule)                                                                                   \
    do {                                                                                                               \
        check_for(consumer);                                                                                           \
        cr_assert(!finding(rule), "%s: %s", finding(rule)->where, finding(rule)->what);                                \
    } while (0)

static const char first_q[] = "model.layers.0.self_attn.q_proj";

Test(serving_rules, methods)
{
    new_folder(NF4);
    each_linear(make_nf4);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "method", "bitsandbytes moved out", "quant_method");
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "method", "bitsandbytes", "quant_method");
    new_folder("{\"quant_method\": \"quip\"}");
    each_linear(make_plain);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "method", "\"quip\"", "quant_method");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "method", "\"quip\"", "quant_method");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "method", "without weight_block_size", "quant_method");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "fp8-form", "blocks of 128", "weight_block_size");
}

Test(serving_rules, keys)
{
    new_folder("{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"sym\": true}");
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "config-keys", "\"desc_act\" is missing", "quantization_config");
    new_folder(COMPRESSED("pack-quantized", INT4 ", \"clip\": 1", "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "config-keys", "\"clip\" is not known", "weights");
    new_folder("{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": true}");
    each_linear(make_nf4);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "config-keys", "both true", "quantization_config");
}

Test(serving_rules, awq)
{
    new_folder("{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"zero_point\": false, \"version\": "
               "\"gemv\"}");
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "awq-layout", "\"gemv\"", "version");
    cr_assert_eq(findings.count[QZ_HARM_REFUSED], 1);
    new_folder(AWQ(""));
    box.type = "float32";
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "stored-type", "float32", "torch_dtype");
    cr_assert(!qz_serving_spoils(&findings));
}

Test(serving_rules, gptq)
{
    static const char *const refused[] = {GPTQ("3", "true", "false", ""), GPTQ("4", "false", "false", ""),
                                          GPTQ("2", "true", "false", ""), GPTQ("4", "true", "true", "")};
    for (int i = 0; i < 4; i++) {
        new_folder(refused[i]);
        each_linear(make_gptq);
        check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "gptq-kind", i < 3 ? "4 and 8 bits" : "desc_act", first_q);
        cr_assert_eq(finding("gptq-kind")->more, 7 * LAYERS - 1);
        check_silent(QZ_FOR_TRANSFORMERS, "gptq-kind");
    }
    new_folder(GPTQ("4", "true", "false", ""));
    each_linear(make_gptq);
    find("model.layers.1.mlp.up_proj.qzeros")->word = 0x77777767;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "gptq-zeros", "not all zeros", "model.layers.1.mlp.up_proj.qzeros");
    new_folder(GPTQ("4", "true", "false", ", \"checkpoint_format\": \"gptq_v2\""));
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "gptq-zeros", "not all zeros", first_q);
    cr_assert_eq(finding("gptq-zeros")->more, 7 * LAYERS - 1);
}

/* A rule of `dynamic` that leaves o_proj plain is followed by vLLM, not by transformers. */
Test(serving_rules, gptq_dynamic)
{
    new_folder(GPTQ("4", "true", "false", ", \"dynamic\": {\"-:.*o_proj\": {}}"));
    each_linear(make_gptq);
    for (int layer = 0; layer < LAYERS; layer++) {
        static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx"};
        char name[128];
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj.%s", layer, parts[i]);
            drop(name);
        }
        snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj", layer);
        add(name, "weight", "F16", 512, 512);
    }
    check_for(QZ_FOR_VLLM);
    cr_assert(!qz_serving_spoils(&findings), "%s: %s", findings.first->where, findings.first->what);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "gptq-kind", "did not follow", "dynamic");
}

Test(serving_rules, formats)
{
    new_folder(COMPRESSED("int-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ct-format", "plain inputs in the format \"int-quantized\"", first_q);
    new_folder(COMPRESSED("marlin-24", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ct-format", "sparse", "format");
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_WRONG, "ct-format", "takes all 8-bit weights for fp8", first_q);
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "ct-format", "input_activations is null", first_q);
}

Test(serving_rules, fp8)
{
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    stored *t = find("model.layers.0.mlp.down_proj.weight_scale");
    t->shape[0] = 512;
    t->bytes = 2048;
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fp8-form", "several scales", "down_proj.weight_scale");
    new_folder(FP8("static", BLOCKS));
    each_linear(make_blocks);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fp8-form", "\"static\" with weight_block_size", "activation_scheme");
}

Test(serving_rules, fused_schemes)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"lm_head\", \"re:.*k_proj\"]"));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fused-schemes", "q_proj is int4 group 128, k_proj is plain",
                "model.layers.0.self_attn.k_proj");
    cr_assert_eq(finding("fused-schemes")->more, LAYERS - 1);
    new_folder(GPTQ("4", "true", "false", ", \"dynamic\": {\".*gate_proj\": {\"bits\": 8}}"));
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fused-schemes", "gate_proj is int8 group 128, up_proj is int4",
                "model.layers.0.mlp.up_proj");
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"lm_head\", \"re:.*o_proj\"]"));
    each_linear(make_packed);
    check_silent(QZ_FOR_VLLM, "fused-schemes");
}

Test(serving_rules, fused_scales)
{
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    find("model.layers.1.self_attn.v_proj.input_scale")->word = bits_of(0.25f);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-scales", "the one it loads last", "layers.1.self_attn.v_proj.input");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    find("model.layers.0.mlp.up_proj.weight_scale")->word = bits_of(0.25f);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-scales", "a second time", "layers.0.mlp.up_proj.weight_scale");
    find("model.layers.0.mlp.up_proj.weight_scale")->word = bits_of(0.5f);
    find("model.layers.0.mlp.down_proj.weight_scale")->word = bits_of(0.25f);
    check_silent(QZ_FOR_VLLM, "fused-scales");
}

Test(serving_rules, fused_order)
{
    new_folder(GPTQ("4", "true", "true", ""));
    each_linear(make_gptq);
    find("model.layers.0.self_attn.k_proj.g_idx")->word = 1;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-order", "g_idx differs", "model.layers.0.self_attn.k_proj");
}

Test(serving_rules, group_size)
{
    static const char awq48[] = "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 256, \"zero_point\": true}";
    new_folder(awq48);
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "group-size", "groups of 256", first_q);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "group-size", "gptqmodel", first_q);
    new_folder(COMPRESSED("pack-quantized",
                          "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\", "
                          "\"group_size\": 256",
                          "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "group-size", "Exllama", first_q);
    box.type = "bfloat16";
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "group-size", "no kernel", first_q);
}

Test(serving_rules, shapes)
{
    new_folder(AWQ(""));
    box.ffn = 1056; /* 8 1/4 groups */
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kernel-shapes", "1056 inputs do not divide into groups of 128",
                "mlp.down_proj");
    new_folder(FP8("dynamic", BLOCKS));
    box.ffn = 1056;
    each_linear(make_blocks);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kernel-shapes", "1056 outputs are no whole blocks", "mlp.gate_proj");
    cr_assert_eq(finding("kernel-shapes")->more, LAYERS - 1); /* up_proj is the last of its set */
    new_folder(COMPRESSED("pack-quantized",
                          "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"channel\"", "null",
                          IGNORE));
    box.ffn = 1032;
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "kernel-shapes", "multiples of 32", "mlp.gate_proj");
}

Test(serving_rules, tensor_parallel)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "tensor-parallel", "over 8 devices: 64 inputs a device", "o_proj");
    cr_assert_eq(findings.count[QZ_HARM_LIMITED], 1);
    check_silent(QZ_FOR_TRANSFORMERS, "tensor-parallel");
    new_folder(NULL);
    box.kv_heads = 8;
    each_linear(make_plain);
    check_silent(QZ_FOR_VLLM, "tensor-parallel");
    box.heads = box.kv_heads = 6;
    box.hidden = 384;
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "tensor-parallel", "over 4 devices: 6 attention heads", "heads");
}

Test(serving_rules, ignore_list)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ""));
    box.tied = "false";
    each_linear(make_packed);
    add("lm_head", "weight", "F16", 256, 512);
    check_silent(QZ_FOR_VLLM, "ignore-list");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "ignore-list", "made anew with random weights", "lm_head");
    box.quant = COMPRESSED("pack-quantized", INT4, "null", IGNORE);
    check_silent(QZ_FOR_TRANSFORMERS, "ignore-list");
    box.quant = COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"model.layers.1.mlp.down_proj\"]");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ignore-list", "is stored quantized", "model.layers.1.mlp.down_proj");
}

Test(serving_rules, missing_tensors)
{
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    drop("model.layers.1.mlp.down_proj.input_scale");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "\"input_scale\" is missing",
                "layers.1.mlp.down_proj");
    new_folder(AWQ(""));
    each_linear(make_awq);
    drop("model.layers.0.mlp.up_proj.scales");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "\"scales\" is missing", "layers.0.mlp.up_proj");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    find("model.layers.0.mlp.down_proj.input_scale")->word = 0;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "missing-tensors", "the scale is 0", "down_proj.input_scale");
    new_folder(NULL);
    each_linear(make_plain);
    drop("model.layers.0.mlp.up_proj.weight");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "no weight is stored", "layers.0.mlp.up_proj");
}

Test(serving_rules, tied_head)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    add("lm_head", "qweight", "I32", 512, 32);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "tied-head", "tie_word_embeddings", "lm_head.qweight");
}

Test(serving_rules, embeddings)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    add("model.embed_tokens", "weight_packed", "I32", 512, 32);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "embeddings", "does not load", "embed_tokens.weight_packed");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "embeddings", "does not load", "embed_tokens.weight_packed");
}

#define CACHE                                                                                                          \
    ", \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, \"strategy\": "                \
    "\"tensor\", \"dynamic\": false}"

static void add_cache(void)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        char module[64];
        snprintf(module, sizeof module, "model.layers.%d.self_attn", layer);
        add(module, "k_scale", "F32", 1, 0);
        add(module, "v_scale", "F32", 1, 0);
    }
}

Test(serving_rules, cache)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE CACHE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "missing: the server takes 1.0", "layers.0.self_attn");
    add_cache();
    check_for(QZ_FOR_VLLM);
    cr_assert(!qz_serving_spoils(&findings) && !finding("kv-scheme"));
    check_for(QZ_FOR_TRANSFORMERS);
    cr_assert(!finding("kv-scheme"));
    find("model.layers.1.self_attn.v_scale")->word = bits_of(1);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "exactly 1.0", "model.layers.1.self_attn.v_scale");
    drop("model.layers.1.self_attn.v_scale");
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "only one of", "model.layers.1.self_attn");
    new_folder(COMPRESSED("pack-quantized", INT4, "null",
                          IGNORE ", \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true}"));
    each_linear(make_packed);
    add_cache();
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kv-scheme", "vllm does not read", "kv_cache_scheme");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    add_cache();
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "kv-scheme", "does not switch the cache", "kv_cache_scheme");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_LIMITED, "kv-scheme", "scales lie unused", "kv_cache_scheme");
}
