/* A student from the inside; shared by student*.c. */
#ifndef QZ_TRAIN_STUDENT_PARTS_H
#define QZ_TRAIN_STUDENT_PARTS_H

#include "train/student.h"

/* What a step makes of a linear: the rounded values, on the outer tape, and where their gradient is summed. */
typedef struct qz_student_step {
    qz_var *rounded; /* NULL: not rounded in this step */
    qz_tensor grad;
} qz_student_step;

/* Extremes of a static input, and what its scale started with; a row of the state file. */
typedef struct qz_student_range {
    float low, high;     /* averages; NaN: nothing was seen */
    float zero, started; /* of a learned scale: its zero point, and 1 once it has begun */
} qz_student_range;

/* The codes of a format in the order of their values. */
typedef struct qz_code_order {
    uint8_t place[256]; /* of a code */
    uint8_t code[256];  /* [count] of a place */
    int count;
} qz_code_order;

/* What is remembered of the codes of a rounded weight: student_watch.c. */
typedef struct qz_student_watch {
    bool watched;
    uint8_t *rank;               /* (N K) places of the codes of the step before */
    uint8_t *course;             /* (N K) where the last change went, and whether it is frozen */
    uint16_t *frequency, *ahead; /* (N K) F16, only with freezing: averages of oscillations, and of places */
    float *start;                /* [pieces] scales of the first step */
    qz_code_order order;
    qz_student_health health;
} qz_student_watch;

/* Beginnings: 0, not yet. */
enum {
    QZ_STUDENT_BEGUN,   /* a step was rounded: scales that are not fitted have started */
    QZ_STUDENT_WATCHED, /* codes are remembered */
    QZ_STUDENT_MARKS
};

/* One input of a layer's linears. */
typedef struct qz_student_input {
    qz_act_scheme scheme; /* mode NONE: it stays as it is */
    const char *module;   /* the first linear that reads it */
    qz_student_range *range;
    qz_parameter *scale; /* NULL: not learned */
    double scale_grad;   /* of the step under way */
    bool given;          /* `values` hold, whatever was seen */
    qz_act_values values;
} qz_student_input;

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
    bool round, adapt;
    /* what is rounded between the weights: student_points.c; NULL: nothing */
    int inputs;              /* of a layer, at most */
    qz_student_input *input; /* [layers * inputs] */
    qz_student_range *range; /* [layers * inputs] */
    float *cache;            /* [layers * 2 * kv_heads] averages of the largest magnitudes; NULL: it is not rounded */
    float *cache_scale;      /* [kv_heads] */
    bool cache_given;        /* `cache` holds scales, whatever was seen */
    int64_t marks[QZ_STUDENT_MARKS];
    qz_student_watch *watch; /* [linears]; NULL: codes are not followed */
    double *oscillation;     /* [linears] moving average of the share that oscillates */
    qz_state_tensor *tensor; /* [tensors] */
    int tensors;
    bool learning;  /* the step under way is one of training */
    bool observing; /* ... and this is its forward pass, for the first time */
    /* of the forward pass under way */
    uint64_t number;
    qz_role role;
    bool searching;    /* for values that are not finite */
    const char *found; /* the first linear that they enter */
};

/* A parameter with its gradient: the values are the caller's to fill in. */
QZ_NODISCARD qz_status qz_student_add_parameter(qz_student *s, qz_parameter **out, const char *name,
                                                qz_parameter_group group, const qz_tensor *like);
/* As many in the student's arena, counted in its bytes; NULL in a dry one. */
QZ_NODISCARD qz_status qz_student_numbers(qz_student *s, float **out, int64_t count);
/* Base and adapter of a frozen linear that together are close to its weight (student_loftq.c). */
QZ_NODISCARD qz_status qz_student_start_loftq(qz_student *s, qz_student_linear *l, const qz_tensor *weight,
                                              qz_arena *scratch);
/* Codes of a frozen weight, as bitsandbytes and others would make them; in `scratch`. */
QZ_NODISCARD qz_status qz_student_round_base(const qz_student *s, qz_qtensor *out, const qz_tensor *weight,
                                             const qz_scheme *scheme, qz_arena *scratch);

/* Is what is not rounded narrowed for the checkpoint? */
bool qz_student_narrows(const qz_student *s);

/* ---- student_grid.c ---- */

/* Of a linear that is rounded; the others stay without one. */
QZ_NODISCARD qz_status qz_student_add_grid(qz_student *s, qz_student_linear *l, qz_arena *scratch);
/* Servers keep one scale for a fused set of fp8 matrices, and would round the other parts again: the largest. */
bool qz_student_shares_scale(const qz_student_linear *l);
/* Scales and zeros of q from the extremes of `weight`, or of the linear's whole fused set as it is now. */
QZ_NODISCARD qz_status qz_student_fit(const qz_student *s, const qz_student_linear *l, qz_qtensor *q,
                                      const qz_tensor *weight);
/* Learned scales and offsets become those of the grid. */
void qz_student_start_scales(const qz_student_linear *l);

/* ---- student_adapter.c ---- */

bool qz_student_is_adapted(const qz_student *s, const char *module);
/* A and B of linear `index`, if it is one of the targets: B zero, so that the model is still what it was. */
QZ_NODISCARD qz_status qz_student_add_factors(qz_student *s, qz_student_linear *l, int index);
/* weight += factor B A */
QZ_NODISCARD qz_status qz_student_add_adapter(const qz_student *s, const qz_student_linear *l, const qz_tensor *weight,
                                              float factor);

/* ---- student_points.c ---- */

QZ_NODISCARD qz_status qz_student_add_points(qz_student *s);
/* qz_tape_weights.point, whose context is the student. */
QZ_NODISCARD qz_status qz_student_point(void *context, qz_tape *t, int layer, int input, qz_point point, qz_var **x);
/* Gradients of learned scales, summed up over the micro-batches. */
void qz_student_points_end(qz_student *s);

/* ---- student_watch.c ---- */

QZ_NODISCARD qz_status qz_student_add_watches(qz_student *s);
/* The weights of a step were rounded: follows their codes when it is one of training, and puts the values of those that
 * are frozen into `rounded`. */
void qz_student_look(qz_student *s, int i, const qz_tensor *rounded);
void qz_student_hold_codes(const qz_student *s, int i, qz_qtensor *q);
/* Before the outer tape goes back: gradients of what is frozen go to scales and offsets, not to weights. */
void qz_student_hold_gradients(qz_student *s);

/* ---- student_state.c ---- */

QZ_NODISCARD qz_status qz_student_add_tensors(qz_student *s);

#endif
