/* The folder that a run writes: OUTPUT.partial while it works, OUTPUT at the very end, nothing when it fails.
 *
 *     qz_output *o;
 *     QZ_TRY(qz_output_check(path, overwrite));            // early, changes nothing
 *     QZ_TRY(qz_output_open(&o, path, overwrite));          // makes OUTPUT.partial
 *     ... write into qz_output_work(o) ...
 *     qz_output_keep(o);                                    // from here on it pays to resume
 *     status = qz_output_commit(o);                         // or qz_output_abandon(o)
 *
 * Rules: OUTPUT must not exist or be empty. With `overwrite` it may be a folder that qcal or qat wrote (its report.json
 * says so), which is put aside and removed after the new one is in its place. OUTPUT.partial of a crashed run is
 * recognised by a marker. It is removed, unless it holds work that can be gone on with (finished layers in
 * calib/journal.h, a state of train/state.h): then the user has to choose between qz_output_resume and `overwrite`.
 * Anything else of that name is left alone. Links are not followed. */
#ifndef QZ_PROGRAMS_OUTPUT_FOLDER_H
#define QZ_PROGRAMS_OUTPUT_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define QZ_OUTPUT_MARKER ".qcal-partial"
#define QZ_OUTPUT_TRAINING "training" /* the folder in it with states and log */

typedef struct qz_output qz_output;

QZ_NODISCARD qz_status qz_output_check(const char *path, bool overwrite);
/* `input` must not be OUTPUT or lie in it: replacing the one would destroy the other. NULL is fine. */
QZ_NODISCARD qz_status qz_output_keeps(const char *path, const char *input);
QZ_NODISCARD qz_status qz_output_open(qz_output **out, const char *path, bool overwrite);
/* The same two for going on with OUTPUT.partial of an interrupted run, which must be there and not in use. */
QZ_NODISCARD qz_status qz_output_check_resume(const char *path, bool overwrite);
/* OUTPUT.partial, which is to be gone on with, is not of the other program: qat (`trains`) leaves states there, qcal a
 * journal of finished layers. */
QZ_NODISCARD qz_status qz_output_check_program(const char *path, bool trains);
/* OUTPUT is there, as a run of the recipe with this hash left it, and no OUTPUT.partial is: the run was interrupted
 * after this output and before the next. */
bool qz_output_is_finished(const char *path, const char *recipe_hash);
QZ_NODISCARD qz_status qz_output_resume(qz_output **out, const char *path, bool overwrite);
/* What a run can go on from in `work`, in words: "3 finished layers". False: nothing. */
typedef struct qz_output_done {
    char text[64];
    int64_t step; /* of the newest state of a training; 0: none */
} qz_output_done;
bool qz_output_progress(qz_output_done *out, const char *work);
const char *qz_output_work(const qz_output *o); /* the folder to write into */
/* From now on the work outlives a failure, for qz_output_resume. */
void qz_output_keep(qz_output *o);
bool qz_output_is_kept(const qz_output *o);
/* Puts the work in its place, without the journal, and frees; on failure the work is removed (unless kept) and what was
 * there before stays. */
QZ_NODISCARD qz_status qz_output_commit(qz_output *o);
/* Removes the work (unless kept), and parent folders that were made for it, and frees. NULL allowed. */
void qz_output_abandon(qz_output *o);

#endif
