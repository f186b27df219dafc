/* AdamW over the parameters: one step from the summed gradients, and the state that it needs.
 *
 * Loshchilov and Hutter 2019, algorithm 2; the arithmetic is op adamw's (kernels/ops.def). Decay and a factor on the
 * learning rate come with a parameter's group. Moments are F32, or 8 bits in blocks of 256 (Dettmers et al. 2022) but
 * for parameters of less than 4096 numbers, as in bitsandbytes: they are what a small share of the memory buys, and
 * norms among them are sensitive. The gradient's norm is that of all parameters together, squares summed in double in
 * the list's order; clipping multiplies gradients by min(1, clip / (norm + 1e-6)), as torch does, inside the step.
 *
 *     QZ_TRY(qz_optimizer_new(&o, backend, &parameters, &options, arena));
 *     for (step = 1; ...) {
 *         qz_parameters_zero_gradients(&parameters);
 *         ...                                                  // gradients are summed up
 *         QZ_TRY(qz_optimizer_norm(o, step, &norm));
 *         QZ_TRY(qz_optimizer_step(o, step, qz_schedule_rate(&schedule, step), norm));
 *     } */
#ifndef QZ_TRAIN_OPTIMIZER_H
#define QZ_TRAIN_OPTIMIZER_H

#include "kernels/kernels.h"
#include "recipes/recipes.h"
#include "train/parameters.h"
#include "train/state.h"

typedef struct qz_optimizer_options {
    double beta1, beta2, epsilon;
    double clip_norm; /* 0: gradients are not clipped */
    bool moments_8bit;
    struct {
        double decay;
        double rate_factor; /* on the learning rate */
    } group[QZ_PARAMETER_GROUPS];
} qz_optimizer_options;

typedef struct qz_optimizer qz_optimizer;

/* What a recipe asks for: decay of matrices and adapters; learned scales and offsets have rates of their own. */
qz_optimizer_options qz_optimizer_options_of(const qz_recipe_train *train);

/* Moments of zero, in `arena`. The list stays the caller's, and neither grows nor moves from here on. */
QZ_NODISCARD qz_status qz_optimizer_new(qz_optimizer **out, const qz_backend *backend, const qz_parameters *parameters,
                                        const qz_optimizer_options *options, qz_arena *arena);
/* Bytes of the moments, for the plan: of all parameters, whose data is not looked at. */
uint64_t qz_optimizer_bytes(const qz_parameters *parameters, bool moments_8bit);

/* The norm of all gradients. Not finite is QZ_NUMERIC naming the step and the last parameter that spoils it. */
QZ_NODISCARD qz_status qz_optimizer_norm(const qz_optimizer *o, int64_t step, double *norm);
/* What clipping multiplies gradients by. */
double qz_optimizer_clip(const qz_optimizer *o, double norm);
/* Updates all parameters. `step` counts from 1 and must go on where the moments are. */
QZ_NODISCARD qz_status qz_optimizer_step(const qz_optimizer *o, int64_t step, double rate, double norm);

/* What a state file keeps: parameters and moments ([*count], in the arena). */
const qz_state_tensor *qz_optimizer_tensors(const qz_optimizer *o, int *count);

#endif
