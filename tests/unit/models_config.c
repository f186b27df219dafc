/* config.json: what all families share. Every missing or nonsensical field is an error that names it. */
#include "models/models.h"

#include "testing/testing.h"

static const char whole[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64, "
    "\"intermediate_size\": "
    "128, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 160, "
    "\"rms_norm_eps\": 1e-05, \"max_position_embeddings\": 256, \"hidden_act\": \"silu\", \"bos_token_id\": 1, "
    "\"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\"}";

/* Reads `whole` with `key` set to `value` (NULL: removed). layer_slides is not kept. */
static qz_status read_with(qz_model_config *out, const char *key, const char *value)
{
    qz_arena *arena;
    qz_json *doc;
    char *text = (char *)whole;
    check_ok(qz_arena_new(&arena, "test"));
    if (key) check_ok(qz_json_text_set(&text, whole, key, value, arena));
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    qz_status status = qz_model_config_read(out, qz_json_root(doc), arena);
    qz_json_close(doc);
    qz_arena_free(arena);
    return status;
}

#define ok_with(key, value) check_ok(read_with(&c, (key), (value)))
#define fails_with(key, value, code, part) check_fails((code), (part), read_with(&c, (key), (value)))

Test(config, reads_what_is_there)
{
    qz_model_config c;
    ok_with(NULL, NULL);
    cr_assert_str_eq(c.family, "llama");
    cr_assert(c.hidden == 64 && c.ffn == 128 && c.layers == 2 && c.heads == 4 && c.kv_heads == 2 && c.head_dim == 16);
    cr_assert(c.vocabulary == 160 && c.context == 256 && c.norm_eps == 1e-5 && c.tied && c.bos == 1);
    cr_assert(c.stored == QZ_BF16 && !c.qkv_bias && !c.mlp_bias && !c.qk_norm && c.window == 0);
}

Test(config, defaults)
{
    qz_model_config c;
    ok_with("num_key_value_heads", NULL);
    cr_assert(c.kv_heads == 4);
    ok_with("num_key_value_heads", "null");
    cr_assert(c.kv_heads == 4);
    ok_with("rms_norm_eps", NULL);
    cr_assert(c.norm_eps == 1e-6);
    ok_with("tie_word_embeddings", NULL);
    cr_assert(!c.tied);
    ok_with("head_dim", "null");
    cr_assert(c.head_dim == 16);
    ok_with("head_dim", "32");
    cr_assert(c.head_dim == 32);
    ok_with("hidden_act", NULL);
    cr_assert(!c.gelu_tanh && c.embedding_scale == 1 && c.rope.dims == 16);
    ok_with("hidden_act", "\"gelu_pytorch_tanh\"");
    cr_assert(c.gelu_tanh);
    ok_with("architectures", NULL);
    cr_assert_str_eq(c.family, "llama");
}

Test(config, missing_fields_are_named)
{
    static const char *const keys[] = {"hidden_size",         "intermediate_size", "num_hidden_layers",
                                       "num_attention_heads", "vocab_size",        "max_position_embeddings"};
    qz_model_config c;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        fails_with(keys[i], NULL, QZ_FORMAT, keys[i]);
        fails_with(keys[i], "0", QZ_FORMAT, keys[i]);
        fails_with(keys[i], "-4", QZ_FORMAT, keys[i]);
        fails_with(keys[i], "2.5", QZ_FORMAT, keys[i]);
        fails_with(keys[i], "\"64\"", QZ_FORMAT, keys[i]);
        fails_with(keys[i], "1e300", QZ_FORMAT, keys[i]);
        fails_with(keys[i], "null", QZ_FORMAT, keys[i]);
    }
}

Test(config, heads_must_fit_together)
{
    qz_model_config c;
    fails_with("num_key_value_heads", "3", QZ_FORMAT, "num_key_value_heads: found 3, allowed are divisors of");
    fails_with("num_key_value_heads", "8", QZ_FORMAT, "= 4");
    fails_with("num_attention_heads", "6", QZ_FORMAT, "hidden_size: found 64");
    fails_with("head_dim", "15", QZ_FORMAT, "head_dim: found 15");
    fails_with("head_dim", "0", QZ_FORMAT, "head_dim");
    fails_with("hidden_size", "4", QZ_FORMAT, "head_dim: found 1 (hidden_size / num_attention_heads)");
}

Test(config, unknown_family_lists_the_known)
{
    qz_model_config c;
    fails_with("architectures", "[\"GPT2LMHeadModel\"]", QZ_UNSUPPORTED, "GPT2LMHeadModel");
    fails_with("architectures", "[\"GPT2LMHeadModel\"]", QZ_UNSUPPORTED, "Qwen3ForCausalLM (qwen3)");
    fails_with("architectures", "\"LlamaForCausalLM\"", QZ_FORMAT, "architectures: found a string");
    fails_with("architectures", "[7]", QZ_FORMAT, "architectures[0]");
    fails_with("model_type", "\"gpt2\"", QZ_FORMAT, "model_type: found \"gpt2\"");
    fails_with("model_type", "7", QZ_FORMAT, "model_type");
}

Test(config, neither_architecture_nor_type)
{
    qz_arena *arena;
    qz_json *doc;
    qz_model_config c;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_json_parse(&doc, "{}", 2));
    check_fails(QZ_FORMAT, "architectures: missing", qz_model_config_read(&c, qz_json_root(doc), arena));
    qz_json_close(doc);
    check_ok(qz_json_parse(&doc, "[]", 2));
    check_fails(QZ_FORMAT, "found an array", qz_model_config_read(&c, qz_json_root(doc), arena));
    qz_json_close(doc);
    qz_arena_free(arena);
}

Test(config, activation_norm_and_flags)
{
    qz_model_config c;
    fails_with("hidden_act", "\"gelu\"", QZ_UNSUPPORTED, "hidden_act: found \"gelu\", allowed are \"silu\" and");
    fails_with("hidden_act", "3", QZ_FORMAT, "hidden_act");
    fails_with("rms_norm_eps", "0", QZ_FORMAT, "rms_norm_eps");
    fails_with("rms_norm_eps", "-1e-5", QZ_FORMAT, "rms_norm_eps");
    fails_with("rms_norm_eps", "\"small\"", QZ_FORMAT, "rms_norm_eps");
    fails_with("tie_word_embeddings", "1", QZ_FORMAT, "tie_word_embeddings");
    fails_with("attention_bias", "\"no\"", QZ_FORMAT, "attention_bias");
    fails_with("mlp_bias", "[]", QZ_FORMAT, "mlp_bias");
}

Test(config, bos_is_a_number_a_list_or_nothing)
{
    qz_model_config c;
    ok_with("bos_token_id", "[5, 6]");
    cr_assert(c.bos == 5);
    ok_with("bos_token_id", "[]");
    cr_assert(c.bos == -1);
    ok_with("bos_token_id", "null");
    cr_assert(c.bos == -1);
    ok_with("bos_token_id", NULL);
    cr_assert(c.bos == -1);
    ok_with("bos_token_id", "0");
    cr_assert(c.bos == 0);
    fails_with("bos_token_id", "160", QZ_FORMAT, "bos_token_id");
    fails_with("bos_token_id", "-1", QZ_FORMAT, "bos_token_id");
    fails_with("bos_token_id", "\"<s>\"", QZ_FORMAT, "bos_token_id");
}

Test(config, stored_type_under_either_name)
{
    qz_model_config c;
    ok_with("dtype", "\"float16\"");
    cr_assert(c.stored == QZ_F16);
    ok_with("torch_dtype", "\"float32\"");
    cr_assert(c.stored == QZ_F32);
    fails_with("torch_dtype", "\"float64\"", QZ_UNSUPPORTED, "torch_dtype: found \"float64\"");
    fails_with("dtype", "16", QZ_FORMAT, "dtype");
}

Test(config, memory_can_run_out)
{
    qz_arena *arena;
    qz_json *doc;
    qz_model_config c;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_json_parse(&doc, whole, strlen(whole)));
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "test", qz_model_config_read(&c, qz_json_root(doc), arena));
    qz_json_close(doc);
    qz_arena_free(arena);
}
