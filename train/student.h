/* The model that is trained: its weights as parameters (or frozen), what is rounded, and adapters; handed to a tape as
 * the forward pass asks for them.
 *
 * A linear is one of
 *     trained      its fp32 values are a parameter
 *     frozen       its values stay as they are stored, or packed in a format of the recipe's
 * each with or without an adapter beside it (LoRA: y = x W^T + s (x A^T) B^T), and with or without rounding. The
 * rounded values of trained linears are made once a step (qz_student_begin_step), whatever the number of micro-batches:
 * these add to the gradient of the rounded weight, which goes back through the rounding once (qz_student_end_step). */
#ifndef QZ_TRAIN_STUDENT_H
#define QZ_TRAIN_STUDENT_H

#include "models/models.h"
#include "train/parameters.h"
#include "train/state.h"

/* How weights are rounded. */
typedef struct qz_student_rounding {
    bool fit;               /* scales from the extremes of each piece, anew in every step */
    bool learn_scales;      /* LSQ: scales are parameters */
    bool learn_offsets;     /* LSQ+: zero points of asymmetric schemes too */
    bool learn_activations; /* static scales of inputs are parameters; else moving averages of the extremes */
    bool start_from_grid;   /* scales start from those that the model's folder is quantized with */
    bool watch;             /* codes are followed, for qz_student_health_of */
    double freeze;          /* frequency of oscillation above which a weight is frozen; 0: none */
    qz_ste rule;
} qz_student_rounding;

typedef struct qz_student_adapters {
    int64_t rank;
    float factor; /* alpha / rank, or alpha / sqrt(rank) */
    float dropout;
    uint64_t seed;
    bool merge_aware; /* W + factor B A is what is rounded */
    /* Does the linear have one? */
    bool (*wanted)(void *context, const char *module);
    void *context;
    const qz_scheme *base; /* of the frozen weights; NULL: as they are stored */
    /* Does a linear's weight stay as it is stored all the same? NULL: none does. */
    bool (*base_skips)(void *context, const char *module);
    int64_t loftq; /* times that base and adapter are fitted in turn to the weight; 0: B starts at zero */
} qz_student_adapters;

typedef struct qz_student_rule {
    bool train_weights;         /* all weights are parameters; else they are frozen */
    const qz_export_plan *plan; /* which linears are rounded, and how; NULL: none */
    qz_student_rounding rounding;
    /* F16 or BF16: the checkpoint will hold in it what is not rounded, and so evaluations see it (others: as it is); of
     * a container without codes the values of rounded weights too. */
    qz_dtype plain_type;
    bool plain_values;
    const qz_student_adapters *adapters; /* NULL: none */
    bool recompute;
    bool random; /* start from random weights instead of the folder's */
    uint64_t seed;
    bool dry; /* shapes only, for the plan */
} qz_student_rule;

typedef struct qz_student qz_student;

/* Reads the weights. `m` must outlive it. */
QZ_NODISCARD qz_status qz_student_new(qz_student **out, const qz_model *m, const qz_student_rule *rule);
void qz_student_free(qz_student *s);
qz_parameters *qz_student_parameters(qz_student *s);
const qz_model *qz_student_model(const qz_student *s);
/* Bytes that it holds: parameters with their gradients, frozen weights, and what steps rounded so far. */
uint64_t qz_student_bytes(const qz_student *s);

/* Rounding is on or off (a delayed start); on to begin with. */
void qz_student_round(qz_student *s, bool on);
/* Adapters count or not, so that the base can be judged alone; they do to begin with. */
void qz_student_adapt(qz_student *s, bool on);

/* Rounds the trained weights, for all micro-batches of a step. `learning`: averages go on with the batches of this
 * step; else it is an evaluation, and nothing that the student remembers changes. */
QZ_NODISCARD qz_status qz_student_begin_step(qz_student *s, bool learning);
/* No drop-out. */
#define QZ_STUDENT_JUDGED UINT64_MAX
/* A forward pass on `t`; `number` tells the drop-outs of one micro-batch from those of every other, or is
 * QZ_STUDENT_JUDGED. */
QZ_NODISCARD qz_status qz_student_forward(qz_student *s, qz_tape *t, qz_tape_batch batch, uint64_t number,
                                          qz_var **hidden, qz_var **head, qz_arena *arena);
/* The gradients of the rounded weights -> those of weights and scales. */
QZ_NODISCARD qz_status qz_student_end_step(qz_student *s);

/* Forward passes look for values that are not finite; then the first linear that such values entered, NULL: none. */
void qz_student_search(qz_student *s, bool on);
const char *qz_student_found(const qz_student *s);

/* What belongs into a state file beside parameters and moments, as long as the student; and its bytes. */
const qz_state_tensor *qz_student_tensors(const qz_student *s, int *count);
uint64_t qz_student_tensor_bytes(const qz_student *s);

/* ---- one linear, for exports, merging and statistics ---- */

typedef struct qz_student_linear {
    const char *module;
    int layer, linear, input;
    int64_t n, k;
    const qz_export_linear *planned; /* NULL: no plan */
    qz_tensor weight, grad;          /* (N, K) F32; data NULL: frozen */
    qz_tensor bias, bias_grad;       /* (N); data NULL: none */
    const qz_packed *base;           /* of a frozen one */
    bool rounded;
    qz_qtensor q;                 /* grid of a rounded one; codes NULL until asked for */
    qz_parameter *scale, *offset; /* NULL: not learned */
    qz_parameter *a, *b;          /* (R, K), (N, R); NULL: no adapter */
} qz_student_linear;

int qz_student_linears(const qz_student *s);
const qz_student_linear *qz_student_linear_at(const qz_student *s, int i);
/* out (N, K) = the weight as it is used, before rounding: with `merged` the adapter's share is added. */
QZ_NODISCARD qz_status qz_student_weight(const qz_student *s, int i, bool merged, const qz_tensor *out);
/* Codes, scales and zeros that training sees for that weight, bit for bit; the linear must be rounded. */
QZ_NODISCARD qz_status qz_student_codes(const qz_student *s, int i, qz_qtensor *out, qz_arena *arena);
/* What the input of that linear is rounded with; zeros where that is not static. */
QZ_NODISCARD qz_status qz_student_activation(const qz_student *s, int i, qz_act_values *out);
/* Of the rounded weights in the last step of training; shares are 0 to 1. */
typedef struct qz_student_health {
    double flipped;     /* codes that are others than in the step before */
    double oscillation; /* mean frequency of changes against the direction of the change before */
    double scale_drift; /* mean of abs(s / s in the first step - 1) */
    double saturation;  /* weights beyond the grid */
    double frozen;
} qz_student_health;
/* False: it is not followed, or no step was rounded yet. */
bool qz_student_health_of(const qz_student *s, int i, qz_student_health *out);
/* Have all static scales of inputs and cache a value yet? Before the first batch averages have none. */
bool qz_student_has_ranges(const qz_student *s);
/* Scales of a layer's cache, (kv_heads) each, all equal unless they are per head. */
QZ_NODISCARD qz_status qz_student_kv(const qz_student *s, int layer, float *key, float *value);
/* What the two above are to give from now on: of a student that is judged and exported, not trained. The input must be
 * rounded with static scales, and the cache's scales are given for all layers or none. */
void qz_student_set_activation(qz_student *s, int i, qz_act_values values);
void qz_student_set_kv(qz_student *s, int layer, const float *key, const float *value);

#endif
