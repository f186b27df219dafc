/* What a run found out, for the table at the end and for report.json. */
#ifndef QZ_PROGRAMS_RUN_RESULT_H
#define QZ_PROGRAMS_RUN_RESULT_H

#include "base/hash.h"
#include "eval/eval.h"
#include "programs/acceptance.h"
#include "programs/job.h"
#include "programs/serving.h"
#include "programs/terminal.h"
#include "train/train.h"

/* A folder, opened and evaluated as a server would run it. */
typedef struct qz_measured {
    bool evaluated, diverged;
    qz_perplexity perplexity;
    qz_divergence divergence; /* from the original */
    qz_weight_count weights;  /* none: not a folder of weights (an adapter) */
    uint64_t folder_bytes;
} qz_measured;

/* Of an adapter, in nats a token: the base as it is in memory, with the adapter beside it, and the sum of both as it
 * was rounded in training. */
typedef struct qz_merged {
    bool wanted, measured;
    bool rounds; /* `rounded` was measured: it is merge_aware */
    double base, adapted, rounded;
    const char *adapter;
} qz_merged;

/* Of one output. */
typedef struct qz_run_result {
    const char *program;
    const qz_job *job;
    const qz_recipe *recipe; /* the output's own */
    const qz_report *report;
    const qz_terminal *terminal;                                      /* memory */
    const qz_progress *progress;                                      /* phases */
    const char *calibration_hash, *evaluation_hash, *validation_hash; /* "" when there was none */
    qz_perplexity original;                                           /* where `made` was evaluated */
    qz_measured made;                                                 /* what was written */
    qz_measured start; /* what training started from, where that is another model than the original */
    qz_merged merged;
    bool trained;
    qz_train_result training; /* when trained */
    char training_hash[QZ_HASH_TEXT];
    qz_acceptance acceptance;
    bool served; /* the container has a usual consumer, and this is what it will find */
    qz_findings serving;
    qz_weight_count before;
    uint64_t source_folder_bytes;
    double seconds;
} qz_run_result;

double qz_run_ratio(const qz_run_result *r); /* of the perplexities */

/* result_table.c */
QZ_NODISCARD qz_status qz_run_print(const qz_run_result *r, const qz_cli *cli);
const char *qz_run_source_type(const qz_run_result *r); /* "bf16" */
/* train_table.c */
QZ_NODISCARD qz_status qz_run_print_training(const qz_run_result *r, const qz_cli *cli);
/* Of the adapter, in nats a token: base - adapted. */
double qz_run_gain(const qz_run_result *r);
/* (base - written) / gain; NaN where the gain is less than 0.001: a share of nothing, or of noise, says nothing. */
double qz_run_kept(const qz_run_result *r);
/* report_json.c: the text of report.json, in `arena`. */
QZ_NODISCARD qz_status qz_run_report(char **out, const qz_run_result *r, qz_arena *arena);

#endif
