/* Mistral: Llama whose layers all attend to a sliding window (null: none).
 * Source: Jiang et al. 2023; transformers, models/mistral/configuration_mistral.py. */
#include "models/families.h"

enum { DEFAULT_WINDOW = 4096 };

static qz_status read_config(qz_model_config *out, const qz_json_node *config)
{
    return qz_config_window(out, config, DEFAULT_WINDOW);
}

const qz_family qz_family_mistral = {
    .plugin = {"mistral", "Mistral 7B and models of the same form: sliding window",
               "Jiang et al. 2023; transformers, models/mistral", NULL},
    .architecture = "MistralForCausalLM",
    .model_type = "mistral",
    .default_kv_heads = 8,
    .names = &qz_llama_names,
    .read_config = read_config,
};
