/* What the commands that make checkpoints share: the job and its plan, texts, messages, OUTPUT.partial, evaluation of
 * what was written, report.json, and the result on the screen.
 *
 *     static qz_status work(qz_run *r) { ... qz_run_load_texts, write into r->made[i].output, qz_run_judge ... }
 *     return qz_run_command(cli, exit_code, work); */
#ifndef QZ_PROGRAMS_CHECKPOINT_RUN_H
#define QZ_PROGRAMS_CHECKPOINT_RUN_H

#include "programs/output_folder.h"
#include "programs/run_result.h"

/* What the run does for one checkpoint. */
typedef struct qz_made {
    qz_report *report;
    size_t notes_told;
    qz_output *output;
    qz_run_result result;
    char *text; /* of report.json */
} qz_made;

typedef struct qz_run {
    qz_cli *cli;
    qz_job job;
    qz_windows calibration, evaluation;
    qz_train_text validation;
    qz_terminal terminal;
    qz_progress *progress;
    qz_made made[QZ_RECIPE_OUTPUTS];
    int outputs;
    qz_stats_file *statistics; /* NULL: the text is run */
    qz_hidden *hidden;         /* of the original: what divergence is measured from */
    qz_perplexity original;
    qz_weight_count before;
    uint64_t source_folder_bytes;
    double began;
} qz_run;

/* What a command does between the plan and the moment when the outputs appear. */
typedef qz_status (*qz_run_work)(qz_run *r);
/* Everything around it. */
qz_status qz_run_command(qz_cli *cli, int *exit_code, qz_run_work work);

/* ---- for `work` ---- */

/* The recipe's calibration text, where it is needed, and its evaluation text. */
QZ_NODISCARD qz_status qz_run_load_texts(qz_run *r);
QZ_NODISCARD qz_status qz_run_evaluate_original(qz_run *r);
/* Output i, written into `folder`. */
qz_calib_output qz_run_output(const qz_run *r, int i, const char *folder);
/* Quantizes a model like the job's; the checkpoint of output i goes into folders[i]. */
QZ_NODISCARD qz_status qz_run_calibrate(qz_run *r, const qz_model *m, const char *const *folders, bool resume);
/* A folder as output `number` is, opened anew and measured against the original. */
QZ_NODISCARD qz_status qz_run_evaluate_folder(qz_run *r, int number, const char *folder, qz_measured *out);
/* Judges the result of output `number`, asks for its consumer, writes report.json. */
QZ_NODISCARD qz_status qz_run_conclude(qz_run *r, int number);

#endif
