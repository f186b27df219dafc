/* Recipe + model -> what the checkpoint will contain: each linear with its scheme, or plain. */
#include <string.h>

#include "calib/calib.h"

/* Linears of one stage share an input and are fused by servers, unless they are stored as one already. */
static int fused_number(const qz_linear_place *place)
{
    const qz_stage stage = qz_input_stage(place->input);
    return (stage == QZ_STAGE_QKV || stage == QZ_STAGE_GATE_UP) && place->roles == 1 ? place->input : -1;
}

static qz_dtype plain_type_of(const qz_recipe *recipe, const qz_container *container, const qz_model *model)
{
    if (recipe->output_as.dtype != QZ_DTYPE_COUNT) return recipe->output_as.dtype;
    if (container->preferred_plain_type != QZ_DTYPE_COUNT) return container->preferred_plain_type;
    return qz_model_config_of(model)->stored;
}

/* "model.layers.0.self_attn.q_proj" -> "model.layers.0.self_attn.qkv_proj": what vLLM and SGLang call the fused set. */
static const char *fused_name(const char *module, qz_role role, qz_arena *arena)
{
    const char *last = strrchr(module, '.');
    const char *fused = qz_role_stage(role) == QZ_STAGE_QKV ? "qkv_proj" : "gate_up_proj";
    return last ? qz_arena_printf(arena, "%.*s.%s", (int)(last - module), module, fused) : NULL;
}

static void fill_linear(qz_export_linear *l, const qz_recipe *recipe, const qz_model *model, int layer, int number,
                        const qz_scheme *scheme)
{
    const qz_linear_place *place = qz_model_linear(model, layer, number);
    memset(l, 0, sizeof *l);
    l->module = qz_model_linear_name(model, layer, number);
    l->n = place->n;
    l->k = place->k;
    l->has_bias = place->has_bias;
    l->quantized = !qz_patterns_match(&recipe->weights.skip, l->module);
    l->scheme = *scheme;
    l->fused = fused_number(place);
    l->layer = layer;
}

/* Rounding twice is worse than once, and what the first rounding lost cannot come back. */
static qz_status check_source(const qz_ckpt *source)
{
    const qz_container *container = qz_ckpt_container(source);
    if (!container->read_scheme) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "model: %s is quantized already (container \"%s\"): give the original model",
                   qz_ckpt_folder(source), container->plugin.name);
}

qz_status qz_calib_export_plan(qz_export_plan *out, const qz_recipe *recipe, const qz_model *model, qz_arena *arena)
{
    const qz_container *container = qz_container_at((size_t)recipe->output_as.container.index);
    const qz_model_config *config = qz_model_config_of(model);
    const int layers = (int)config->layers;
    size_t *first = qz_arena_array(arena, size_t, (size_t)layers + 1), at = 0;
    const char **attention = qz_arena_array(arena, const char *, (size_t)layers);
    if (!first || !attention) return qz_arena_failed(arena);
    first[0] = 0;
    for (int i = 0; i < layers; i++) {
        first[i + 1] = first[i] + (size_t)qz_model_linears(model, i);
        attention[i] = qz_model_attention_name(model, i);
    }
    const size_t count = first[layers];
    qz_export_linear *linear = qz_arena_array(arena, qz_export_linear, count);
    if (!linear) return qz_arena_failed(arena);
    QZ_TRY(check_source(qz_model_ckpt(model)));

    if (!qz_patterns_match(&recipe->weights.skip, "lm_head"))
        return QZ_FAIL(QZ_ARG,
                       "weights.skip: lm_head is not listed, but quantizing it is not supported; add \"lm_head\"");
    qz_dtype plain = plain_type_of(recipe, container, model);
    /* Servers widen or narrow scales to the type they run in: in bf16 the scale must be a bf16 number to survive. */
    qz_scheme scheme = qz_recipe_scheme(recipe, plain == QZ_BF16 ? QZ_BF16 : QZ_F16);
    for (int i = 0; i < layers; i++)
        for (int j = 0; j < qz_model_linears(model, i); j++) {
            qz_export_linear *l = &linear[at++];
            fill_linear(l, recipe, model, i, j, &scheme);
            const qz_role role = qz_model_linear(model, i, j)->role;
            if (l->fused >= 0 && !(l->fused_as = fused_name(l->module, role, arena))) return qz_arena_failed(arena);
        }
    *out = (qz_export_plan){.linear = linear,
                            .linears = count,
                            .first = first,
                            .plain_type = plain,
                            .attention = attention,
                            .layers = layers,
                            .kv_heads = config->kv_heads};
    if (!container->can_express)
        return QZ_FAIL(QZ_ARG, "export.container: \"%s\" can be read but not written", container->plugin.name);
    if (container->can_express(out) != QZ_OK)
        return qz_error_context(QZ_ARG, "container \"%s\" cannot hold this", container->plugin.name);
    return QZ_OK;
}
