/* Any bytes as config.json of a quantized model: an error, or a scheme that cuts a matrix. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/ct_config.h"
#include "checkpoints/gptq_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char module[] = "model.layers.1.self_attn.q_proj";

static void require(int holds)
{
    if (!holds) abort();
}

static void check(const qz_scheme *s)
{
    require(s->format < QZ_FORMAT_COUNT && s->piece_rows >= 0 && s->piece_cols >= 0 && s->flat >= 0);
    require(s->flat || (qz_scheme_scale_rows(s, 64) > 0 && qz_scheme_scale_cols(s, 256) > 0));
}

/* What holds for one module, where rules are searched by its name. */
static void check_module(const qz_json_node *block)
{
    qz_gptq_config gptq;
    qz_ct_group group;
    qz_ct_args cache;
    qz_scheme scheme;
    qz_act_scheme input;
    if (qz_gptq_config_read(&gptq, block, module) == QZ_OK) {
        scheme = qz_gptq_scheme(&gptq);
        check(&scheme);
    }
    if (qz_ct_config_check(block) != QZ_OK) return;
    require(qz_ct_config_kv(&cache, block) == QZ_OK);
    if (qz_ct_config_find(&group, block, module) != QZ_OK) return;
    if (qz_ct_weight_scheme(&scheme, &group.weights) == QZ_OK) check(&scheme);
    if (qz_ct_input_scheme(&input, &group.input) == QZ_OK) require(input.mode != QZ_ACT_GROUP || input.group > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qz_json *doc;
    if (qz_json_parse(&doc, (const char *)data, size) != QZ_OK) return 0;
    const qz_json_node *root = qz_json_root(doc);
    for (size_t i = 0; i < qz_containers()->count; i++) {
        const qz_container *c = qz_container_at(i);
        qz_scheme scheme;
        if (!c->recognise(root) || !c->read_scheme) continue;
        if (c->read_scheme(&scheme, root) == QZ_OK) check(&scheme);
    }
    check_module(qz_json_get(root, "quantization_config"));
    qz_json_close(doc);
    return 0;
}
