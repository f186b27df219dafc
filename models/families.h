/* What the families' files share: the readers of config.json that several of them need, and the tensor names of the
 * Llama tree, which Mistral and Qwen follow. */
#ifndef QZ_MODELS_FAMILIES_H
#define QZ_MODELS_FAMILIES_H

#include "models/models.h"

#define QZ_FAMILY(name) extern const qz_family qz_family_##name;
#include "models/families.def"
#undef QZ_FAMILY

extern const qz_tensor_names qz_llama_names;

/* A missing key and `null` mean the same unless a family says otherwise. */
static inline bool qz_config_absent(const qz_json_node *node)
{
    return qz_json_type_of(node) == QZ_JSON_NULL;
}
/* An optional boolean; absent or null is `fallback`. */
QZ_NODISCARD qz_status qz_config_flag(const qz_json_node *config, const char *key, bool fallback, bool *out);
/* An optional integer >= low; absent is `absent`, null is `null`. */
QZ_NODISCARD qz_status qz_config_int_or(const qz_json_node *config, const char *key, int64_t low, int64_t high,
                                        int64_t absent, int64_t null, int64_t *out);
/* Qwen: use_sliding_window, sliding_window, max_window_layers, layer_types -> window, first_window_layer, layer_slides.
 */
QZ_NODISCARD qz_status qz_config_qwen_window(qz_model_config *out, const qz_json_node *config);

/* layer_types, where it is given -> layer_slides; out->window is already read. */
QZ_NODISCARD qz_status qz_config_layer_types(qz_model_config *out, const qz_json_node *config, bool *given);
/* sliding_window -> window and layer_slides: all layers slide, unless it is null. */
QZ_NODISCARD qz_status qz_config_window(qz_model_config *out, const qz_json_node *config, int64_t absent);
/* The number of experts under `key` or, as transformers 5 writes it, num_local_experts; and num_experts_per_tok. */
QZ_NODISCARD qz_status qz_config_experts(qz_model_config *out, const qz_json_node *config, const char *key,
                                         int64_t absent, int64_t active_absent);
/* An optional number in [low, high]; absent is `absent`, null is `null`. */
QZ_NODISCARD qz_status qz_config_number_or(const qz_json_node *config, const char *key, double low, double high,
                                           double absent, double null, double *out);

#endif
