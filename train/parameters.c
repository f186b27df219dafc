/* The list of what is trained. */
#include "train/parameters.h"

#include <assert.h>
#include <string.h>

qz_status qz_parameters_new(qz_parameters *p, int room, bool dry, qz_arena *arena)
{
    *p = (qz_parameters){.list = qz_arena_array(arena, qz_parameter, (size_t)room), .room = room, .dry = dry};
    return p->list ? QZ_OK : qz_arena_failed(arena);
}

static qz_status dense_like(qz_tensor *out, const qz_tensor *like, bool dry, qz_arena *arena)
{
    *out = *like;
    out->dtype = QZ_F32;
    out->device = QZ_HOST;
    int64_t stride = 1;
    for (int i = like->ndim; i-- > 0; stride *= like->shape[i]) out->stride[i] = stride;
    out->data = dry ? NULL : qz_arena_array(arena, float, (size_t)qz_tensor_count(like));
    return out->data || dry ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_parameters_add(qz_parameters *p, const char *name, qz_parameter_group group, const qz_tensor *like,
                            qz_arena *arena)
{
    assert(p->count < p->room);
    qz_parameter *q = &p->list[p->count];
    q->name = qz_arena_strdup(arena, name);
    q->group = group;
    if (!q->name) return qz_arena_failed(arena);
    QZ_TRY(dense_like(&q->value, like, p->dry, arena));
    QZ_TRY(dense_like(&q->grad, like, p->dry, arena));
    if (!p->dry) memset(q->grad.data, 0, (size_t)qz_tensor_count(like) * sizeof(float));
    p->count++;
    return QZ_OK;
}

qz_parameter *qz_parameters_find(const qz_parameters *p, const char *name)
{
    for (int i = 0; i < p->count; i++) {
        if (strcmp(p->list[i].name, name) == 0) return &p->list[i];
    }
    return NULL;
}

void qz_parameters_zero_gradients(const qz_parameters *p)
{
    for (int i = 0; i < p->count; i++)
        memset(p->list[i].grad.data, 0, (size_t)qz_tensor_count(&p->list[i].grad) * sizeof(float));
}

int64_t qz_parameters_numbers(const qz_parameters *p)
{
    int64_t numbers = 0;
    for (int i = 0; i < p->count; i++) numbers += qz_tensor_count(&p->list[i].value);
    return numbers;
}
