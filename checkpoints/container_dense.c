/* Plain weights: a folder whose config says nothing of quantization. Only read: an export always quantizes something.
 */
#include "checkpoints/checkpoints.h"

static bool absent(const qz_json_node *node)
{
    return qz_json_type_of(node) == QZ_JSON_NULL;
}

static bool recognise(const qz_json_node *config)
{
    return absent(qz_json_get(config, "quantization_config")) && absent(qz_json_get(config, "compression_config"));
}

static const char *const suffixes[] = {"weight", "bias", NULL};

const qz_container qz_container_dense = {
    .plugin = {.name = "dense", .help = "plain fp32, fp16 or bf16 weights (read only)", .source = ""},
    .consumers = "everything",
    .recognise = recognise,
    .suffixes = suffixes,
    .preferred_plain_type = QZ_BF16,
};
