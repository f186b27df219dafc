/* What makes two runs the same run: only then may one go on where the other was interrupted. Private to calib/. */
#ifndef QZ_CALIB_IDENTITY_H
#define QZ_CALIB_IDENTITY_H

#include "calib/calib.h"
#include "calib/journal.h"

/* A journal for the output: a new one, or with `resume` the one that is there, if program, recipe, model, text and
 * arithmetic are what they were (else QZ_ARG saying what changed). `done` is the number of layers it names. */
QZ_NODISCARD qz_status qz_identity_journal(qz_journal **out, int *done, const qz_calib_args *args,
                                           const qz_calib_output *output, bool resume);

#endif
