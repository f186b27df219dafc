/* Reverse-mode differentiation over the operations of kernels/: a tape of what was computed, and a rule for each
 * operation that turns the gradient of its result into those of its inputs (Griewank and Walther 2008, section 3.2).
 *
 *     qz_tape *t;
 *     QZ_TRY(qz_tape_new(&t, backend, false));
 *     QZ_TRY(qz_tape_leaf(&x, t, &xvalue, NULL));          // a constant
 *     QZ_TRY(qz_tape_leaf(&w, t, &wvalue, &wgrad));        // a parameter: wgrad += its gradient
 *     QZ_TRY(qz_ag_rmsnorm(&n, t, x, g, 1e-5f, 0));
 *     QZ_TRY(qz_ag_linear(&y, t, n, w, NULL, NULL));
 *     qz_var_release(t, n);                                // the forward pass needs it no more
 *     QZ_TRY(qz_tape_seed(t, y, &dy));                     // dy is added to the gradient of y
 *     QZ_TRY(qz_tape_backward(t));                         // every node, the last first; then the tape is empty
 *
 * Memory. Values come from a pool and count their users: the forward pass, until it releases a value, and every node
 * whose rule will read it. A value that is cheap to make again from what is kept anyway (norms, activations of the MLP,
 * rounded values, effective weights) is not kept: it is made again when a rule asks for it. During the backward pass a
 * value goes when the last rule that reads it has run, and a gradient when its node has. Gradients are fp32.
 *
 * A dry tape does all of that without data and without arithmetic: its peak is the plan's figure.
 *
 * Out-parameters first; variables live as long as the tape is not reset. */
#ifndef QZ_AUTOGRAD_AUTOGRAD_H
#define QZ_AUTOGRAD_AUTOGRAD_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "numeric/packed.h"

typedef struct qz_tape qz_tape;
typedef struct qz_var qz_var;

QZ_NODISCARD qz_status qz_tape_new(qz_tape **out, const qz_backend *backend, bool dry);
void qz_tape_free(qz_tape *t);
/* Forgets all variables and nodes; their buffers stay for the next step. */
void qz_tape_reset(qz_tape *t);
/* Between false and true nothing is recorded: values are there, gradients will not be. Tapes start with true. */
void qz_tape_record(qz_tape *t, bool on);
/* Keep values that are cheap to make again (more memory, less work). Tapes start with false. */
void qz_tape_keep_cheap(qz_tape *t, bool on);
/* Linear layers and the head round both factors of their products to BF16; sums stay fp32. Packed weights and the sum
 * of a low-rank weight are computed in fp32 all the same. Tapes start with false. */
void qz_tape_bf16(qz_tape *t, bool on);
bool qz_tape_is_dry(const qz_tape *t);
const qz_backend *qz_tape_backend(const qz_tape *t);
/* Bytes of buffers in use, and the most ever held. */
size_t qz_tape_used(const qz_tape *t);
size_t qz_tape_peak(const qz_tape *t);

/* A variable over the caller's memory. With `grad` (the same shape) its gradient is added there; NULL: a constant. */
QZ_NODISCARD qz_status qz_tape_leaf(qz_var **out, qz_tape *t, const qz_tensor *value, const qz_tensor *grad);
/* The value; its data is NULL on a dry tape, and once a value was released. */
const qz_tensor *qz_var_value(const qz_var *v);
/* The forward pass will not use it again. Leaves: nothing happens. NULL is allowed. */
void qz_var_release(qz_tape *t, qz_var *v);
/* The gradient, zero where nothing was added yet: to be added to before the backward pass. Not for constants. */
QZ_NODISCARD qz_status qz_var_gradient(qz_tape *t, qz_var *v, qz_tensor *grad);
/* Gradient of v += dy. */
QZ_NODISCARD qz_status qz_tape_seed(qz_tape *t, qz_var *v, const qz_tensor *dy);
QZ_NODISCARD qz_status qz_tape_backward(qz_tape *t);

/* ---- operations: as their rows in kernels/ops.def ---- */

/* y (T, N) = x (T, K) w (N, K)^T + bias (N) + residual (T, N); the last two may be NULL. */
QZ_NODISCARD qz_status qz_ag_linear(qz_var **y, qz_tape *t, qz_var *x, qz_var *w, qz_var *bias, qz_var *residual);
/* The same with weights that stay packed and are not trained; no dequantized copy is kept. */
QZ_NODISCARD qz_status qz_ag_linear_packed(qz_var **y, qz_tape *t, qz_var *x, const qz_packed *w, qz_var *bias,
                                           qz_var *residual);
/* y (T, C) = factor * table (V, C) rows of ids (T); ids must outlive the backward pass */
QZ_NODISCARD qz_status qz_ag_embedding(qz_var **y, qz_tape *t, qz_var *table, const int32_t *ids, int64_t tokens,
                                       float factor);
/* Over the last dimension of x, which is the length of w. */
QZ_NODISCARD qz_status qz_ag_rmsnorm(qz_var **y, qz_tape *t, qz_var *x, qz_var *w, float eps, float weight_offset);

/* Tables of a rotation; they must outlive the backward pass. */
typedef struct qz_rotation {
    qz_tensor cos, sin;       /* (P, R/2), R <= D channels of a head are rotated, the first ones */
    const int32_t *positions; /* (T) */
} qz_rotation;
/* y (T, H * D) = x with the heads rotated. Takes x over: it is released. */
QZ_NODISCARD qz_status qz_ag_rope(qz_var **y, qz_tape *t, qz_var *x, int64_t heads, const qz_rotation *r);
/* y (B T, H D) of q (B T, H D), k and v (B T, HK D) */
typedef struct qz_ag_attention_shape {
    int64_t sequences, length, heads, kv_heads, head_dim;
} qz_ag_attention_shape;
QZ_NODISCARD qz_status qz_ag_attention(qz_var **y, qz_tape *t, qz_var *q, qz_var *k, qz_var *v,
                                       qz_ag_attention_shape shape, const qz_attention *how);
QZ_NODISCARD qz_status qz_ag_swiglu(qz_var **y, qz_tape *t, qz_var *gate, qz_var *up);
QZ_NODISCARD qz_status qz_ag_geglu(qz_var **y, qz_tape *t, qz_var *gate, qz_var *up);
QZ_NODISCARD qz_status qz_ag_softcap(qz_var **y, qz_tape *t, qz_var *x, float cap);
QZ_NODISCARD qz_status qz_ag_add(qz_var **y, qz_tape *t, qz_var *a, qz_var *b);
QZ_NODISCARD qz_status qz_ag_multiply(qz_var **y, qz_tape *t, qz_var *a, qz_var *b);
QZ_NODISCARD qz_status qz_ag_scale(qz_var **y, qz_tape *t, qz_var *x, float factor);
/* p = 0: y is x. Elements are numbered from `first`; no two drop-outs of a training share numbers. */
QZ_NODISCARD qz_status qz_ag_dropout(qz_var **y, qz_tape *t, qz_var *x, float p, uint64_t seed, uint64_t first);
/* w (N, K) = base + factor b (N, R) a (R, K); base is a matrix variable, or packed weights (base NULL). */
QZ_NODISCARD qz_status qz_ag_low_rank(qz_var **w, qz_tape *t, qz_var *base, const qz_packed *packed, qz_var *b,
                                      qz_var *a, float factor);

/* w (N, K) = packed weights, wide: a constant. */
QZ_NODISCARD qz_status qz_ag_unpacked(qz_var **w, qz_tape *t, const qz_packed *packed);

/* ---- rounding in training ---- */

/* How a weight is rounded. `q` has the scheme and room for scales and zeros, which every pass fills in anew. */
typedef struct qz_ag_grid {
    qz_qtensor *q;
    qz_var *scale;  /* learned: one for each piece; NULL: `q` as it is, or ... */
    qz_var *offset; /* learned zero points, in codes (LSQ+); NULL: none */
    bool fit;       /* ... from the extremes of each piece of the weight */
    qz_ste rule;
} qz_ag_grid;
/* y (N, K) = w as the codes on its grid say it; `grid` must outlive the backward pass. */
QZ_NODISCARD qz_status qz_ag_fake_quant(qz_var **y, qz_tape *t, qz_var *w, const qz_ag_grid *grid);
/* q's scales and zeros from learned ones: rounded to what the container stores. */
void qz_ag_grid_take(qz_qtensor *q, const float *scale, const float *offset);
/* y = x as F16 or BF16 stores it: a constant, for evaluations; x stays. */
QZ_NODISCARD qz_status qz_ag_stored(qz_var **y, qz_tape *t, const qz_var *x, qz_dtype type);
/* What gradients of learned scales and offsets are multiplied by. */
float qz_ag_scale_factor(const qz_qtensor *q);

/* y = inputs of a linear as the server rounds them. `values` are copied. */
QZ_NODISCARD qz_status qz_ag_round_inputs(qz_var **y, qz_tape *t, qz_var *x, const qz_act_scheme *scheme,
                                          const qz_act_values *values, qz_ste rule, double *scale_grad);
/* y (T, HK D) = keys or values as the cache rounds them; scale (HK). */
QZ_NODISCARD qz_status qz_ag_round_heads(qz_var **y, qz_tape *t, qz_var *x, const qz_tensor *scale, qz_format format);

/* ---- recomputation ---- */

/* y = fn(x), of which only x is kept: the backward pass runs fn again, and then backwards (Chen et al. 2016). `context`
 * (size bytes) is copied. What fn reads beside x must be leaves that it makes itself. */
typedef struct qz_segment {
    qz_status (*fn)(const void *context, qz_tape *t, qz_var *x, qz_var **y);
    const void *context;
    size_t size;
} qz_segment;
QZ_NODISCARD qz_status qz_ag_segment(qz_var **y, qz_tape *t, qz_var *x, const qz_segment *segment);

/* ---- the end: logits and losses ---- */

/* Where the other distribution of a divergence comes from: logits (count, V) of the tokens [first, first + count). */
typedef struct qz_teacher {
    qz_status (*logits)(void *context, int64_t first, const qz_tensor *logits);
    void *context;
} qz_teacher;

typedef struct qz_head_rule {
    const int32_t *labels;                    /* (T); < 0: the token does not count */
    float softcap;                            /* of the logits; 0: none */
    double cross_entropy, divergence;         /* weights in the loss */
    double temperature;                       /* of the divergence */
    qz_teacher teacher;                       /* logits NULL: no divergence */
    bool divergence_everywhere;               /* at all T tokens, not only where a label counts */
    double cross_entropy_per, divergence_per; /* divisors: targets of the whole step, micro-batches together */
} qz_head_rule;

/* Sums over the tokens that count, in nats, not weighted and not divided. */
typedef struct qz_head_sums {
    double cross_entropy, divergence;
} qz_head_sums;

/* loss = cross_entropy / cross_entropy_per * sum of -log softmax(logits)[label]
 *      + divergence / divergence_per * sum of temperature^2 KL(teacher || student),   logits = hidden w^T.
 * The logits exist for a few tokens at a time. The gradients of hidden (T, C) and w (V, C) are taken in the same pass,
 * and only the backward pass of the rest is left to do; nothing is added where neither is wanted. */
QZ_NODISCARD qz_status qz_ag_head(qz_head_sums *sums, qz_tape *t, qz_var *hidden, qz_var *w, const qz_head_rule *rule);

#endif
