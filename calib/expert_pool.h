/* One record for what the linears of all experts read: the output of the norm before them. Private to calib/. */
#ifndef QZ_CALIB_EXPERT_POOL_H
#define QZ_CALIB_EXPERT_POOL_H

#include "calib/calib.h"

/* The statistics of the stage's input over all experts: sums of Gram matrices, |x|, tokens and histograms, the largest
 * |x|, and a uniform sample of the rows. A stage whose input is one (no router, or q k v and o) gives that record
 * itself, without a copy. Otherwise from `arena`: as much as one such input takes. */
QZ_NODISCARD qz_status qz_expert_pool(qz_stats *out, const qz_transform_args *args, qz_stage stage, qz_arena *arena);
/* The number of inputs that the stage has: one for each expert, or 1. */
int qz_expert_inputs(const qz_layer *layer, qz_stage stage);
/* Re-expresses the statistics of every input of the stage after a fold of scale (K). */
void qz_expert_rescale(const qz_transform_args *args, qz_stage stage, const float *scale);

#endif
