/* Readers of config.json fields that several families share. */
#include <string.h>

#include "models/families.h"

enum { DEFAULT_WINDOW = 4096, DEFAULT_MAX_WINDOW_LAYERS = 28, MOST_LAYERS = 1 << 16, MOST_EXPERTS = 1 << 12 };

qz_status qz_config_flag(const qz_json_node *config, const char *key, bool fallback, bool *out)
{
    const qz_json_node *node = qz_json_get(config, key);
    *out = fallback;
    return qz_config_absent(node) ? QZ_OK : qz_json_bool(node, key, out);
}

qz_status qz_config_int_or(const qz_json_node *config, const char *key, int64_t low, int64_t high, int64_t absent,
                           int64_t null, int64_t *out)
{
    const qz_json_node *node = qz_json_get(config, key);
    *out = node ? null : absent;
    return qz_config_absent(node) ? QZ_OK : qz_json_int(node, key, low, high, out);
}

static qz_status read_layer_type(qz_model_config *out, int64_t layer, const qz_json_node *node)
{
    char found[80];
    const char *text = qz_json_is(node, QZ_JSON_STRING) ? qz_json_text(node) : "";
    bool slides = strcmp(text, "sliding_attention") == 0;
    qz_json_print(node, found, sizeof found);
    if (!slides && strcmp(text, "full_attention") != 0)
        return QZ_FAIL(QZ_FORMAT,
                       "layer_types[%lld]: found %s, allowed are \"full_attention\" and \"sliding_attention\"",
                       (long long)layer, found);
    if (slides && out->window == 0)
        return QZ_FAIL(QZ_FORMAT,
                       "layer_types[%lld]: found %s, but use_sliding_window is not true or sliding_window is null; set "
                       "both, or say \"full_attention\"",
                       (long long)layer, found);
    out->layer_slides[layer] = slides;
    return QZ_OK;
}

qz_status qz_config_layer_types(qz_model_config *out, const qz_json_node *config, bool *given)
{
    const qz_json_node *types = qz_json_get(config, "layer_types");
    *given = !qz_config_absent(types);
    if (!*given) return QZ_OK;
    if (!qz_json_is(types, QZ_JSON_ARRAY) || (int64_t)qz_json_count(types) != out->layers)
        return QZ_FAIL(QZ_FORMAT,
                       "layer_types: found %s of %zu, expected an array with one entry for each of %lld layers",
                       qz_json_type_name(qz_json_type_of(types)), qz_json_count(types), (long long)out->layers);
    int64_t layer = 0;
    for (const qz_json_node *t = qz_json_first(types); t; t = qz_json_next(t)) QZ_TRY(read_layer_type(out, layer++, t));
    return QZ_OK;
}

qz_status qz_config_qwen_window(qz_model_config *out, const qz_json_node *config)
{
    bool used, given;
    QZ_TRY(qz_config_flag(config, "use_sliding_window", false, &used));
    QZ_TRY(qz_config_int_or(config, "sliding_window", 1, INT32_MAX, DEFAULT_WINDOW, 0, &out->window));
    QZ_TRY(qz_config_int_or(config, "max_window_layers", 0, MOST_LAYERS, DEFAULT_MAX_WINDOW_LAYERS,
                            DEFAULT_MAX_WINDOW_LAYERS, &out->first_window_layer));
    if (!used) out->window = 0;
    QZ_TRY(qz_config_layer_types(out, config, &given));
    for (int64_t i = 0; !given && i < out->layers; i++)
        out->layer_slides[i] = out->window > 0 && i >= out->first_window_layer;
    return QZ_OK;
}

qz_status qz_config_window(qz_model_config *out, const qz_json_node *config, int64_t absent)
{
    QZ_TRY(qz_config_int_or(config, "sliding_window", 1, INT32_MAX, absent, 0, &out->window));
    memset(out->layer_slides, out->window > 0, (size_t)out->layers);
    return QZ_OK;
}

qz_status qz_config_experts(qz_model_config *out, const qz_json_node *config, const char *key, int64_t absent,
                            int64_t active_absent)
{
    const char *other = "num_local_experts", *used = qz_config_absent(qz_json_get(config, key)) ? other : key;
    QZ_TRY(qz_config_int_or(config, used, 1, MOST_EXPERTS, absent, absent, &out->experts));
    QZ_TRY(qz_config_int_or(config, "num_experts_per_tok", 1, MOST_EXPERTS, active_absent, active_absent,
                            &out->active_experts));
    if (out->active_experts <= out->experts) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "num_experts_per_tok: found %lld, allowed is at most %s, which is %lld",
                   (long long)out->active_experts, used, (long long)out->experts);
}

qz_status qz_config_number_or(const qz_json_node *config, const char *key, double low, double high, double absent,
                              double null, double *out)
{
    const qz_json_node *node = qz_json_get(config, key);
    *out = node ? null : absent;
    return qz_config_absent(node) ? QZ_OK : qz_json_number(node, key, low, high, out);
}
