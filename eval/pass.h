/* What the files of this folder share: the pass over the layers, and hidden states as it leaves them. */
#ifndef QZ_EVAL_PASS_H
#define QZ_EVAL_PASS_H

#include "eval/eval.h"

struct qz_hidden {
    qz_arena *arena;
    const qz_model *model;
    const qz_windows *windows;
    qz_tensor states; /* (windows * length, C), after the final norm */
};

static inline int64_t qz_hidden_width(const qz_model *m)
{
    return qz_model_config_of(m)->hidden;
}

/* Gives an empty arena one block that later requests fit in, so that the system is not asked again for each batch. */
QZ_NODISCARD qz_status qz_arena_reserve(qz_arena *arena, uint64_t bytes);
/* Windows that run together: as many as fit a limit of tokens and of scratch, at least one. */
int64_t qz_pass_batch(const qz_model *m, int64_t windows, int64_t length);
/* Runs all layers and the final norm; a step of the progress for each window and layer. */
QZ_NODISCARD qz_status qz_pass_run(qz_hidden **out, const qz_model *m, const qz_windows *w, qz_progress *progress);
/* Bytes of its peak beside what it leaves. */
uint64_t qz_pass_bytes(const qz_model *m, int64_t windows, int64_t length);
/* Bytes that qz_eval_divergence allocates. */
uint64_t qz_divergence_bytes(const qz_model *m, int64_t windows, int64_t length);

#endif
