/* One step: a batch, a few sequences at a time, through student and teacher and back; gradients are summed up in the
 * student's parameters. The loss is a mean over the targets of the whole batch, whatever the micro-batches
 * (docs/training.md has the equations). */
#ifndef QZ_TRAIN_STEP_H
#define QZ_TRAIN_STEP_H

#include "base/progress.h"
#include "data/data.h"
#include "train/student.h"
#include "train/teacher.h"

typedef struct qz_step_rule {
    int64_t micro_batch; /* sequences at a time */
    double cross_entropy, divergence, temperature;
    bool divergence_everywhere; /* at positions without a target too, and over their number */
    bool bf16;                  /* products, the student's and the teacher's, of factors rounded to BF16 */
} qz_step_rule;

typedef struct qz_step_batch {
    const int32_t *ids, *labels; /* (sequences, length); label < 0: does not count */
    const int32_t *first;        /* as in qz_tape_batch; NULL: none */
    int64_t sequences, length;
} qz_step_batch;

/* Windows as perplexity takes them, ids 1 to length - 1 being predicted: labels in `arena`, ids of `w` itself. */
QZ_NODISCARD qz_status qz_step_batch_of(qz_step_batch *out, const qz_windows *w, qz_arena *arena);

/* Arrays for `sequences` windows of `length` ids, in `arena`. */
QZ_NODISCARD qz_status qz_step_room(qz_loader_batch *out, int64_t sequences, int64_t length, qz_arena *arena);
/* What the loader has put there. */
qz_step_batch qz_step_batch_taken(const qz_loader_batch *b, const qz_loader *loader);
/* The first windows of a loader that is at its start, at most `most` (0: all of them), in `arena`. QZ_FORMAT when there
 * is nothing in them that counts. */
QZ_NODISCARD qz_status qz_step_batch_read(qz_step_batch *out, qz_loader *loader, int64_t most, int64_t length,
                                          qz_arena *arena);

/* Means, in nats. */
typedef struct qz_step_loss {
    double loss, cross_entropy, divergence;
    int64_t targets;
} qz_step_loss;

typedef struct qz_stepper qz_stepper;

/* `guide` NULL: no divergence. Both outlive it. */
QZ_NODISCARD qz_status qz_stepper_new(qz_stepper **out, qz_student *student, qz_guide *guide, const qz_step_rule *rule,
                                      bool dry);
void qz_stepper_free(qz_stepper *s);
/* Gradients += those of the loss. `number` is the step's. */
QZ_NODISCARD qz_status qz_stepper_run(qz_stepper *s, const qz_step_batch *batch, uint64_t number, qz_step_loss *loss);
/* The cross entropy alone, without gradients, in fp32; for evaluations. `progress` counts sequences; NULL: none. */
QZ_NODISCARD qz_status qz_stepper_judge(qz_stepper *s, const qz_step_batch *batch, qz_step_loss *loss,
                                        qz_progress *progress);
/* Where the forward pass of a batch first has values that are not finite: "enter MODULE" or "are the logits", into text
 * (size); empty: nowhere. */
QZ_NODISCARD qz_status qz_stepper_search(qz_stepper *s, const qz_step_batch *batch, char *text, size_t size);
/* Bytes of its buffers at most so far. */
uint64_t qz_stepper_bytes(const qz_stepper *s);

#endif
