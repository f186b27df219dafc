/* qat train: recipe -> model -> plan -> (the recipe's own quantization) -> training in OUTPUT.partial -> what was
 * exported, read back and evaluated beside the original and the start -> report.json -> OUTPUT. */
#include "base/file.h"
#include "programs/run.h"
#include "programs/signals.h"

/* The checkpoint of train.init "ptq" while training lasts. */
static const char start_folder[] = "start";

static qz_status fill_start(qz_run *r, const char *folder)
{
    qz_made *m = &r->made[0];
    if (!r->job.recipe->evaluate.wanted) return QZ_OK;
    return qz_run_evaluate_folder(r, 0, folder, &m->result.start);
}

/* Quantizes into OUTPUT.partial/start, unless the run that is resumed did; then the model is opened from there. */
static qz_status quantize(qz_run *r)
{
    qz_arena *arena = r->cli->arena;
    const char *work = qz_output_work(r->made[0].output);
    const char *folder = qz_path_join(arena, work, start_folder);
    const char *unfinished = folder ? qz_arena_printf(arena, "%s.partial", folder) : NULL;
    if (!unfinished) return qz_arena_failed(arena);
    if (!qz_path_exists(folder)) {
        if (qz_path_exists(unfinished)) QZ_TRY(qz_folder_remove(unfinished));
        QZ_TRY(qz_folder_make(unfinished));
        QZ_TRY(qz_run_calibrate(r, &unfinished, false));
        QZ_TRY(qz_path_rename(unfinished, folder));
    }
    return qz_session_open_weights(&r->job.start, folder, r->job.recipe->backend, r->job.output[0].pass_through, arena);
}

static qz_status prepare_start(qz_run *r)
{
    if (qz_recipe_starts_from_ptq(r->job.recipe)) QZ_TRY(quantize(r));
    return r->job.start.ckpt ? fill_start(r, qz_ckpt_folder(r->job.start.ckpt)) : QZ_OK;
}

static qz_status train(qz_run *r)
{
    qz_made *m = &r->made[0];
    qz_train_args args = qz_job_train_args(&r->job);
    args.evaluation = &r->evaluation;
    args.folder = qz_output_work(m->output);
    args.resume = r->cli->resume;
    args.report = m->report;
    args.progress = r->progress;
    m->result.trained = true;
    return qz_train_run(&m->result.training, &args);
}

/* An adapter is no model by itself: its figures are those that training found with the base under it. */
static qz_status measure(qz_run *r)
{
    qz_run_result *result = &r->made[0].result;
    const char *folder = qz_output_work(r->made[0].output);
    if (!r->job.recipe->train.adapter.wanted) return qz_run_evaluate_folder(r, 0, folder, &result->made);
    result->made.evaluated = result->training.evaluated;
    result->made.perplexity = result->training.trained;
    return qz_folder_bytes(&result->made.folder_bytes, folder);
}

static qz_status remove_start(const qz_run *r)
{
    if (!qz_recipe_starts_from_ptq(r->job.recipe)) return QZ_OK;
    const char *folder = qz_path_join(r->cli->arena, qz_output_work(r->made[0].output), start_folder);
    return folder ? qz_folder_remove(folder) : qz_arena_failed(r->cli->arena);
}

static qz_status work(qz_run *r)
{
    QZ_TRY(qz_run_load_texts(r));
    QZ_TRY(qz_run_evaluate_original(r));
    QZ_TRY(prepare_start(r));
    QZ_TRY(train(r));
    QZ_TRY(measure(r));
    QZ_TRY(qz_signals_check());
    qz_session_close(&r->job.start);
    QZ_TRY(remove_start(r));
    return qz_run_conclude(r, 0);
}

qz_status qz_cmd_train(qz_cli *cli, int *exit_code)
{
    return qz_run_command(cli, exit_code, work);
}
