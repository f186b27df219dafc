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

qz_status qz_model_layer_norms(const qz_model *m, int index, qz_layer *out, qz_arena *arena)
{
    const qz_model_config *c = &m->config;
    const qz_layer_names *names = &m->names[index];
    *out = (qz_layer){.index = index};
    for (int j = 0; j < 2; j++) {
        out->norm_name[j] = names->norm[j];
        QZ_TRY(read_vector(m, names->norm[j], c->hidden, &out->norm[j], arena));
    }
    for (int r = 0; r < QZ_ROLES; r++) {
        qz_linear *l = &out->linear[r];
        int64_t n, k;
        qz_model_linear_shape(m, (qz_role)r, &n, &k);
        *l = (qz_linear){.module = names->linear[r], .role = (qz_role)r, .weight = qz_tensor_2d(NULL, QZ_F32, n, k)};
    }
    if (!c->qk_norm) return QZ_OK;
    QZ_TRY(read_vector(m, names->q_norm, c->head_dim, &out->q_norm, arena));
    return read_vector(m, names->k_norm, c->head_dim, &out->k_norm, arena);
}

static qz_status read_linear(const qz_model *m, qz_linear *l, qz_arena *arena)
{
    char name[512];
    int64_t n = l->weight.shape[0], k = l->weight.shape[1];
    if (qz_model_linear_has_bias(m, l->role)) {
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
    for (int r = 0; r < QZ_ROLES; r++) QZ_TRY(read_linear(m, &out->linear[r], arena));
    return QZ_OK;
}

uint64_t qz_model_layer_bytes(const qz_model *m)
{
    const qz_model_config *c = &m->config;
    uint64_t numbers = 2 * (uint64_t)(c->hidden + c->head_dim), allocations = 4;
    for (int r = 0; r < QZ_ROLES; r++) {
        int64_t n, k;
        qz_model_linear_shape(m, (qz_role)r, &n, &k);
        numbers += (uint64_t)(n * k) + (qz_model_linear_has_bias(m, (qz_role)r) ? (uint64_t)n : 0);
        allocations += 2;
    }
    return numbers * sizeof(float) + allocations * PADDING;
}
