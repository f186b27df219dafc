/* How good a checkpoint is: perplexity by the rule that the interop checks use.
 *
 * Windows of `length` ids (BOS first where the model has one); ids 1 .. length - 1 of each are predicted from those
 * before them; perplexity = exp(-mean natural log probability). Without BOS nothing changes but id 0. */
#ifndef QZ_EVAL_EVAL_H
#define QZ_EVAL_EVAL_H

#include "base/progress.h"
#include "data/data.h"
#include "models/models.h"

typedef struct qz_perplexity {
    double perplexity, mean_log_prob;
    int64_t tokens, windows;
    double seconds;
} qz_perplexity;

/* Layer by layer over all windows, so that a layer's weights are widened once. */
QZ_NODISCARD qz_status qz_eval_perplexity(qz_perplexity *out, const qz_model *m, const qz_windows *w,
                                          qz_progress *progress);
/* Bytes that it allocates at its peak. */
uint64_t qz_eval_bytes(const qz_model *m, int64_t windows, int64_t length);

#endif
