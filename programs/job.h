/* A recipe and the model it is for, up to the plan: what `plan` prints and `run` goes on with. */
#ifndef QZ_PROGRAMS_JOB_H
#define QZ_PROGRAMS_JOB_H

#include "programs/cli.h"
#include "programs/session.h"
#include "train/train.h"

/* One checkpoint that the recipe asks for. */
typedef struct qz_job_output {
    const qz_recipe *recipe; /* what concerns calibration is the same in all */
    const char *const *pass_through;
    qz_export_plan plan;
} qz_job_output;

typedef struct qz_job {
    const qz_recipe *recipe; /* of the first output */
    qz_session session;
    qz_session start, teacher; /* of a recipe that trains: other folders than the model's, where it names some */
    qz_job_output output[QZ_RECIPE_OUTPUTS];
    int outputs;
    bool several; /* the recipe names several, whether or not an interrupted run has finished some */
    qz_plan plan;
    int64_t parameters;  /* numbers that are trained */
    const char *adapter; /* that is merged, as PEFT keeps it */
    double gflops;       /* of the backend here */
    qz_status plan_fits; /* QZ_OK, or why the machine cannot hold it, */
    qz_error plan_error; /* with this message */
} qz_job;

/* Reads the recipe, checks the output folder's rules, opens the model and makes the plan. A plan that does not fit is
 * no failure yet: it is to be printed first. On failure nothing stays open. */
QZ_NODISCARD qz_status qz_job_open(qz_job *out, const qz_cli *cli);
void qz_job_close(qz_job *job);
/* QZ_OK when the plan fits; otherwise its status and message. */
QZ_NODISCARD qz_status qz_job_fits(const qz_job *job);

/* train_job.c: of a recipe that trains. */
/* To merge: the recipe's output is where the adapter is, and the checkpoint goes elsewhere. */
QZ_NODISCARD qz_status qz_job_redirect(qz_job *job, qz_recipe *recipe, const qz_cli *cli);
QZ_NODISCARD qz_status qz_job_open_training(qz_job *job, const qz_cli *cli);
/* What is known before the run: recipe, models, tokenizer, plan. */
qz_train_args qz_job_train_args(const qz_job *job);
/* job->plan is that of quantizing and evaluating; the training is put into it. */
QZ_NODISCARD qz_status qz_job_plan_training(qz_job *job);

/* plan_table.c */
QZ_NODISCARD qz_status qz_job_print_plan(const qz_job *job, const qz_cli *cli);
QZ_NODISCARD qz_status qz_job_print_plan_json(const qz_job *job, const qz_cli *cli);

#endif
