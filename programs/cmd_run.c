/* qcal run: recipe -> model -> plan -> windows -> perplexity before -> calibrated checkpoint in OUTPUT.partial, read
 * back -> perplexity after -> report.json -> OUTPUT. */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "programs/demo_text.h"
#include "programs/output_folder.h"
#include "programs/run_result.h"
#include "programs/signals.h"

typedef struct run {
    qz_cli *cli;
    qz_job job;
    qz_windows calibration, evaluation;
    qz_terminal terminal;
    qz_progress *progress;
    qz_report *report;
    size_t notes_told;
    qz_output *output;
    qz_hidden *original; /* what divergence is measured from */
    qz_run_result result;
} run;

/* Notes of the report that were not printed yet. */
static void tell_notes(run *r)
{
    for (; r->notes_told < qz_report_notes(r->report); r->notes_told++) {
        qz_severity severity;
        const char *note = qz_report_note_at(r->report, r->notes_told, &severity);
        if (severity != QZ_WARN) continue;
        qz_terminal_clear(&r->terminal);
        fprintf(r->cli->err, "qcal: warning: %s\n", note);
    }
}

/* Warnings are printed when they come, and kept for report.json. */
static void on_warning(void *context, const char *message)
{
    run *r = context;
    qz_report_note(r->report, QZ_WARN, "%s", message);
    tell_notes(r);
}

static int on_progress(void *context, const qz_progress_state *state)
{
    run *r = context;
    tell_notes(r);
    return qz_terminal_progress(&r->terminal, state);
}

static qz_status load_calibration(run *r)
{
    const qz_recipe *recipe = r->job.recipe;
    if (!recipe->calibration.data || recipe->calibration.samples == 0) return QZ_OK;
    qz_windows_rule rule = {.path = recipe->calibration.data,
                            .field = recipe->calibration.field,
                            .count = recipe->calibration.samples,
                            .length = recipe->calibration.sequence_length,
                            .shuffle = recipe->calibration.shuffle,
                            .seed = recipe->calibration.seed};
    QZ_TRY_CTX(qz_session_windows(&r->calibration, &r->job.session, &rule), "calibration.data");
    return qz_demo_text_warn(&r->job.session, rule.path, r->calibration.hash);
}

static qz_status load_evaluation(run *r)
{
    const qz_recipe *recipe = r->job.recipe;
    if (!recipe->evaluate.wanted) return QZ_OK;
    qz_windows_rule rule = {.path = recipe->evaluate.data,
                            .field = recipe->evaluate.field,
                            .count = recipe->evaluate.windows,
                            .length = recipe->evaluate.sequence_length,
                            .allow_fewer = true};
    QZ_TRY_CTX(qz_session_windows(&r->evaluation, &r->job.session, &rule), "evaluate.data");
    return QZ_OK;
}

static qz_status load_texts(run *r)
{
    double began = qz_seconds();
    QZ_TRY(load_calibration(r));
    QZ_TRY(load_evaluation(r));
    qz_progress_book(r->progress, "tokenize", qz_seconds() - began);
    return qz_signals_check();
}

static qz_status evaluate_original(run *r)
{
    QZ_TRY(qz_session_count(&r->result.before, &r->job.session));
    QZ_TRY(qz_folder_bytes(&r->result.source_folder_bytes, r->job.recipe->model));
    if (!r->job.recipe->evaluate.wanted) return QZ_OK;
    return qz_eval_hidden(&r->original, &r->result.original, r->job.session.model, &r->evaluation, r->progress);
}

static qz_status evaluate_model(run *r, const qz_model *m)
{
    qz_hidden *hidden;
    QZ_TRY(qz_eval_hidden(&hidden, &r->result.quantized, m, &r->evaluation, r->progress));
    qz_status status = qz_eval_divergence(&r->result.divergence, r->original, hidden, r->progress);
    qz_hidden_free(hidden);
    r->result.evaluated = status == QZ_OK;
    return status;
}

/* On the folder that was written, opened anew. */
static qz_status evaluate_written(run *r)
{
    qz_session written;
    const char *folder = qz_output_work(r->output);
    QZ_TRY(qz_session_open_weights(&written, folder, r->job.recipe->backend, r->job.pass_through, r->cli->arena));
    qz_status status = qz_session_count(&r->result.after, &written);
    if (status == QZ_OK && r->job.recipe->evaluate.wanted) status = evaluate_model(r, written.model);
    qz_session_close(&written);
    QZ_TRY(status);
    return qz_folder_bytes(&r->result.folder_bytes, folder);
}

static qz_status judge(run *r)
{
    qz_run_result *result = &r->result;
    const bool evaluated = result->evaluated;
    qz_accept_judge(&result->acceptance, r->job.recipe, &result->original, evaluated ? &result->quantized : NULL,
                    evaluated ? &result->divergence : NULL, r->report);
    return qz_accept_mark(qz_output_work(r->output), &result->acceptance);
}

static qz_status calibrate(run *r)
{
    const qz_calib_output output = {
        .recipe = r->job.recipe, .plan = &r->job.export_plan, .folder = qz_output_work(r->output), .report = r->report};
    const qz_calib_args args = {.model = r->job.session.model,
                                .windows = &r->calibration,
                                .output = &output,
                                .outputs = 1,
                                .progress = r->progress};
    return qz_calib_run(&args);
}

static qz_status write_report(run *r, char **text)
{
    tell_notes(r);
    qz_terminal_clear(&r->terminal);
    QZ_TRY(qz_run_report(text, &r->result, r->cli->arena));
    char *path = qz_path_join(r->cli->arena, qz_output_work(r->output), "report.json");
    if (!path) return qz_arena_failed(r->cli->arena);
    return qz_file_write(path, *text, strlen(*text));
}

/* Everything between the plan and the moment when OUTPUT appears. */
static qz_status work(run *r, char **report, double began)
{
    QZ_TRY(load_texts(r));
    QZ_TRY(evaluate_original(r));
    QZ_TRY(calibrate(r));
    QZ_TRY(evaluate_written(r));
    QZ_TRY(qz_signals_check());
    QZ_TRY(judge(r));
    r->result.calibration_hash = r->calibration.hash;
    r->result.evaluation_hash = r->evaluation.hash;
    qz_memory_use_sample(&r->terminal.memory);
    r->result.seconds = qz_seconds() - began;
    return write_report(r, report);
}

static qz_status finish(run *r, const char *report, int *exit_code)
{
    qz_output *output = r->output;
    r->output = NULL;
    QZ_TRY(qz_output_commit(output));
    if (r->cli->json)
        fputs(report, r->cli->out);
    else
        QZ_TRY(qz_run_print(&r->result, r->cli));
    if (r->result.acceptance.verdict == QZ_NOT_ACCEPTED) *exit_code = QZ_EXIT_NOT_ACCEPTED;
    qz_accept_print(r->cli->err, "qcal: ", &r->result.acceptance);
    return QZ_OK;
}

static qz_status run_job(run *r, int *exit_code, double began)
{
    char *report;
    bool show_plan = !r->cli->quiet && !r->cli->json;
    if (show_plan) QZ_TRY(qz_job_print_plan(&r->job, r->cli));
    QZ_TRY(qz_job_fits(&r->job));
    qz_progress_book(r->progress, "plan", qz_seconds() - began);
    QZ_TRY(qz_output_open(&r->output, r->job.recipe->output, r->cli->overwrite));
    QZ_TRY(work(r, &report, began));
    return finish(r, report, exit_code);
}

static qz_status run_with_report(run *r, int *exit_code)
{
    double began = qz_seconds();
    qz_log_to(on_warning, r);
    QZ_TRY(qz_job_open(&r->job, r->cli));
    r->result.job = &r->job;
    r->result.report = r->report;
    r->result.terminal = &r->terminal;
    r->result.progress = r->progress;
    qz_status status = run_job(r, exit_code, began);
    qz_terminal_clear(&r->terminal);
    qz_output_abandon(r->output);
    qz_hidden_free(r->original);
    qz_job_close(&r->job);
    return status;
}

qz_status qz_cmd_run(qz_cli *cli, int *exit_code)
{
    run r = {.cli = cli, .terminal = qz_terminal_new(cli->err, cli->quiet)};
    *exit_code = QZ_EXIT_DONE;
    qz_signals_catch();
    qz_status status = qz_report_new(&r.report);
    if (status == QZ_OK) status = qz_progress_new(&r.progress, on_progress, &r);
    if (status == QZ_OK) status = run_with_report(&r, exit_code);
    qz_log_to(NULL, NULL);
    qz_progress_free(r.progress);
    qz_report_free(r.report);
    return status;
}
