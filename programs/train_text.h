/* The texts of a training: where its batches come from, and what it is judged by while it runs. */
#ifndef QZ_PROGRAMS_TRAIN_TEXT_H
#define QZ_PROGRAMS_TRAIN_TEXT_H

#include "programs/checkpoint_run.h"

/* train.data, for the caller to close. */
QZ_NODISCARD qz_status qz_run_open_training_text(qz_loader **out, const qz_run *r);
/* train.validation, where there is one, into r->validation: windows as perplexity takes them, or, of a .jsonl, batches
 * as those of train.data, where a prompt does not count. */
QZ_NODISCARD qz_status qz_run_load_validation_text(qz_run *r);

#endif
