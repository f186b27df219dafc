/* Folding a factor s per channel into the linears that read the channels and whatever produces them, so that the
 * model's function stays: consumers W[:, k] *= s[k], producer / s[k]. Private to calib/. */
#ifndef QZ_CALIB_FOLD_H
#define QZ_CALIB_FOLD_H

#include "calib/calib.h"

/* Rounds the values to `type` and back. One that the type would make infinite stays: the writer refuses it by name.
 * A tensor without data is left alone. */
void qz_round_stored(const qz_tensor *x, qz_dtype type);

/* Norm -> the linears of a stage, those of every expert, and the router that reads the same. The norm is rounded to
 * `plain_type` as it will be stored, and the consumers are multiplied by the factor that was really stored, which
 * replaces scale (K). Norms that multiply by w + 1 become (w + 1) / s - 1. Where what is stored would multiply by zero
 * or infinity, or the norm does so already, the channel keeps factor 1. */
void qz_fold_norm(qz_layer *layer, int norm, qz_stage stage, float *scale, qz_dtype plain_type);

/* Rows (and bias) of one linear -> the input channels of another, both of one expert. `scale` (K of the consumer); the
 * consumer's channel of head h and position d comes from the producer's row of head h / (heads / groups) and position
 * d, with K = heads * size; heads = groups = 1 and size = K is the plain case. Tied channels must hold equal factors.
 */
void qz_fold_linear(qz_layer *layer, qz_role producer, qz_role consumer, int expert, const float *scale, int64_t heads,
                    int64_t groups, int64_t size);

#endif
