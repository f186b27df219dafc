/* What the commands that make checkpoints share: recipe -> job -> plan -> texts -> the original's perplexity -> OUTPUT
 * .partial -> (the command's own work) -> what was written, read back and evaluated -> report.json -> OUTPUT. */
#include "programs/checkpoint_run.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "programs/demo_text.h"
#include "programs/signals.h"

/* ---- messages ---- */

static void tell(qz_run *r, const char *warning)
{
    qz_terminal_clear(&r->terminal);
    fprintf(r->cli->err, "%s: warning: %s\n", r->cli->program->name, warning);
}

/* Notes of the reports that were not printed yet. */
static void tell_notes(qz_run *r)
{
    for (int i = 0; i < r->outputs; i++)
        for (qz_made *m = &r->made[i]; m->notes_told < qz_report_notes(m->report); m->notes_told++) {
            qz_severity severity;
            const char *note = qz_report_note_at(m->report, m->notes_told, &severity);
            if (severity == QZ_WARN) tell(r, note);
        }
}

/* Warnings are printed when they come, and kept for every report.json. */
static void on_warning(void *context, const char *message)
{
    qz_run *r = context;
    tell_notes(r);
    tell(r, message);
    for (int i = 0; i < r->outputs; i++) {
        qz_report_note(r->made[i].report, QZ_WARN, "%s", message);
        r->made[i].notes_told = qz_report_notes(r->made[i].report);
    }
}

static int on_progress(void *context, const qz_progress_state *state)
{
    qz_run *r = context;
    tell_notes(r);
    return qz_terminal_progress(&r->terminal, state);
}

/* ---- texts ---- */

static qz_status load_calibration(qz_run *r)
{
    const qz_recipe *recipe = r->job.recipe;
    const bool used = !recipe->train.wanted || r->job.adapter || qz_recipe_starts_from_ptq(recipe);
    if (!used || r->cli->statistics || !recipe->calibration.data || recipe->calibration.samples == 0) return QZ_OK;
    qz_windows_rule rule = {.path = recipe->calibration.data,
                            .field = recipe->calibration.field,
                            .count = recipe->calibration.samples,
                            .length = recipe->calibration.sequence_length,
                            .shuffle = recipe->calibration.shuffle,
                            .seed = recipe->calibration.seed};
    QZ_TRY_CTX(qz_session_windows(&r->calibration, &r->job.session, &rule), "calibration.data");
    return qz_demo_text_warn(&r->job.session, rule.path, r->calibration.hash);
}

static qz_status load_evaluation(qz_run *r)
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

qz_status qz_run_load_texts(qz_run *r)
{
    const double began = qz_seconds();
    QZ_TRY(load_calibration(r));
    QZ_TRY(load_evaluation(r));
    qz_progress_book(r->progress, "tokenize", qz_seconds() - began);
    return qz_signals_check();
}

/* ---- work ---- */

qz_status qz_run_evaluate_original(qz_run *r)
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

/* Finished layers are kept for it, and a state of a training always: it took the time, and another rate, or what
 * export or evaluation lacked, can be had without taking it again. */
static void keep_finished(qz_run *r, qz_status status)
{
    qz_error saved;
    qz_output_done done;
    qz_error_save(&saved, status);
    for (int i = 0; i < r->outputs; i++)
        if (r->made[i].output && qz_output_progress(&done, qz_output_work(r->made[i].output)) &&
            (done.step > 0 || may_pass(status)))
            qz_output_keep(r->made[i].output);
    (void)qz_error_restore(&saved);
}

/* The same command would fail again where the input is at fault. */
static const char *what_next(qz_status status)
{
    if (may_pass(status)) return "the same command with --resume goes on from there";
    if (status == QZ_NUMERIC)
        return "--resume goes on from there, with another train.learning_rate, train.warmup or train.clip_norm if you "
               "like; where that fails at once, its weights were past saving: remove the newest file in training to "
               "go back further, or start again with --overwrite";
    return "once that is put right, the same recipe with --resume goes on from there";
}

/* What a failed run leaves behind, and what can be done with it. */
static void tell_kept(qz_run *r, qz_status status)
{
    qz_error saved;
    if (status == QZ_OK) return;
    qz_error_save(&saved, status);
    for (int i = 0; i < r->outputs; i++) {
        qz_output_done done;
        const qz_output *o = r->made[i].output;
        if (!o || !qz_output_is_kept(o)) continue;
        if (!qz_output_progress(&done, qz_output_work(o))) continue;
        if (done.step == 0 && !may_pass(status)) continue;
        fprintf(r->cli->err, "%s: %s keeps %s: %s\n", r->cli->program->name, qz_output_work(o), done.text,
                what_next(status));
    }
    (void)qz_error_restore(&saved);
}

qz_calib_output qz_run_output(const qz_run *r, int i, const char *folder)
{
    const qz_job_output *o = &r->job.output[i];
    return (qz_calib_output){.recipe = o->recipe, .plan = &o->plan, .folder = folder, .report = r->made[i].report};
}

qz_status qz_run_calibrate(qz_run *r, const qz_model *m, const char *const *folders, bool resume)
{
    qz_calib_output outputs[QZ_RECIPE_OUTPUTS];
    for (int i = 0; i < r->outputs; i++) outputs[i] = qz_run_output(r, i, folders[i]);
    const qz_calib_args args = {.model = m,
                                .windows = &r->calibration,
                                .output = outputs,
                                .outputs = r->outputs,
                                .read = r->statistics,
                                .original = r->job.several,
                                .journal = !r->job.recipe->train.wanted,
                                .resume = resume,
                                .progress = r->progress};
    return qz_calib_run(&args);
}

qz_status qz_run_evaluate_folder(qz_run *r, int number, const char *folder, qz_measured *out)
{
    qz_session written;
    const qz_job_output *o = &r->job.output[number];
    QZ_TRY(qz_session_open_weights(&written, folder, o->recipe->backend, o->pass_through, r->cli->arena));
    qz_status status = qz_session_count(&out->weights, &written);
    if (status == QZ_OK && o->recipe->evaluate.wanted) {
        status =
            qz_eval_against(r->hidden, &out->perplexity, &out->divergence, written.model, &r->evaluation, r->progress);
        out->evaluated = out->diverged = status == QZ_OK;
    }
    qz_session_close(&written);
    QZ_TRY(status);
    return qz_folder_bytes(&out->folder_bytes, folder);
}

static qz_status judge(qz_made *m)
{
    qz_run_result *result = &m->result;
    const qz_measured *found = &result->made;
    qz_accept_judge(&result->acceptance, result->recipe, &result->original,
                    found->evaluated ? &found->perplexity : NULL, found->diverged ? &found->divergence : NULL,
                    m->report);
    return qz_accept_mark(qz_output_work(m->output), &result->acceptance);
}

/* "qcal: " */
static const char *prefix(const qz_run *r)
{
    return r->cli->program->trains ? "qat: " : "qcal: ";
}

/* What the container's usual consumer will say to the folder: told, and kept for report.json. */
static qz_status check_serving(qz_run *r, qz_made *m)
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
        qz_serving_print(&m->result.serving, r->cli->err, prefix(r));
    else if (limits && !r->cli->quiet)
        fprintf(r->cli->err, "%s%s will load it, not everywhere (%zu limit%s): qcal check %s --for %s\n", prefix(r),
                container->consumer, limits, limits == 1 ? "" : "s", m->result.recipe->output, container->consumer);
    return QZ_OK;
}

static qz_status write_report(qz_run *r, qz_made *m)
{
    tell_notes(r);
    qz_terminal_clear(&r->terminal);
    QZ_TRY(qz_run_report(&m->text, &m->result, r->cli->arena));
    char *path = qz_path_join(r->cli->arena, qz_output_work(m->output), "report.json");
    if (!path) return qz_arena_failed(r->cli->arena);
    return qz_file_write(path, m->text, strlen(m->text));
}

static void fill_result(qz_run *r, int number)
{
    qz_run_result *result = &r->made[number].result;
    result->program = r->cli->program->name;
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
    result->validation_hash = r->validation.hash;
    result->seconds = qz_seconds() - r->began;
}

qz_status qz_run_conclude(qz_run *r, int number)
{
    qz_made *m = &r->made[number];
    qz_memory_use_sample(&r->terminal.memory);
    fill_result(r, number);
    QZ_TRY(judge(m));
    if (m->result.made.weights.numbers) QZ_TRY(check_serving(r, m));
    return write_report(r, m);
}

static qz_status tell_result(qz_run *r, qz_made *m, int *exit_code)
{
    if (r->cli->json)
        fputs(m->text, r->cli->out);
    else
        QZ_TRY(qz_run_print(&m->result, r->cli));
    if (m->result.acceptance.verdict == QZ_NOT_ACCEPTED) *exit_code = QZ_EXIT_NOT_ACCEPTED;
    qz_accept_print(r->cli->err, prefix(r), &m->result.acceptance);
    return QZ_OK;
}

static qz_status finish(qz_run *r, int *exit_code)
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

static qz_status open_outputs(qz_run *r)
{
    for (int i = 0; i < r->outputs; i++)
        QZ_TRY(open_output(&r->made[i].output, r->job.output[i].recipe->output, r->cli));
    return QZ_OK;
}

static qz_status run_job(qz_run *r, int *exit_code, qz_run_work work)
{
    bool show_plan = !r->cli->quiet && !r->cli->json;
    if (show_plan) QZ_TRY(qz_job_print_plan(&r->job, r->cli));
    QZ_TRY(qz_job_fits(&r->job));
    qz_progress_book(r->progress, "plan", qz_seconds() - r->began);
    QZ_TRY(open_outputs(r));
    qz_status status = work(r);
    if (status != QZ_OK) keep_finished(r, status);
    return status == QZ_OK ? finish(r, exit_code) : status;
}

static qz_status open_reports(qz_run *r)
{
    for (; r->outputs < r->job.outputs; r->outputs++) QZ_TRY(qz_report_new(&r->made[r->outputs].report));
    return QZ_OK;
}

/* Warnings that come while the job is opened have no report yet: they are printed only, unless there is one output. */
static qz_status run_with_job(qz_run *r, int *exit_code, qz_run_work work)
{
    r->began = qz_seconds();
    qz_log_to(on_warning, r);
    QZ_TRY(qz_job_open(&r->job, r->cli));
    qz_status status = open_reports(r);
    if (status == QZ_OK) status = run_job(r, exit_code, work);
    qz_terminal_clear(&r->terminal);
    tell_kept(r, status);
    for (int i = 0; i < r->outputs; i++) qz_output_abandon(r->made[i].output);
    qz_hidden_free(r->hidden);
    qz_stats_file_abandon(r->statistics);
    qz_job_close(&r->job);
    return status;
}

qz_status qz_run_command(qz_cli *cli, int *exit_code, qz_run_work work)
{
    qz_run r = {.cli = cli, .terminal = qz_terminal_new(cli->err, cli->quiet)};
    *exit_code = QZ_EXIT_DONE;
    qz_signals_catch();
    qz_status status = qz_report_new(&r.made[0].report);
    r.outputs = status == QZ_OK;
    if (status == QZ_OK) status = qz_progress_new(&r.progress, on_progress, &r);
    if (status == QZ_OK) status = run_with_job(&r, exit_code, work);
    qz_log_to(NULL, NULL);
    qz_progress_free(r.progress);
    for (int i = 0; i < r.outputs; i++) qz_report_free(r.made[i].report);
    return status;
}
