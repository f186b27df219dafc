/* The checkpoint being written, and the proof that it holds what was in memory. Private to calib/. */
#ifndef QZ_CALIB_WRITER_H
#define QZ_CALIB_WRITER_H

#include "calib/calib.h"
#include "calib/journal.h"

typedef struct qz_writer qz_writer;

/* Writes config.json and the other side files, declares every tensor of the plan and opens the files in
 * output->folder; with `resume` those of an interrupted run. */
QZ_NODISCARD qz_status qz_writer_new(qz_writer **out, const qz_model *model, const qz_calib_output *output, bool resume,
                                     qz_progress *progress);
void qz_writer_free(qz_writer *w); /* removes what is unfinished, unless kept; NULL allowed */

/* A linear of a layer: `q` when the plan says quantized, with the static scale of its input, if any; else its weight in
 * plain type; and its bias. */
QZ_NODISCARD qz_status qz_writer_linear(qz_writer *w, const qz_export_linear *l, const qz_linear *linear,
                                        const qz_qtensor *q, const qz_act_values *act, qz_arena *scratch);
/* Does the container store codes? Else it stores values, rounded to the plain type. */
bool qz_writer_keeps_codes(const qz_writer *w);
/* A plain tensor whose values changed (a folded norm). */
QZ_NODISCARD qz_status qz_writer_plain(qz_writer *w, const char *name, const qz_tensor *x, qz_arena *scratch);
/* Scales of a layer's cache. */
QZ_NODISCARD qz_status qz_writer_kv(qz_writer *w, int layer, const qz_kv_values *values);
/* Writes every plain tensor that was not given, from the source; finishes the files; reopens the folder and compares
 * fingerprints of all tensors' values with those in memory. */
QZ_NODISCARD qz_status qz_writer_finish(qz_writer *w, qz_arena *scratch);

/* Everything so far is on the disk and stays there whatever happens; what was written since the last call, with its
 * fingerprint, for the journal; in `arena`. */
QZ_NODISCARD qz_status qz_writer_sync(qz_writer *w, const qz_journal_text **written, size_t *count, qz_arena *arena);
/* An earlier run has written this, with this fingerprint. */
QZ_NODISCARD qz_status qz_writer_mark(qz_writer *w, const qz_journal_text *written);

#endif
