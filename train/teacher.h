/* The model whose predictions the student is drawn to (Hinton et al. 2015): its forward pass on the batches of
 * training, without gradients, a layer's weights widened at a time. */
#ifndef QZ_TRAIN_TEACHER_H
#define QZ_TRAIN_TEACHER_H

#include "models/models.h"

typedef struct qz_guide qz_guide;

/* `m` must outlive it; `dry` as for tapes. */
QZ_NODISCARD qz_status qz_guide_new(qz_guide **out, const qz_model *m, bool dry);
void qz_guide_free(qz_guide *g);
/* As qz_tape_bf16, for its layers; its logits are fp32 products. */
void qz_guide_bf16(qz_guide *g, bool on);
/* Hidden states of a batch, kept until the next call or until they are released. */
QZ_NODISCARD qz_status qz_guide_run(qz_guide *g, qz_tape_batch batch);
void qz_guide_release(qz_guide *g);
/* Logits of the last batch, for qz_ag_head. */
qz_teacher qz_guide_teacher(qz_guide *g);
/* Bytes of its buffers at most, and of a layer's weights. */
uint64_t qz_guide_bytes(const qz_guide *g);

#endif
