/* What was trained -> a checkpoint, as the recipe's container stores it. */
#ifndef QZ_PROGRAMS_TRAINED_EXPORT_H
#define QZ_PROGRAMS_TRAINED_EXPORT_H

#include "calib/calib.h"
#include "train/student.h"

/* Writes every linear of `output`'s plan with the codes that training saw, or its values where the plan leaves it plain
 * (an adapter added in both cases); static scales of inputs and cache; the trained plain tensors; everything else as
 * `source` has it. The folder is read back and compared. */
QZ_NODISCARD qz_status qz_trained_export(qz_student *student, const qz_model *source, const qz_calib_output *output,
                                         qz_progress *progress);

#endif
