/* The weights of one decoder layer: mapped tensors, plain or quantized -> fp32 in an arena. */
#include <stdio.h>

#include "models/parts.h"

/* What alignment can add to one allocation. */
enum { PADDING = 64 };

static qz_status read_vector(const qz_model *m, const char *name, int64_t count, qz_tensor *out, qz_arena *arena)
{
    float *data = qz_arena_array(arena, float, (size_t)count);
    if (!data) return qz_arena_failed(arena);
    *out = qz_tensor_1d(data, QZ_F32, count);
    return qz_ckpt_read_plain(m->ckpt, name, 1, &count, data);
}

static qz_status make_linears(const qz_model *m, qz_layer *out, qz_arena *arena)
{
    const qz_layer_form *form = qz_model_form(m, out->index);
    out->linears = form->linears;
    out->experts = form->experts;
    out->linear = qz_arena_array(arena, qz_linear, (size_t)form->linears);
    out->part = qz_arena_array(arena, qz_linear, (size_t)(QZ_ROLE_GATE + 3 * form->experts));
    if (!out->linear || !out->part) return qz_arena_failed(arena);
    for (int i = 0; i < form->linears; i++) {
        const qz_linear_place *p = &form->place[i];
        out->linear[i] = (qz_linear){.module = m->names[out->index].linear[i],
                                     .role = p->role,
                                     .expert = p->expert,
                                     .input = p->input,
                                     .weight = qz_tensor_2d(NULL, QZ_F32, p->n, p->k)};
    }
    return QZ_OK;
}

static int64_t rows_of(const qz_model_config *c, const qz_linear_place *p, qz_role role)
{
    if (p->roles == 1) return p->n;
    return role == QZ_ROLE_Q ? c->heads * c->head_dim : role < QZ_ROLE_O ? c->kv_heads * c->head_dim : p->n / p->roles;
}

int qz_model_role_rows(const qz_model *m, int layer, qz_role role, int64_t *first, int64_t *rows)
{
    int i = 0;
    const qz_linear_place *p = qz_model_linear(m, layer, 0);
    while ((int)role >= (int)p->role + p->roles) p = qz_model_linear(m, layer, ++i);
    *first = 0;
    for (int r = (int)p->role; r < (int)role; r++) *first += rows_of(&m->config, p, (qz_role)r);
    *rows = rows_of(&m->config, p, role);
    return i;
}

/* The rows of each role, once the linears have their values. */
static void make_parts(const qz_model *m, qz_layer *layer)
{
    for (int i = 0; i < layer->linears; i++) {
        const qz_linear *l = &layer->linear[i];
        const qz_linear_place *p = qz_model_linear(m, layer->index, i);
        int64_t row = 0;
        for (int r = 0; r < p->roles; r++) {
            const qz_role role = (qz_role)((int)p->role + r);
            const int64_t rows = rows_of(&m->config, p, role);
            qz_linear *part = qz_layer_part(layer, role, p->expert);
            *part = *l;
            part->role = role;
            part->module = NULL;
            part->weight = qz_tensor_rows(&l->weight, row, rows);
            if (l->bias.data) part->bias = qz_tensor_rows(&l->bias, row, rows);
            row += rows;
        }
    }
}

static qz_status read_router(const qz_model *m, qz_layer *out, qz_arena *arena)
{
    const int64_t shape[2] = {m->config.experts, m->config.hidden};
    out->router_name = m->names[out->index].router;
    if (!out->router_name) return QZ_OK;
    float *data = qz_arena_array(arena, float, (size_t)(shape[0] * shape[1]));
    if (!data) return qz_arena_failed(arena);
    out->router = qz_tensor_2d(data, QZ_F32, shape[0], shape[1]);
    return qz_ckpt_read_plain(m->ckpt, out->router_name, 2, shape, data);
}

qz_status qz_model_layer_norms(const qz_model *m, int index, qz_layer *out, qz_arena *arena)
{
    const qz_model_config *c = &m->config;
    const qz_layer_names *names = &m->names[index];
    *out = (qz_layer){.index = index, .norm_offset = c->norm_offset};
    for (int j = 0; j < QZ_NORMS; j++) {
        out->norm_name[j] = names->norm[j];
        if (names->norm[j]) QZ_TRY(read_vector(m, names->norm[j], c->hidden, &out->norm[j], arena));
    }
    QZ_TRY(make_linears(m, out, arena));
    QZ_TRY(read_router(m, out, arena));
    if (!c->qk_norm) return QZ_OK;
    QZ_TRY(read_vector(m, names->q_norm, c->head_dim, &out->q_norm, arena));
    return read_vector(m, names->k_norm, c->head_dim, &out->k_norm, arena);
}

static qz_status read_linear(const qz_model *m, qz_linear *l, bool has_bias, qz_arena *arena)
{
    char name[512];
    int64_t n = l->weight.shape[0], k = l->weight.shape[1];
    if (has_bias) {
        snprintf(name, sizeof name, "%s.bias", l->module);
        QZ_TRY(read_vector(m, name, n, &l->bias, arena));
    }
    l->weight.data = qz_arena_array(arena, float, (size_t)(n * k));
    if (!l->weight.data) return qz_arena_failed(arena);
    qz_arena_mark mark = qz_arena_save(arena);
    QZ_TRY(qz_ckpt_read_weight(m->ckpt, l->module, n, k, qz_f32(&l->weight), arena));
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

qz_status qz_model_layer(const qz_model *m, int index, qz_layer *out, qz_arena *arena)
{
    QZ_TRY(qz_model_layer_norms(m, index, out, arena));
    for (int i = 0; i < out->linears; i++)
        QZ_TRY(read_linear(m, &out->linear[i], qz_model_linear(m, index, i)->has_bias, arena));
    make_parts(m, out);
    return QZ_OK;
}

static uint64_t form_bytes(const qz_model_config *c, const qz_layer_form *f)
{
    const uint64_t parts = (uint64_t)(QZ_ROLE_GATE + 3 * f->experts);
    uint64_t norms = c->norms_after ? QZ_NORMS : 2, allocations = norms + 5;
    uint64_t numbers = norms * (uint64_t)c->hidden + 2 * (uint64_t)c->head_dim;
    if (f->routed) numbers += (uint64_t)(c->experts * c->hidden);
    for (int i = 0; i < f->linears; i++) {
        numbers += (uint64_t)(f->place[i].n * f->place[i].k) + (f->place[i].has_bias ? (uint64_t)f->place[i].n : 0);
        allocations += 2;
    }
    return numbers * sizeof(float) + (parts + (uint64_t)f->linears) * sizeof(qz_linear) + allocations * PADDING;
}

uint64_t qz_model_layer_bytes(const qz_model *m)
{
    uint64_t most = 0;
    for (int i = 0; i < (int)m->config.layers; i++) {
        const uint64_t bytes = form_bytes(&m->config, qz_model_form(m, i));
        if (bytes > most) most = bytes;
    }
    return most;
}
