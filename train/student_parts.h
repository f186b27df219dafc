/* A student from the inside; shared by student*.c. */
#ifndef QZ_TRAIN_STUDENT_PARTS_H
#define QZ_TRAIN_STUDENT_PARTS_H

#include "train/student.h"

/* What a step makes of a linear: the rounded values, on the outer tape, and where their gradient is summed. */
typedef struct qz_student_step {
    qz_var *rounded; /* NULL: not rounded in this step */
    qz_tensor grad;
} qz_student_step;

struct qz_student {
    const qz_model *m;
    qz_student_rule rule;
    qz_student_adapters adapters;
    qz_arena *arena;
    qz_parameters parameters;
    qz_tape *outer;
    int linears;
    int *first; /* [layers] number of a layer's first linear */
    qz_student_linear *linear;
    qz_student_step *step;
    qz_packed *window;   /* [linears * QZ_ROLES] a role's rows of frozen weights */
    qz_qtensor *grid;    /* [linears * QZ_ROLES] the same of the grids that merge-aware training fits */
    qz_parameter *plain; /* embeddings, norms, head; in `parameters` when they are trained */
    int plains;
    uint64_t bytes;
    bool round;
    /* of the forward pass under way */
    uint64_t number;
    qz_role role;
};

/* Scales and zeros without codes. */
QZ_NODISCARD qz_status qz_student_grid_alloc(qz_student *s, qz_qtensor *q, const qz_scheme *scheme, int64_t n,
                                             int64_t k);
/* weight += factor B A */
QZ_NODISCARD qz_status qz_student_add_adapter(const qz_student *s, const qz_student_linear *l, const qz_tensor *weight);

#endif
