/* qcal run: recipe -> model -> plan -> windows -> perplexity before -> calibrated checkpoints in OUTPUT.partial, read
 * back -> perplexity after -> report.json -> OUTPUT, for each output. */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "calib/journal.h"
#include "programs/demo_text.h"
#include "programs/output_folder.h"
#include "programs/run_result.h"
#include "programs/signals.h"
#include "programs/statistics_source.h"

/* What the run does for one checkpoint. */
typedef struct made {
    qz_report *report;
    size_t notes_told;
    qz_output *output;
    qz_run_result result;
    char *text; /* of report.json */
} made;

typedef struct run {
    qz_cli *cli;
    qz_job job;
    qz_windows calibration, evaluation;
    qz_terminal terminal;
    qz_progress *progress;
    made made[QZ_RECIPE_OUTPUTS];
    int outputs;
    qz_stats_file *statistics; /* NULL: the text is run */
    qz_hidden *hidden;         /* of the original: what divergence is measured from */
    qz_perplexity original;
    qz_weight_count before;
    uint64_t source_folder_bytes;
} run;

/* ---- messages ---- */

static void tell(run *r, const char *warning)
{
    qz_terminal_clear(&r->terminal);
    fprintf(r->cli->err, "qcal: warning: %s\n", warning);
}

/* Notes of the reports that were not printed yet. */
static void tell_notes(run *r)
{
    for (int i = 0; i < r->outputs; i++)
        for (made *m = &r->made[i]; m->notes_told < qz_report_notes(m->report); m->notes_told++) {
            qz_severity severity;
            const char *note = qz_report_note_at(m->report, m->notes_told, &severity);
            if (severity == QZ_WARN) tell(r, note);
        }
}

/* Warnings are printed when they come, and kept for every report.json. */
static void on_warning(void *context, const char *message)
{
    run *r = context;
    tell_notes(r);
    tell(r, message);
    for (int i = 0; i < r->outputs; i++) {
        qz_report_note(r->made[i].report, QZ_WARN, "%s", message);
        r->made[i].notes_told = qz_report_notes(r->made[i].report);
    }
}

static int on_progress(void *context, const qz_progress_state *state)
{
    run *r = context;
    tell_notes(r);
    return qz_terminal_progress(&r->terminal, state);
}

/* ---- texts ---- */

static qz_status load_calibration(run *r)
{
    const qz_recipe *recipe = r->job.recipe;
    if (r->cli->statistics || !recipe->calibration.data || recipe->calibration.samples == 0) return QZ_OK;
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

/* What --statistics names, if it was made from this model and this text. */
static qz_status open_statistics(run *r)
{
    qz_stats_source mine;
    if (!r->cli->statistics) return QZ_OK;
    QZ_TRY(qz_statistics_source(&mine, &r->job.session, r->job.recipe, r->cli->arena));
    QZ_TRY(qz_stats_file_open(&r->statistics, r->cli->statistics));
    return qz_stats_file_check(r->statistics, &mine);
}

static qz_status load_texts(run *r)
{
    double began = qz_seconds();
    QZ_TRY(open_statistics(r));
    QZ_TRY(load_calibration(r));
    QZ_TRY(load_evaluation(r));
    qz_progress_book(r->progress, "tokenize", qz_seconds() - began);
    return qz_signals_check();
}

/* ---- work ---- */

static qz_status evaluate_original(run *r)
{
    QZ_TRY(qz_session_count(&r->before, &r->job.session));
    QZ_TRY(qz_folder_bytes(&r->source_folder_bytes, r->job.recipe->model));
    if (!r->job.recipe->evaluate.wanted) return QZ_OK;
    QZ_TRY(qz_eval_hidden(&r->hidden, &r->original, r->job.session.model, &r->evaluation, r->progress));
    return qz_hidden_spill(r->hidden, qz_output_work(r->made[0].output)); /* until the outputs are there */
}

/* The next attempt may go better: not when the input is at fault. */
static bool may_pass(qz_status status)
{
    return status == QZ_IO || status == QZ_MEMORY || status == QZ_INTERRUPTED;
}

/* Finished layers are kept for it. */
static void keep_finished(run *r, qz_status status)
{
    qz_error saved;
    qz_error_save(&saved, status);
    for (int i = 0; i < r->outputs && may_pass(status); i++)
        if (r->made[i].output && qz_journal_peek(qz_output_work(r->made[i].output)) > 0)
            qz_output_keep(r->made[i].output);
    (void)qz_error_restore(&saved);
}

/* What a failed run leaves behind, and what can be done with it. */
static void tell_kept(run *r, qz_status status)
{
    qz_error saved;
    if (!may_pass(status)) return;
    qz_error_save(&saved, status);
    for (int i = 0; i < r->outputs; i++) {
        const qz_output *o = r->made[i].output;
        if (!o || !qz_output_is_kept(o)) continue;
        fprintf(r->cli->err, "qcal: %s keeps %zu finished layers: the same command with --resume goes on from there\n",
                qz_output_work(o), qz_journal_peek(qz_output_work(o)));
    }
    (void)qz_error_restore(&saved);
}

static qz_status calibrate(run *r)
{
    qz_calib_output outputs[QZ_RECIPE_OUTPUTS];
    for (int i = 0; i < r->outputs; i++)
        outputs[i] = (qz_calib_output){.recipe = r->job.output[i].recipe,
                                       .plan = &r->job.output[i].plan,
                                       .folder = qz_output_work(r->made[i].output),
                                       .report = r->made[i].report};
    const qz_calib_args args = {.model = r->job.session.model,
                                .windows = &r->calibration,
                                .output = outputs,
                                .outputs = r->outputs,
                                .read = r->statistics,
                                .original = r->job.several,
                                .journal = true,
                                .resume = r->cli->resume,
                                .progress = r->progress};
    return qz_calib_run(&args);
}

static qz_status evaluate_model(run *r, qz_run_result *result, const qz_model *m)
{
    QZ_TRY(qz_eval_against(r->hidden, &result->quantized, &result->divergence, m, &r->evaluation, r->progress));
    result->evaluated = true;
    return QZ_OK;
}

/* On the folder that was written, opened anew. */
static qz_status evaluate_written(run *r, int number)
{
    qz_session written;
    const qz_job_output *o = &r->job.output[number];
    qz_run_result *result = &r->made[number].result;
    const char *folder = qz_output_work(r->made[number].output);
    QZ_TRY(qz_session_open_weights(&written, folder, o->recipe->backend, o->pass_through, r->cli->arena));
    qz_status status = qz_session_count(&result->after, &written);
    if (status == QZ_OK && o->recipe->evaluate.wanted) status = evaluate_model(r, result, written.model);
    qz_session_close(&written);
    QZ_TRY(status);
    return qz_folder_bytes(&result->folder_bytes, folder);
}

static qz_status judge(made *m)
{
    qz_run_result *result = &m->result;
    const bool evaluated = result->evaluated;
    qz_accept_judge(&result->acceptance, result->recipe, &result->original, evaluated ? &result->quantized : NULL,
                    evaluated ? &result->divergence : NULL, m->report);
    return qz_accept_mark(qz_output_work(m->output), &result->acceptance);
}

/* What the container's usual consumer will say to the folder: told, and kept for report.json. */
static qz_status check_serving(run *r, made *m)
{
    qz_consumer consumer;
    const qz_container *container = qz_container_at((size_t)m->result.recipe->output_as.container.index);
    if (!container->consumer) return QZ_OK;
    QZ_TRY(qz_consumer_find(&consumer, container->consumer));
    QZ_TRY(qz_serving_check(&m->result.serving, qz_output_work(m->output), consumer, r->cli->arena));
    m->result.served = true;
    qz_terminal_clear(&r->terminal);
    const size_t limits = m->result.serving.count[QZ_HARM_LIMITED];
    if (qz_serving_spoils(&m->result.serving))
        qz_serving_print(&m->result.serving, r->cli->err, "qcal: ");
    else if (limits && !r->cli->quiet)
        fprintf(r->cli->err, "qcal: %s will load it, not everywhere (%zu limit%s): qcal check %s --for %s\n",
                container->consumer, limits, limits == 1 ? "" : "s", m->result.recipe->output, container->consumer);
    return QZ_OK;
}

static qz_status write_report(run *r, made *m)
{
    tell_notes(r);
    qz_terminal_clear(&r->terminal);
    QZ_TRY(qz_run_report(&m->text, &m->result, r->cli->arena));
    char *path = qz_path_join(r->cli->arena, qz_output_work(m->output), "report.json");
    if (!path) return qz_arena_failed(r->cli->arena);
    return qz_file_write(path, m->text, strlen(m->text));
}

static void fill_result(run *r, int number, double began)
{
    qz_run_result *result = &r->made[number].result;
    result->job = &r->job;
    result->recipe = r->job.output[number].recipe;
    result->report = r->made[number].report;
    result->terminal = &r->terminal;
    result->progress = r->progress;
    result->original = r->original;
    result->before = r->before;
    result->source_folder_bytes = r->source_folder_bytes;
    result->calibration_hash = r->calibration.hash;
    result->evaluation_hash = r->evaluation.hash;
    result->seconds = qz_seconds() - began;
}

/* Everything between the plan and the moment when the outputs appear. */
static qz_status work(run *r, double began)
{
    QZ_TRY(load_texts(r));
    QZ_TRY(evaluate_original(r));
    QZ_TRY(calibrate(r));
    for (int i = 0; i < r->outputs; i++) QZ_TRY(evaluate_written(r, i));
    QZ_TRY(qz_signals_check());
    qz_memory_use_sample(&r->terminal.memory);
    for (int i = 0; i < r->outputs; i++) {
        fill_result(r, i, began);
        QZ_TRY(judge(&r->made[i]));
        QZ_TRY(check_serving(r, &r->made[i]));
        QZ_TRY(write_report(r, &r->made[i]));
    }
    return QZ_OK;
}

static qz_status tell_result(run *r, made *m, int *exit_code)
{
    if (r->cli->json)
        fputs(m->text, r->cli->out);
    else
        QZ_TRY(qz_run_print(&m->result, r->cli));
    if (m->result.acceptance.verdict == QZ_NOT_ACCEPTED) *exit_code = QZ_EXIT_NOT_ACCEPTED;
    qz_accept_print(r->cli->err, "qcal: ", &m->result.acceptance);
    return QZ_OK;
}

static qz_status finish(run *r, int *exit_code)
{
    for (int i = 0; i < r->outputs; i++) {
        qz_output *output = r->made[i].output;
        r->made[i].output = NULL;
        QZ_TRY(qz_output_commit(output));
        QZ_TRY(tell_result(r, &r->made[i], exit_code));
    }
    return QZ_OK;
}

/* ---- opening and closing ---- */

static qz_status open_output(qz_output **out, const char *path, const qz_cli *cli)
{
    return cli->resume ? qz_output_resume(out, path, cli->overwrite) : qz_output_open(out, path, cli->overwrite);
}

static qz_status open_outputs(run *r)
{
    for (int i = 0; i < r->outputs; i++)
        QZ_TRY(open_output(&r->made[i].output, r->job.output[i].recipe->output, r->cli));
    return QZ_OK;
}

static qz_status run_job(run *r, int *exit_code, double began)
{
    bool show_plan = !r->cli->quiet && !r->cli->json;
    if (show_plan) QZ_TRY(qz_job_print_plan(&r->job, r->cli));
    QZ_TRY(qz_job_fits(&r->job));
    qz_progress_book(r->progress, "plan", qz_seconds() - began);
    QZ_TRY(open_outputs(r));
    qz_status status = work(r, began);
    if (status != QZ_OK) keep_finished(r, status);
    return status == QZ_OK ? finish(r, exit_code) : status;
}

static qz_status open_reports(run *r)
{
    for (; r->outputs < r->job.outputs; r->outputs++) QZ_TRY(qz_report_new(&r->made[r->outputs].report));
    return QZ_OK;
}

/* Warnings that come while the job is opened have no report yet: they are printed only, unless there is one output. */
static qz_status run_with_job(run *r, int *exit_code)
{
    double began = qz_seconds();
    qz_log_to(on_warning, r);
    QZ_TRY(qz_job_open(&r->job, r->cli));
    qz_status status = open_reports(r);
    if (status == QZ_OK) status = run_job(r, exit_code, began);
    qz_terminal_clear(&r->terminal);
    tell_kept(r, status);
    for (int i = 0; i < r->outputs; i++) qz_output_abandon(r->made[i].output);
    qz_hidden_free(r->hidden);
    qz_stats_file_abandon(r->statistics);
    qz_job_close(&r->job);
    return status;
}

qz_status qz_cmd_run(qz_cli *cli, int *exit_code)
{
    run r = {.cli = cli, .terminal = qz_terminal_new(cli->err, cli->quiet)};
    *exit_code = QZ_EXIT_DONE;
    qz_signals_catch();
    qz_status status = qz_report_new(&r.made[0].report);
    r.outputs = status == QZ_OK;
    if (status == QZ_OK) status = qz_progress_new(&r.progress, on_progress, &r);
    if (status == QZ_OK) status = run_with_job(&r, exit_code);
    qz_log_to(NULL, NULL);
    qz_progress_free(r.progress);
    for (int i = 0; i < r.outputs; i++) qz_report_free(r.made[i].report);
    return status;
}
