/* What the files of this folder share: the pass over the layers, and hidden states as it leaves them. */
#ifndef QZ_EVAL_PASS_H
#define QZ_EVAL_PASS_H

#include "base/file.h"
#include "eval/eval.h"

struct qz_hidden {
    qz_arena *arena, *room; /* room: of the states, until they are spilled */
    qz_map spilled;
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

/* ---- divergence from a base, while a model is scored (divergence.c) ---- */

typedef struct qz_divergence_run qz_divergence_run;
/* QZ_ARG when `other` on `windows` cannot be compared with the base. */
QZ_NODISCARD qz_status qz_divergence_new(qz_divergence_run **out, const qz_hidden *base, const qz_model *other,
                                         const qz_windows *windows);
/* Which rows of the hidden states are scored next. */
void qz_divergence_batch(qz_divergence_run *r, int64_t first, int64_t tokens);
/* A qz_logits_tap for scoring them; `run` is a qz_divergence_run. */
QZ_NODISCARD qz_status qz_divergence_tile(void *run, int64_t first, const qz_tensor *logits);
QZ_NODISCARD qz_status qz_divergence_finish(qz_divergence *out, qz_divergence_run *r);
void qz_divergence_free(qz_divergence_run *r); /* NULL allowed */
/* Bytes that it allocates. */
uint64_t qz_divergence_bytes(const qz_model *m, int64_t windows, int64_t length);

#endif
