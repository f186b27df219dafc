/* What a layer is made of: the family's table and the config -> its linears, with roles, experts, inputs and shapes.
 * There are at most two forms of layer in a model: without a router and with one. */
#include <string.h>

#include "models/parts.h"

static int64_t outputs_of(const qz_model_config *c, qz_role role, bool routed)
{
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, ffn = routed ? c->expert_ffn : c->ffn;
    const int64_t outputs[QZ_ROLES] = {q, kv, kv, c->hidden, ffn, ffn, c->hidden};
    return outputs[role];
}

static int64_t width_of(const qz_model_config *c, qz_stage stage, bool routed)
{
    const int64_t width[QZ_STAGES] = {c->hidden, c->heads * c->head_dim, c->hidden, routed ? c->expert_ffn : c->ffn};
    return width[stage];
}

static bool has_bias(const qz_model_config *c, qz_role role)
{
    const qz_stage stage = qz_role_stage(role);
    return stage == QZ_STAGE_QKV ? c->qkv_bias : stage == QZ_STAGE_O ? c->o_bias : c->mlp_bias;
}

/* A role that the family's table has no name for is further rows of the linear before it. */
static void add_role(qz_layer_form *f, const qz_model_config *c, const char *name, qz_role role, int expert)
{
    const int64_t n = outputs_of(c, role, f->routed);
    if (!name) {
        f->place[f->linears - 1].roles++;
        f->place[f->linears - 1].n += n;
        return;
    }
    const qz_stage stage = qz_role_stage(role);
    f->place[f->linears++] = (qz_linear_place){.role = role,
                                               .roles = 1,
                                               .expert = expert,
                                               .input = qz_input_of(stage, expert),
                                               .n = n,
                                               .k = width_of(c, stage, f->routed),
                                               .has_bias = has_bias(c, role)};
}

static qz_status make_form(qz_layer_form *f, const qz_model *m, bool routed)
{
    const qz_model_config *c = &m->config;
    const qz_tensor_names *names = m->family->names;
    *f = (qz_layer_form){.experts = routed ? (int)c->experts : 1, .routed = routed};
    f->place = qz_arena_array(m->arena, qz_linear_place, (size_t)(QZ_ROLE_GATE + 3 * f->experts));
    if (!f->place) return qz_arena_failed(m->arena);
    for (int role = 0; role < QZ_ROLE_GATE; role++) add_role(f, c, names->linear[role], (qz_role)role, 0);
    for (int e = 0; e < f->experts; e++)
        for (int i = 0; i < 3; i++) {
            const char *name = routed ? names->expert_linear[i] : names->linear[QZ_ROLE_GATE + i];
            add_role(f, c, name, (qz_role)(QZ_ROLE_GATE + i), e);
        }
    return QZ_OK;
}

qz_status qz_model_form_layers(qz_model *m)
{
    for (int64_t i = 0; i < m->config.layers; i++) {
        const bool routed = m->config.layer_routes[i];
        if (!m->form[routed].place) QZ_TRY(make_form(&m->form[routed], m, routed));
    }
    return QZ_OK;
}

const qz_layer_form *qz_model_form(const qz_model *m, int layer)
{
    return &m->form[m->config.layer_routes[layer]];
}

int qz_model_linears(const qz_model *m, int layer)
{
    return qz_model_form(m, layer)->linears;
}

const qz_linear_place *qz_model_linear(const qz_model *m, int layer, int linear)
{
    return &qz_model_form(m, layer)->place[linear];
}

const char *qz_model_linear_name(const qz_model *m, int layer, int linear)
{
    return m->names[layer].linear[linear];
}

const char *qz_model_attention_name(const qz_model *m, int layer)
{
    return m->names[layer].attention;
}

const char *qz_model_router_name(const qz_model *m, int layer)
{
    return m->names[layer].router_module;
}

int qz_model_inputs(const qz_model *m, int layer)
{
    return QZ_STAGE_GATE_UP + 2 * qz_model_form(m, layer)->experts;
}

int64_t qz_model_input_width(const qz_model *m, int layer, int input)
{
    return width_of(&m->config, qz_input_stage(input), qz_model_form(m, layer)->routed);
}
