/* Recipe and model -> what is written: which linears, with which scheme; and what is refused, saying why. */
#include "base/log.h"
#include "testing/calib_case.h"

static void check_refused(const char *model, const char *const *sets, const char *part, const char *second)
{
    calib_case c = case_open(model, sets);
    check_fails(QZ_ARG, part, qz_calib_export_plan(&c.plan, c.recipe, c.model, c.arena));
    cr_assert(strstr(qz_error_message(), second), "\"%s\" is not in \"%s\"", second, qz_error_message());
    case_close(&c);
}

Test(export_plan, has_every_linear_with_its_shape)
{
    calib_case c = case_open("qwen2", NULL);
    case_plan(&c);
    cr_assert(c.plan.linears == 2 * QZ_ROLES);
    const qz_export_linear *k = &c.plan.linear[QZ_ROLES + QZ_ROLE_K], *down = &c.plan.linear[QZ_ROLE_DOWN];
    cr_assert_str_eq(k->module, "model.layers.1.self_attn.k_proj");
    cr_assert_str_eq(k->fused_as, "model.layers.1.self_attn.qkv_proj");
    cr_assert(k->n == 32 && k->k == 64 && k->has_bias && k->quantized && k->layer == 1);
    cr_assert(k->fused == c.plan.linear[QZ_ROLES + QZ_ROLE_V].fused && k->fused != c.plan.linear[QZ_ROLE_UP].fused);
    cr_assert_str_eq(c.plan.linear[QZ_ROLE_UP].fused_as, "model.layers.0.mlp.gate_up_proj");
    cr_assert(down->n == 64 && down->k == 128 && !down->has_bias && down->fused == -1 && !down->fused_as);
    cr_assert(down->scheme.format == QZ_FORMAT_INT4 && down->scheme.piece_rows == 1 && down->scheme.piece_cols == 32);
    case_close(&c);
}

/* What the container prefers, unless the recipe insists; scales must survive in the type that servers run in. */
Test(export_plan, stores_scales_in_the_type_of_the_rest)
{
    calib_case c = case_open("llama", NULL);
    case_plan(&c);
    cr_assert(c.plan.plain_type == QZ_F16 && c.plan.linear[0].scheme.scale_type == QZ_F16);
    case_close(&c);
    c = case_open("llama", (const char *[]){"export.dtype=bfloat16", NULL});
    case_plan(&c);
    cr_assert(c.plan.plain_type == QZ_BF16 && c.plan.linear[0].scheme.scale_type == QZ_BF16);
    case_close(&c);
}

Test(export_plan, skips_what_the_patterns_name)
{
    calib_case c = case_open(
        "llama", (const char *[]){"weights.skip=[\"lm_head\", \"down_proj\", \"model.layers.1.mlp.*\"]", NULL});
    case_plan(&c);
    for (size_t i = 0; i < c.plan.linears; i++) {
        size_t layer = i / QZ_ROLES, role = i % QZ_ROLES;
        bool skipped = role == QZ_ROLE_DOWN || (layer == 1 && (role == QZ_ROLE_GATE || role == QZ_ROLE_UP));
        cr_assert(c.plan.linear[i].quantized == !skipped, "%s", c.plan.linear[i].module);
    }
    case_close(&c);
}

Test(export_plan, refuses_a_group_that_does_not_divide)
{
    check_refused("llama", (const char *[]){"weights.group=48", NULL},
                  "model.layers.0.self_attn.q_proj: 64 inputs do not divide into groups of 48; groups that fit: 32, 64",
                  "container \"awq\"");
    check_refused("llama", (const char *[]){"weights.group=128", NULL}, "model.layers.0.self_attn.q_proj", "32, 64");
}

/* down has 128 inputs, so 128 fits it alone. */
Test(export_plan, allows_a_group_that_fits_what_is_not_skipped)
{
    calib_case c = case_open("llama", (const char *[]){"weights.group=128",
                                                       "weights.skip=[\"lm_head\", \"?_proj\", \"q_proj\", \"k_proj\", "
                                                       "\"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\"]",
                                                       NULL});
    case_plan(&c);
    case_close(&c);
}

Test(export_plan, refuses_fused_linears_that_disagree)
{
    check_refused("llama", (const char *[]){"weights.skip=[\"lm_head\", \"k_proj\"]", NULL},
                  "model.layers.0.self_attn.q_proj is quantized, but model.layers.0.self_attn.k_proj is not",
                  "both or neither");
    check_refused("llama", (const char *[]){"weights.skip=[\"lm_head\", \"model.layers.1.mlp.up_proj\"]", NULL},
                  "model.layers.1.mlp.gate_proj is quantized, but model.layers.1.mlp.up_proj is not",
                  "both or neither");
}

Test(export_plan, refuses_to_quantize_nothing)
{
    check_refused("llama", (const char *[]){"weights.skip=[\"*\"]", NULL}, "no linear is quantized", "awq");
}

Test(export_plan, refuses_what_the_container_cannot_hold)
{
    check_refused("llama", (const char *[]){"weights.format=int8", NULL}, "awq holds int4", "q_proj");
}

static void count_warnings(void *context, const char *message)
{
    *(int *)context += strstr(message, "quantized already (container \"awq\")") != NULL;
}

Test(export_plan, tells_of_a_model_that_is_quantized_already)
{
    int warnings = 0;
    calib_case c = case_open_folder("tests/golden/samples/awq_g64", NULL, NULL);
    qz_log_to(count_warnings, &warnings);
    case_plan(&c);
    qz_log_to(NULL, NULL);
    cr_assert(warnings == 1 && c.plan.linears == 2 * QZ_ROLES);
    case_close(&c);
}

/* Linears that are stored as one are one entry, which no server fuses further. */
Test(export_plan, has_fused_linears_once)
{
    calib_case c = case_open("phi3", NULL);
    case_plan(&c);
    cr_assert(c.plan.linears == 2 * 4 && c.plan.routers == 0);
    cr_assert_str_eq(c.plan.linear[0].module, "model.layers.0.self_attn.qkv_proj");
    cr_assert(c.plan.linear[0].n == 128 && c.plan.linear[0].fused == -1 && !c.plan.linear[0].fused_as);
    cr_assert_str_eq(c.plan.linear[2].module, "model.layers.0.mlp.gate_up_proj");
    cr_assert(c.plan.linear[2].n == 256 && c.plan.linear[2].fused == -1);
    case_close(&c);
}

/* Gate and up of one expert are a set; the routers stay plain and are named, so that loaders leave them alone. */
Test(export_plan, has_every_expert_and_names_the_routers)
{
    static const char *const containers[] = {"awq", "gptq", "compressed-tensors"};
    for (int i = 0; i < 3; i++) {
        char set[64], *text;
        snprintf(set, sizeof set, "export.container=%s", containers[i]);
        calib_case c = case_open("qwen3_moe", (const char *[]){set, "weights.symmetric=true", NULL});
        case_plan(&c);
        cr_assert(c.plan.linears == QZ_ROLES + 4 + 3 * 4 && c.plan.routers == 1);
        cr_assert_str_eq(c.plan.router[0], "model.layers.1.mlp.gate");
        const qz_export_linear *gate = &c.plan.linear[QZ_ROLES + 4 + 3];
        cr_assert_str_eq(gate->module, "model.layers.1.mlp.experts.1.gate_proj");
        cr_assert(gate[0].fused == gate[1].fused && gate[0].fused != gate[3].fused && gate[2].fused == -1);
        check_ok(qz_container_at((size_t)c.recipe->output_as.container.index)->config_block(&text, &c.plan, c.arena));
        cr_assert(strstr(text, "mlp.gate\"") || strstr(text, "mlp\\\\.gate$\""), "%s: %s", containers[i], text);
        case_close(&c);
    }
}
