/* What is trained: named fp32 values, each with the sum of its gradients.
 *
 * The list's order is fixed by the model and the recipe, so everything that walks it (optimizer, state file, gradient
 * norm) is reproducible. Values are master copies in fp32; what the model multiplies by may be a rounded one. */
#ifndef QZ_TRAIN_PARAMETERS_H
#define QZ_TRAIN_PARAMETERS_H

#include "numeric/tensor.h"

/* What parameters have in common: decay and a factor on the learning rate. */
typedef enum qz_parameter_group {
    QZ_PARAMETER_MATRIX,  /* weights of linears, embedding, head: decayed */
    QZ_PARAMETER_NORM,    /* norms and biases: not decayed */
    QZ_PARAMETER_SCALE,   /* learned scales: not decayed, a rate of their own */
    QZ_PARAMETER_OFFSET,  /* learned zero points, in codes: as scales */
    QZ_PARAMETER_ADAPTER, /* A and B of LoRA */
    QZ_PARAMETER_GROUPS
} qz_parameter_group;

typedef struct qz_parameter {
    const char *name; /* "model.layers.3.mlp.up_proj.weight"; adapters as PEFT names them; scales end in ".scale" */
    qz_parameter_group group;
    qz_tensor value, grad; /* F32, dense, one shape */
} qz_parameter;

typedef struct qz_parameters {
    qz_parameter *list; /* [count] */
    int count, room;
    bool dry; /* shapes only: data is NULL */
} qz_parameters;

/* Room for `room` parameters, in `arena`. */
QZ_NODISCARD qz_status qz_parameters_new(qz_parameters *p, int room, bool dry, qz_arena *arena);
/* Appends a parameter of the shape of `like` with a gradient of zeros; its value is uninitialised. `name` is copied. */
QZ_NODISCARD qz_status qz_parameters_add(qz_parameters *p, const char *name, qz_parameter_group group,
                                         const qz_tensor *like, qz_arena *arena);
/* NULL when there is none of that name. */
qz_parameter *qz_parameters_find(const qz_parameters *p, const char *name);
void qz_parameters_zero_gradients(const qz_parameters *p);
/* Numbers in all of them. */
int64_t qz_parameters_numbers(const qz_parameters *p);

#endif
