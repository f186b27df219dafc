/* config.json -> qz_model_config: what all families share, then the family's own part.
 * Keys and defaults: FORMATS.md 10.2 and transformers' configuration files. Every value is checked against what the
 * arithmetic can hold, so that sizes computed from it cannot overflow. */
#include <stdio.h>
#include <string.h>

#include "models/families.h"
#include "models/rope.h"

enum {
    MOST_LAYERS = 1 << 16,
    MOST_HIDDEN = 1 << 20,
    MOST_FFN = 1 << 24,
    MOST_HEADS = 1 << 16,
    MOST_HEAD_DIM = 1 << 12,
    MOST_VOCABULARY = 1 << 26,
    MOST_CONTEXT = 1 << 30,
};

static qz_status needed(const qz_json_node *config, const char *key, int64_t high, int64_t *out)
{
    return qz_json_int(qz_json_get(config, key), key, 1, high, out);
}

/* "LlamaForCausalLM (llama), ..." */
static const char *known_families(char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < qz_families()->count && used < size; i++) {
        const qz_family *f = qz_family_at(i);
        used += (size_t)snprintf(out + used, size - used, "%s%s (%s)", i ? ", " : "", f->architecture, f->model_type);
    }
    return out;
}

static const qz_family *family_named(const char *architecture, const char *model_type)
{
    for (size_t i = 0; i < qz_families()->count; i++) {
        const qz_family *f = qz_family_at(i);
        if (architecture && strcmp(architecture, f->architecture) == 0) return f;
        if (!architecture && model_type && strcmp(model_type, f->model_type) == 0) return f;
    }
    return NULL;
}

/* By architectures[0]; by model_type where there are no architectures. */
static qz_status find_family(const qz_family **out, const qz_json_node *config)
{
    char known[512];
    const char *architecture = NULL, *model_type = NULL;
    const qz_json_node *list = qz_json_get(config, "architectures"), *type = qz_json_get(config, "model_type");
    if (!qz_config_absent(list) && !qz_json_is(list, QZ_JSON_ARRAY))
        return QZ_FAIL(QZ_FORMAT, "architectures: found %s, expected an array of names",
                       qz_json_type_name(qz_json_type_of(list)));
    if (qz_json_count(list)) QZ_TRY(qz_json_string(qz_json_first(list), "architectures[0]", &architecture));
    if (!qz_config_absent(type)) QZ_TRY(qz_json_string(type, "model_type", &model_type));
    known_families(known, sizeof known);
    if (!architecture && !model_type)
        return QZ_FAIL(QZ_FORMAT, "architectures: missing, and so is model_type; known are %s", known);
    *out = family_named(architecture, model_type);
    if (!*out)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: found \"%.80s\", known are %s",
                       architecture ? "architectures[0]" : "model_type", architecture ? architecture : model_type,
                       known);
    if (model_type && strcmp(model_type, (*out)->model_type) != 0)
        return QZ_FAIL(QZ_FORMAT, "model_type: found \"%.80s\", but architectures says %s, whose type is \"%s\"",
                       model_type, (*out)->architecture, (*out)->model_type);
    return QZ_OK;
}

static qz_status read_heads(qz_model_config *out, const qz_json_node *config, const qz_family *family)
{
    QZ_TRY(needed(config, "num_attention_heads", MOST_HEADS, &out->heads));
    int64_t fallback = family->default_kv_heads ? family->default_kv_heads : out->heads;
    QZ_TRY(qz_config_int_or(config, "num_key_value_heads", 1, MOST_HEADS, fallback, out->heads, &out->kv_heads));
    if (out->heads % out->kv_heads != 0)
        return QZ_FAIL(QZ_FORMAT,
                       "num_key_value_heads: found %lld%s, allowed are divisors of num_attention_heads = %lld",
                       (long long)out->kv_heads, qz_json_get(config, "num_key_value_heads") ? "" : " (the default)",
                       (long long)out->heads);
    return QZ_OK;
}

static qz_status read_head_dim(qz_model_config *out, const qz_json_node *config, const qz_family *family)
{
    const char *how = "";
    int64_t fallback = family->default_head_dim;
    QZ_TRY(qz_config_int_or(config, "head_dim", 1, MOST_HEAD_DIM, fallback, 0, &out->head_dim));
    if (out->head_dim == 0) {
        how = " (hidden_size / num_attention_heads)";
        if (out->hidden % out->heads != 0)
            return QZ_FAIL(QZ_FORMAT,
                           "hidden_size: found %lld, expected a multiple of num_attention_heads = %lld where "
                           "head_dim is not given",
                           (long long)out->hidden, (long long)out->heads);
        out->head_dim = out->hidden / out->heads;
    }
    if (out->head_dim % 2 == 0 && out->head_dim <= MOST_HEAD_DIM) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "head_dim: found %lld%s, allowed are even numbers up to %d", (long long)out->head_dim,
                   how, MOST_HEAD_DIM);
}

static qz_status read_activation(qz_model_config *out, const qz_json_node *config, const qz_family *family)
{
    const char *key = family->activation ? family->activation : "hidden_act", *text;
    const qz_json_node *node = qz_json_get(config, key);
    out->gelu_tanh = family->default_gelu_tanh;
    if (qz_config_absent(node)) return QZ_OK;
    QZ_TRY(qz_json_string(node, key, &text));
    out->gelu_tanh = strcmp(text, "gelu_pytorch_tanh") == 0;
    if (out->gelu_tanh || strcmp(text, "silu") == 0) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: found \"%.80s\", allowed are \"silu\" and \"gelu_pytorch_tanh\"", key, text);
}

static qz_status read_bos(qz_model_config *out, const qz_json_node *config)
{
    int64_t id;
    const qz_json_node *node = qz_json_get(config, "bos_token_id");
    out->bos = -1;
    if (qz_json_is(node, QZ_JSON_ARRAY)) node = qz_json_first(node);
    if (qz_config_absent(node)) return QZ_OK;
    QZ_TRY(qz_json_int(node, "bos_token_id", 0, out->vocabulary - 1, &id));
    out->bos = (int32_t)id;
    return QZ_OK;
}

static qz_status read_stored_type(qz_model_config *out, const qz_json_node *config)
{
    static const struct {
        const char *name;
        qz_dtype type;
    } types[] = {{"float32", QZ_F32}, {"float16", QZ_F16}, {"bfloat16", QZ_BF16}};
    const char *key = qz_config_absent(qz_json_get(config, "dtype")) ? "torch_dtype" : "dtype";
    const char *text;
    out->stored = QZ_F32;
    if (qz_config_absent(qz_json_get(config, key))) return QZ_OK;
    QZ_TRY(qz_json_string(qz_json_get(config, key), key, &text));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(text, types[i].name) != 0) continue;
        out->stored = types[i].type;
        return QZ_OK;
    }
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: found \"%.80s\", allowed are float32, float16 and bfloat16", key, text);
}

static qz_status read_shared(qz_model_config *out, const qz_json_node *config, const qz_family *family, qz_arena *arena)
{
    QZ_TRY(needed(config, "hidden_size", MOST_HIDDEN, &out->hidden));
    QZ_TRY(needed(config, "intermediate_size", MOST_FFN, &out->ffn));
    QZ_TRY(needed(config, "num_hidden_layers", MOST_LAYERS, &out->layers));
    QZ_TRY(needed(config, "vocab_size", MOST_VOCABULARY, &out->vocabulary));
    QZ_TRY(needed(config, "max_position_embeddings", MOST_CONTEXT, &out->context));
    QZ_TRY(read_heads(out, config, family));
    QZ_TRY(read_head_dim(out, config, family));
    QZ_TRY(read_activation(out, config, family));
    out->norm_eps = family->default_norm_eps > 0 ? family->default_norm_eps : 1e-6;
    const qz_json_node *eps = qz_json_get(config, "rms_norm_eps");
    if (!qz_config_absent(eps)) QZ_TRY(qz_json_number(eps, "rms_norm_eps", 1e-30, 1, &out->norm_eps));
    QZ_TRY(qz_config_flag(config, "tie_word_embeddings", family->default_tied, &out->tied));
    QZ_TRY(read_bos(out, config));
    QZ_TRY(read_stored_type(out, config));
    return qz_config_rope(out, config, family, arena);
}

qz_status qz_model_config_read(qz_model_config *out, const qz_json_node *config, qz_arena *arena)
{
    const qz_family *family;
    *out = (qz_model_config){0};
    if (!qz_json_is(config, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(config)));
    QZ_TRY(find_family(&family, config));
    out->family = family->plugin.name;
    QZ_TRY(read_shared(out, config, family, arena));
    out->embedding_scale = 1;
    out->layer_slides = qz_arena_calloc(arena, (size_t)out->layers);
    out->layer_routes = qz_arena_calloc(arena, (size_t)out->layers);
    if (!out->layer_slides || !out->layer_routes) return qz_arena_failed(arena);
    return family->read_config(out, config);
}
