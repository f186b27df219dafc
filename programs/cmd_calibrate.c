/* qcal calibrate: recipe -> model -> windows -> one pass over the model as it is -> statistics file. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parallel.h"
#include "programs/catalog.h"
#include "programs/demo_text.h"
#include "programs/signals.h"
#include "programs/statistics_source.h"
#include "programs/table.h"
#include "programs/terminal.h"

typedef struct calibration {
    qz_cli *cli;
    const qz_recipe *recipe;
    qz_session session;
    qz_windows windows;
    qz_terminal terminal;
    qz_progress *progress;
    qz_report *report;
    size_t notes_told;
    uint64_t announced, bytes; /* of the file: at most, and in the end */
    double seconds;
} calibration;

/* ---- messages ---- */

static void tell(calibration *c, const char *warning)
{
    qz_terminal_clear(&c->terminal);
    fprintf(c->cli->err, "qcal: warning: %s\n", warning);
}

static void on_warning(void *context, const char *message)
{
    tell(context, message);
}

static int on_progress(void *context, const qz_progress_state *state)
{
    calibration *c = context;
    return qz_terminal_progress(&c->terminal, state);
}

static void tell_notes(calibration *c)
{
    for (; c->notes_told < qz_report_notes(c->report); c->notes_told++) {
        qz_severity severity;
        const char *note = qz_report_note_at(c->report, c->notes_told, &severity);
        if (severity == QZ_WARN) tell(c, note);
    }
}

/* ---- before the work ---- */

/* Only a statistics file is ever replaced, and only when that is asked for. */
static qz_status check_target(const char *path, bool overwrite)
{
    qz_stats_file *old;
    if (!qz_path_exists(path)) return QZ_OK;
    if (!overwrite) return QZ_FAIL(QZ_IO, "%s: exists; choose another file, or replace it with --overwrite", path);
    qz_status status = qz_stats_file_open(&old, path);
    if (status != QZ_OK) return qz_error_context(status, "--overwrite replaces statistics files only");
    qz_stats_file_abandon(old); /* one that was opened stays */
    return QZ_OK;
}

static qz_status check_recipe(const calibration *c)
{
    const qz_recipe *r = c->recipe;
    if (!c->cli->statistics) return QZ_FAIL(QZ_ARG, "--statistics FILE is needed: where the statistics go");
    if (!r->calibration.data || r->calibration.samples == 0)
        return QZ_FAIL(QZ_ARG, "calibration.data: a text is needed; name one in the recipe or with --data FILE");
    if (r->calibration.propagate == QZ_PROPAGATE_QUANTIZED)
        return QZ_FAIL(QZ_ARG,
                       "calibration.propagate: found \"quantized\", but a statistics file describes the original "
                       "model; set it to \"original\" or leave it out");
    return check_target(c->cli->statistics, c->cli->overwrite);
}

static qz_status check_disk(calibration *c)
{
    uint64_t available;
    char needed[32], there[32];
    QZ_TRY(qz_statistics_bytes(&c->announced, &c->session, c->recipe, c->cli->arena));
    QZ_TRY(qz_disk_free(c->cli->statistics, &available));
    if (c->announced <= available) return QZ_OK;
    return QZ_FAIL(QZ_IO,
                   "%s: takes up to %s, but %s are free; choose another disk, set statistics.type to \"f16\", or name "
                   "some layers in statistics.layers",
                   c->cli->statistics, qz_text_bytes(needed, c->announced), qz_text_bytes(there, available));
}

static void print_plan(const calibration *c)
{
    char size[32];
    const qz_recipe *r = c->recipe;
    if (c->cli->quiet || c->cli->json) return;
    fprintf(c->cli->out, "%lld samples of %lld tokens through %s; %s takes up to %s\n",
            (long long)r->calibration.samples, (long long)r->calibration.sequence_length, r->model, c->cli->statistics,
            qz_text_bytes(size, c->announced));
}

/* ---- work ---- */

static qz_status load_text(calibration *c)
{
    const qz_recipe *r = c->recipe;
    const double began = qz_seconds();
    const qz_windows_rule rule = {.path = r->calibration.data,
                                  .field = r->calibration.field,
                                  .count = r->calibration.samples,
                                  .length = r->calibration.sequence_length,
                                  .shuffle = r->calibration.shuffle,
                                  .seed = r->calibration.seed};
    QZ_TRY_CTX(qz_session_windows(&c->windows, &c->session, &rule), "calibration.data");
    qz_progress_book(c->progress, "tokenize", qz_seconds() - began);
    return qz_demo_text_warn(&c->session, rule.path, c->windows.hash);
}

static qz_status gather(calibration *c, qz_stats_file *file)
{
    const qz_calib_args args = {.model = c->session.model,
                                .recipe = c->recipe,
                                .windows = &c->windows,
                                .write = file,
                                .report = c->report,
                                .progress = c->progress};
    qz_status status = qz_calib_run(&args);
    tell_notes(c);
    return status == QZ_OK ? qz_signals_check() : status;
}

static qz_status write_file(calibration *c)
{
    qz_stats_source source;
    qz_stats_file *file;
    QZ_TRY(qz_statistics_source(&source, &c->session, c->recipe, c->cli->arena));
    QZ_TRY(qz_stats_file_create(&file, c->cli->statistics, &source));
    qz_status status = gather(c, file);
    if (status == QZ_OK) return qz_stats_file_close(file);
    qz_error saved;
    qz_error_save(&saved, status);
    qz_stats_file_abandon(file);
    return qz_error_restore(&saved);
}

static qz_status print_json(const calibration *c)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "program", "qcal");
    qz_json_put_string(w, "version", QZ_VERSION);
    qz_json_put_string(w, "statistics", c->cli->statistics);
    qz_json_put_int(w, "bytes", (int64_t)c->bytes);
    qz_json_put_int(w, "samples", c->windows.count);
    qz_json_put_int(w, "sequence_length", c->windows.length);
    qz_json_put_double(w, "seconds", c->seconds);
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, c->cli->out);
    qz_json_writer_free(w);
    return status;
}

static qz_status print_result(const calibration *c)
{
    char size[32], time[32];
    if (c->cli->json) return print_json(c);
    fprintf(c->cli->out, "%s: %s, %lld tokens, %s; `qcal run RECIPE --statistics %s` starts from it\n",
            c->cli->statistics, qz_text_bytes(size, c->bytes), (long long)(c->windows.count * c->windows.length),
            qz_text_seconds(time, c->seconds), c->cli->statistics);
    return QZ_OK;
}

static qz_status work(calibration *c)
{
    const double began = qz_seconds();
    QZ_TRY(check_disk(c));
    print_plan(c);
    QZ_TRY(load_text(c));
    QZ_TRY(write_file(c));
    qz_terminal_clear(&c->terminal);
    QZ_TRY(qz_file_size(c->cli->statistics, &c->bytes));
    c->seconds = qz_seconds() - began;
    return print_result(c);
}

static qz_status open_and_work(calibration *c)
{
    qz_recipe *recipe;
    QZ_TRY(qz_catalog_read_recipe(&recipe, c->cli));
    c->recipe = recipe->output_count ? recipe->outputs[0] : recipe;
    QZ_TRY(check_recipe(c));
    const char *const *pass_through = qz_pattern_list(&c->recipe->output_as.pass_through, c->cli->arena);
    if (!pass_through) return qz_arena_failed(c->cli->arena);
    QZ_TRY(qz_session_open(&c->session, c->recipe->model, c->recipe->backend, pass_through, c->cli->arena));
    qz_status status = work(c);
    qz_terminal_clear(&c->terminal);
    qz_session_close(&c->session);
    return status;
}

qz_status qz_cmd_calibrate(qz_cli *cli, int *exit_code)
{
    calibration c = {.cli = cli, .terminal = qz_terminal_new(cli->err, cli->quiet)};
    *exit_code = QZ_EXIT_DONE;
    qz_signals_catch();
    qz_log_to(on_warning, &c);
    qz_status status = qz_report_new(&c.report);
    if (status == QZ_OK) status = qz_progress_new(&c.progress, on_progress, &c);
    if (status == QZ_OK) status = open_and_work(&c);
    qz_log_to(NULL, NULL);
    qz_progress_free(c.progress);
    qz_report_free(c.report);
    return status;
}
