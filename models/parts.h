/* A model from the inside; shared by the files of models/, and nothing outside includes it. */
#ifndef QZ_MODELS_PARTS_H
#define QZ_MODELS_PARTS_H

#include "models/models.h"
#include "models/rope.h"

typedef struct qz_layer_names {
    const char **linear; /* [linears] modules */
    const char *attention;
    const char *norm[QZ_NORMS];           /* NULL: none */
    const char *q_norm, *k_norm, *router; /* NULL: none */
} qz_layer_names;

/* What a layer is made of; layers with and without a router differ. */
typedef struct qz_layer_form {
    int experts, linears;
    bool routed;
    qz_linear_place *place; /* [linears] */
} qz_layer_form;

struct qz_model {
    const qz_ckpt *ckpt;
    const qz_backend *backend;
    const qz_family *family;
    qz_model_config config;
    qz_arena *arena;
    qz_layer_form form[2]; /* without a router, with one */
    qz_layer_names *names; /* (layers) */
    const char **plain;    /* (plains) */
    size_t plains;
    qz_tensor embedding, head; /* (V, C) as stored; the same when tied */
    float *final_norm;         /* (C) */
    float *inv_freq;           /* (D/2) */
    qz_tap tap;
};

qz_status qz_model_form_layers(qz_model *m);
const qz_layer_form *qz_model_form(const qz_model *m, int layer);
/* Fills names from the family's table. */
QZ_NODISCARD qz_status qz_model_name_layers(qz_model *m);
/* Every needed tensor is there with its shape and a plain type; no other is. Fills plain. */
QZ_NODISCARD qz_status qz_model_check_tensors(qz_model *m, const char *const *pass_through);

#endif
