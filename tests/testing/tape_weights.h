/* The weights of a model folder as constants of a tape. */
#ifndef QZ_TESTING_TAPE_WEIGHTS_H
#define QZ_TESTING_TAPE_WEIGHTS_H

#include "models/models.h"
#include "testing/testing.h"

enum { TAPE_PLAINS = 64 };

typedef struct tape_plain {
    const char *name;
    qz_tensor value;
} tape_plain;

typedef struct tape_weights {
    const qz_model *m;
    qz_layer *layer; /* [layers] */
    tape_plain plain[TAPE_PLAINS];
    int plains;
} tape_weights;

static inline void tape_read_plains(tape_weights *w, qz_arena *arena)
{
    const char **names;
    size_t count;
    check_ok(qz_model_plain_names(w->m, &names, &count, arena));
    cr_assert(count <= TAPE_PLAINS);
    for (size_t i = 0; i < count; i++) {
        const qz_stored *stored = qz_ckpt_find(qz_model_ckpt(w->m), names[i]);
        tape_plain *p = &w->plain[w->plains++];
        *p = (tape_plain){names[i], stored->view};
        p->value.dtype = QZ_F32;
        p->value.data = qz_arena_alloc(arena, (size_t)qz_tensor_count(&p->value) * sizeof(float));
        check_ok(qz_ckpt_read_plain(qz_model_ckpt(w->m), names[i], p->value.ndim, p->value.shape, p->value.data));
    }
}

static inline tape_weights *tape_weights_new(const qz_model *m, qz_arena *arena)
{
    const int layers = (int)qz_model_config_of(m)->layers;
    tape_weights *w = qz_arena_calloc(arena, sizeof *w);
    w->m = m;
    w->layer = qz_arena_calloc(arena, (size_t)layers * sizeof *w->layer);
    for (int i = 0; i < layers; i++) check_ok(qz_model_layer(m, i, &w->layer[i], arena));
    tape_read_plains(w, arena);
    return w;
}

static inline qz_status tape_give_linear(void *context, qz_tape *t, int layer, qz_role role, qz_var *x,
                                         qz_var *residual, qz_var **y)
{
    const tape_weights *w = context;
    const qz_linear *part = qz_layer_part(&w->layer[layer], role, 0);
    qz_var *weight, *bias = NULL;
    QZ_TRY(qz_tape_leaf(&weight, t, &part->weight, NULL));
    if (part->bias.data) QZ_TRY(qz_tape_leaf(&bias, t, &part->bias, NULL));
    return qz_ag_linear(y, t, x, weight, bias, residual);
}

static inline qz_status tape_give_plain(void *context, qz_tape *t, const char *name, qz_var **v)
{
    const tape_weights *w = context;
    for (int i = 0; i < w->plains; i++) {
        if (strcmp(w->plain[i].name, name) == 0) return qz_tape_leaf(v, t, &w->plain[i].value, NULL);
    }
    return QZ_FAIL(QZ_ARG, "%s is not there", name);
}

#endif
