/* Recipe + model -> what the checkpoint will contain: each linear with its scheme, or plain. */
#include <string.h>

#include "base/log.h"
#include "calib/outside.h"

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

static void fill_activation(qz_act_scheme *out, const qz_recipe_activations *a, const qz_container *container)
{
    *out = (qz_act_scheme){.mode = a->mode,
                           .format = a->format,
                           .group = a->group,
                           .symmetric = a->symmetric,
                           .divisor = container->int8_divisor};
}

typedef struct planning {
    const qz_recipe *recipe;
    const qz_container *container;
    const qz_model *model;
    qz_dtype plain_type;
    qz_arena *arena;
} planning;

/* Servers widen or narrow scales to the type they run in: in bf16 the scale must be a bf16 number to survive. The
 * container may ask for more. */
static void fill_scheme(qz_export_linear *l, const qz_recipe_weights *weights, const planning *p)
{
    l->scheme = qz_weights_scheme(weights, p->plain_type == QZ_BF16 ? QZ_BF16 : QZ_F16);
    l->ordered = qz_weights_ordered(weights);
    if (p->container->settle) p->container->settle(l, p->plain_type);
}

static qz_status fill_linear(qz_export_linear *l, const planning *p, int layer, int number)
{
    const qz_linear_place *place = qz_model_linear(p->model, layer, number);
    const qz_recipe_weights *weights;
    const qz_recipe_activations *activations;
    *l = (qz_export_linear){.module = qz_model_linear_name(p->model, layer, number),
                            .n = place->n,
                            .k = place->k,
                            .has_bias = place->has_bias,
                            .fused = fused_number(place),
                            .layer = layer};
    l->quantized = qz_recipe_module(p->recipe, l->module, &weights, &activations);
    fill_activation(&l->activation, activations, p->container);
    fill_scheme(l, weights, p);
    if (l->fused < 0) return QZ_OK;
    l->fused_as = fused_name(l->module, place->role, p->arena);
    return l->fused_as ? QZ_OK : qz_arena_failed(p->arena);
}

/* Rounding twice is worse than once, and what the first rounding lost cannot come back: allowed, but told. */
static void warn_of_source(const qz_ckpt *source)
{
    const qz_container *container = qz_ckpt_container(source);
    if (container->holds)
        qz_warn("%s is quantized already (container \"%s\"): what its codes stand for is quantized again; the original "
                "model gives better results",
                qz_ckpt_folder(source), container->plugin.name);
}

/* Of the head or the embeddings: inputs of the head stay as they are, since servers differ in whether they round them.
 */
static void fill_end(qz_export_linear *l, const planning *p, const qz_outside *outside)
{
    const qz_model_config *c = qz_model_config_of(p->model);
    *l = (qz_export_linear){.module = outside->module,
                            .n = c->vocabulary,
                            .k = c->hidden,
                            .fused = -1,
                            .layer = -1,
                            .quantized = outside->quantized,
                            .embedding = outside->end == QZ_END_EMBEDDING};
    fill_scheme(l, outside->weights, p);
}

static qz_status fill_plan(qz_export_plan *out, const planning *p)
{
    const qz_model_config *config = qz_model_config_of(p->model);
    const int layers = (int)config->layers;
    qz_outside outside[QZ_ENDS];
    int ends;
    QZ_TRY(qz_outside_find(outside, &ends, p->recipe, p->model));
    size_t *first = qz_arena_array(p->arena, size_t, (size_t)layers + 1);
    const char **attention = qz_arena_array(p->arena, const char *, (size_t)layers);
    const char **router = qz_arena_array(p->arena, const char *, (size_t)layers);
    size_t routers = 0;
    if (!first || !attention || !router) return qz_arena_failed(p->arena);
    first[0] = 0;
    for (int i = 0; i < layers; i++) {
        first[i + 1] = first[i] + (size_t)qz_model_linears(p->model, i);
        attention[i] = qz_model_attention_name(p->model, i);
        if (qz_model_router_name(p->model, i)) router[routers++] = qz_model_router_name(p->model, i);
    }
    qz_export_linear *linear = qz_arena_array(p->arena, qz_export_linear, first[layers] + QZ_ENDS);
    if (!linear) return qz_arena_failed(p->arena);
    for (int i = 0; i < layers; i++)
        for (int j = 0; j < qz_model_linears(p->model, i); j++)
            QZ_TRY(fill_linear(&linear[first[i] + (size_t)j], p, i, j));
    for (int i = 0; i < ends; i++) fill_end(&linear[first[layers] + (size_t)i], p, &outside[i]);
    *out = (qz_export_plan){.linear = linear,
                            .linears = first[layers] + (size_t)ends,
                            .first = first,
                            .plain_type = p->plain_type,
                            .kv = p->recipe->kv_cache.scheme,
                            .attention = attention,
                            .layers = layers,
                            .kv_heads = config->kv_heads,
                            .router = router,
                            .routers = routers};
    return QZ_OK;
}

qz_status qz_calib_export_plan(qz_export_plan *out, const qz_recipe *recipe, const qz_model *model, qz_arena *arena)
{
    const qz_container *container = qz_container_at((size_t)recipe->output_as.container.index);
    const planning p = {recipe, container, model, plain_type_of(recipe, container, model), arena};
    warn_of_source(qz_model_ckpt(model));
    if (!container->can_express)
        return QZ_FAIL(QZ_ARG, "export.container: \"%s\" can be read but not written", container->plugin.name);
    QZ_TRY(fill_plan(out, &p));
    qz_outside_warn_unmatched(recipe, model);
    if (container->can_express(out) != QZ_OK)
        return qz_error_context(QZ_ARG, "container \"%s\" cannot hold this", container->plugin.name);
    return QZ_OK;
}
