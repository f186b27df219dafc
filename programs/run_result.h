/* What a run found out, for the table at the end and for report.json. */
#ifndef QZ_PROGRAMS_RUN_RESULT_H
#define QZ_PROGRAMS_RUN_RESULT_H

#include "eval/eval.h"
#include "programs/acceptance.h"
#include "programs/job.h"
#include "programs/serving.h"
#include "programs/terminal.h"

/* Of one output. */
typedef struct qz_run_result {
    const qz_job *job;
    const qz_recipe *recipe; /* the output's own */
    const qz_report *report;
    const qz_terminal *terminal;                    /* memory */
    const qz_progress *progress;                    /* phases */
    const char *calibration_hash, *evaluation_hash; /* "" when there was none */
    bool evaluated;
    qz_perplexity original, quantized;
    qz_divergence divergence; /* of the quantized from the original */
    qz_acceptance acceptance;
    bool served; /* the container has a usual consumer, and this is what it will find */
    qz_findings serving;
    qz_weight_count before, after;
    uint64_t source_folder_bytes, folder_bytes;
    double seconds;
} qz_run_result;

double qz_run_ratio(const qz_run_result *r); /* of the perplexities */

/* result_table.c */
QZ_NODISCARD qz_status qz_run_print(const qz_run_result *r, const qz_cli *cli);
/* report_json.c: the text of report.json, in `arena`. */
QZ_NODISCARD qz_status qz_run_report(char **out, const qz_run_result *r, qz_arena *arena);

#endif
