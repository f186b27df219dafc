/* A model from the inside; shared by the files of models/, and nothing outside includes it. */
#ifndef QZ_MODELS_PARTS_H
#define QZ_MODELS_PARTS_H

#include "models/models.h"
#include "models/rope.h"

typedef struct qz_layer_names {
    const char **linear;                   /* [linears] modules */
    const char *attention, *router_module; /* the second NULL: no router */
    const char *norm[QZ_NORMS];            /* NULL: none */
    const char *q_norm, *k_norm, *router;  /* NULL: none */
} qz_layer_names;

/* What a layer is made of; layers with and without a router differ. */
typedef struct qz_layer_form {
    int experts, linears;
    bool routed;
    qz_linear_place *place; /* [linears] */
} qz_layer_form;

/* A table that is stored quantized. Read when it is first used: a folder that is being written may lack it. */
typedef struct qz_codes {
    bool read;
    qz_qtensor q; /* (V, C) */
} qz_codes;

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
    const char *table[QZ_ENDS]; /* modules; NULL: none of its own */
    qz_tensor embedding, head;  /* (V, C) as stored; the same when tied */
    qz_codes *codes[QZ_ENDS];   /* of a table that is stored quantized, in place of the above; NULL: plain */
    float *final_norm;          /* (C) */
    float *inv_freq;            /* (rotated channels / 2) */
    float *far_inv_freq;        /* the same for sequences beyond the original context; NULL: no other */
    qz_tap tap;
};

/* Parts of the decoder (decoder.c). */
QZ_NODISCARD qz_status qz_matrix_new(qz_tensor *out, int64_t rows, int64_t cols, qz_arena *arena);
QZ_NODISCARD qz_status qz_tap_call(const qz_model *m, const qz_layer *layer, int input, qz_point point,
                                   const qz_tensor *x);
/* y (T, N) = x (T, K) through the rows of a role, or y += that. */
QZ_NODISCARD qz_status qz_role_apply(const qz_model *m, const qz_layer *layer, qz_role role, int expert,
                                     const qz_tensor *y, const qz_tensor *x, bool accumulate);
/* y = norm of x; y may be x. */
QZ_NODISCARD qz_status qz_norm_apply(const qz_model *m, const qz_tensor *norm, const qz_tensor *y, const qz_tensor *x);
/* gate (T, F) = act(x through gate) * (x through up); up (T, F) is workspace. */
QZ_NODISCARD qz_status qz_gate_up_apply(const qz_model *m, const qz_layer *layer, int expert, const qz_tensor *gate,
                                        const qz_tensor *up, const qz_tensor *x);
/* carry (T, H * D) = attention of x (T, C) (attention.c), and the numbers of scratch that it takes. */
QZ_NODISCARD qz_status qz_attention_apply(const qz_model *m, const qz_layer *layer, qz_batch batch, const qz_tensor *x,
                                          const qz_tensor *carry, qz_arena *scratch);
/* Tables and positions: each token counts from the start of its document (`first` as in qz_tape_batch, NULL: from the
 * start of its sequence). */
QZ_NODISCARD qz_status qz_model_rotation(qz_rotation *r, const qz_model *m, qz_batch batch, const int32_t *first,
                                         qz_arena *arena);
float qz_model_attention_scale(const qz_model *m);
uint64_t qz_attention_numbers(const qz_model *m, qz_batch batch);
/* y (T, C) += what the experts make of x (T, C) (experts.c); `observe`: taps are called, y is left alone. */
QZ_NODISCARD qz_status qz_experts_apply(const qz_model *m, const qz_layer *layer, const qz_tensor *x,
                                        const qz_tensor *y, bool observe, qz_arena *scratch);
uint64_t qz_experts_numbers(const qz_model *m, int64_t tokens);

QZ_NODISCARD qz_status qz_model_form_layers(qz_model *m);
const qz_layer_form *qz_model_form(const qz_model *m, int layer);
/* The codes of a table that is stored quantized. */
QZ_NODISCARD qz_status qz_model_codes(const qz_model *m, qz_end end, const qz_qtensor **out);
/* Fills names from the family's table. */
QZ_NODISCARD qz_status qz_model_name_layers(qz_model *m);
/* Every needed tensor is there with its shape and a plain type; no other is. Fills plain. */
QZ_NODISCARD qz_status qz_model_check_tensors(qz_model *m, const char *const *pass_through);

#endif
