/* The table of families is complete and can be looked up. */
#include "models/families.h"

#include "testing/testing.h"

Test(families, every_row_is_filled)
{
    const qz_plugins *list = qz_families();
    cr_assert_str_eq(list->kind, "family");
    cr_assert(list->count >= 4);
    for (size_t i = 0; i < list->count; i++) {
        const qz_family *f = qz_family_at(i);
        cr_assert(qz_plugins_find(list, f->plugin.name) == (int)i);
        cr_assert(f->plugin.help && *f->plugin.help && f->plugin.source && *f->plugin.source);
        cr_assert(f->architecture && f->model_type && f->read_config && f->names);
        for (int r = 0; r < QZ_ROLES; r++) cr_assert(f->names->linear[r]);
        cr_assert(f->names->embedding && f->names->final_norm && f->names->head && f->names->layer);
    }
}

Test(families, the_four_of_the_first_issue)
{
    static const char *const names[] = {"llama", "mistral", "qwen2", "qwen3"};
    for (int i = 0; i < 4; i++) cr_assert(qz_plugins_find(qz_families(), names[i]) >= 0, "%s", names[i]);
    cr_assert(qz_plugins_find(qz_families(), "gpt2") < 0);
}

static qz_model_config config_of(const char *name, const char *text)
{
    qz_json *doc;
    qz_model_config c = {.layers = 2, .layer_slides = (uint8_t[2]){0}};
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    check_ok(qz_family_at((size_t)qz_plugins_find(qz_families(), name))->read_config(&c, qz_json_root(doc)));
    qz_json_close(doc);
    return c;
}

Test(families, llama_biases_by_flag)
{
    qz_model_config c = config_of("llama", "{}");
    cr_assert(!c.qkv_bias && !c.o_bias && !c.mlp_bias);
    c = config_of("llama", "{\"attention_bias\": true}");
    cr_assert(c.qkv_bias && c.o_bias && !c.mlp_bias);
    c = config_of("llama", "{\"mlp_bias\": true}");
    cr_assert(!c.qkv_bias && c.mlp_bias);
}

Test(families, mistral_slides_unless_null)
{
    cr_assert(config_of("mistral", "{\"sliding_window\": 6}").window == 6);
    cr_assert(config_of("mistral", "{\"sliding_window\": null}").window == 0);
    cr_assert(config_of("mistral", "{}").window == 4096);
}

Test(families, qwen2_always_has_qkv_biases)
{
    qz_model_config c = config_of("qwen2", "{}");
    cr_assert(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm);
}

Test(families, qwen3_normalizes_q_and_k)
{
    qz_model_config c = config_of("qwen3", "{}");
    cr_assert(c.qk_norm && !c.qkv_bias);
    cr_assert(config_of("qwen3", "{\"attention_bias\": true}").o_bias);
}
