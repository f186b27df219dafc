/* One checkpoint of a run, layer by layer: transforms, codes, activation scales, bytes. Private to calib/. */
#ifndef QZ_CALIB_TARGET_H
#define QZ_CALIB_TARGET_H

#include "calib/gather.h"
#include "calib/writer.h"
#include "eval/eval.h"

typedef struct qz_target {
    const qz_calib_output *output;
    const qz_model *model;
    qz_progress *progress;
    qz_writer *writer;
    qz_journal *journal; /* NULL: none is kept */
    int done;            /* layers that an earlier run has finished */
    qz_journal_mark reported;
    qz_eval_input_rounding *input; /* [inputs] of the layer that was begun: what its `served` shows */
    qz_arena *scratch;             /* given back after every linear input */
    qz_arena *shared;              /* what solvers keep for the linears of one input */
} qz_target;

/* Opens the output's files, those of an interrupted run with args->resume: whether it was this very run is checked. */
QZ_NODISCARD qz_status qz_target_open(qz_target *t, const qz_calib_args *args, int number, qz_arena *scratch,
                                      qz_arena *shared);
void qz_target_close(qz_target *t);
/* The first `layers` of those that are done are as an earlier run left them; `peak` is raised to what it saw. */
QZ_NODISCARD qz_status qz_target_restore(qz_target *t, int layers, float *peak);
/* The embeddings, which come before the layers, when an earlier run has finished them. */
QZ_NODISCARD qz_status qz_target_restore_embedding(qz_target *t, bool *done);
/* The layer is finished: everything of it goes to the disk, then a line of the journal. The head counts as a layer
 * after the last. */
enum { QZ_TARGET_EMBEDDING = -1 };
QZ_NODISCARD qz_status qz_target_commit(qz_target *t, int layer, float peak);
/* Statistics that a layer's inputs must have for this output. */
qz_stats_wants qz_target_wants(const qz_calib_output *output);

/* Transforms, quantizes and writes a layer (weights F32 as in the model); leaves in it the values that a server will
 * compute with, and in `served` how it rounds inputs and cache. The statistics are used up: transforms re-express
 * them. */
QZ_NODISCARD qz_status qz_target_layer(qz_target *t, qz_layer *layer, const qz_layer_stats *stats,
                                       qz_eval_layer_rounding *served, qz_arena *arena);
/* The same in steps, for a layer whose later inputs are looked at when its earlier linears are quantized already:
 * begin, every input in its order, end. `stats` are for the transforms, NULL when there are none; cache scales are not
 * made so. */
QZ_NODISCARD qz_status qz_target_begin(qz_target *t, qz_layer *layer, qz_stats *stats, qz_eval_layer_rounding *served,
                                       qz_arena *arena);
QZ_NODISCARD qz_status qz_target_input(qz_target *t, const qz_layer *layer, int input, const qz_stats *stats);
QZ_NODISCARD qz_status qz_target_end(qz_target *t, const qz_layer *layer);
/* The same for the head or the embeddings, where the plan has them (else nothing is done): `linear` is the table as in
 * the model, its values become those of the codes. */
QZ_NODISCARD qz_status qz_target_outside(qz_target *t, qz_end end, const qz_linear *linear, const qz_stats *stats);
QZ_NODISCARD qz_status qz_target_finish(qz_target *t);

#endif
