/* qcal run: recipe -> model -> plan -> windows -> perplexity before -> calibrated checkpoints in OUTPUT.partial, read
 * back -> perplexity after -> report.json -> OUTPUT, for each output. */
#include "programs/checkpoint_run.h"
#include "programs/signals.h"
#include "programs/statistics_source.h"

/* What --statistics names, if it was made from this model and this text. */
static qz_status open_statistics(qz_run *r)
{
    qz_stats_source mine;
    if (!r->cli->statistics) return QZ_OK;
    QZ_TRY(qz_statistics_source(&mine, &r->job.session, r->job.recipe, r->cli->arena));
    QZ_TRY(qz_stats_file_open(&r->statistics, r->cli->statistics));
    return qz_stats_file_check(r->statistics, &mine);
}

static qz_status calibrate(qz_run *r)
{
    const char *folders[QZ_RECIPE_OUTPUTS];
    for (int i = 0; i < r->outputs; i++) folders[i] = qz_output_work(r->made[i].output);
    return qz_run_calibrate(r, r->job.session.model, folders, r->cli->resume);
}

static qz_status work(qz_run *r)
{
    QZ_TRY(open_statistics(r));
    QZ_TRY(qz_run_load_texts(r));
    QZ_TRY(qz_run_evaluate_original(r));
    QZ_TRY(calibrate(r));
    for (int i = 0; i < r->outputs; i++)
        QZ_TRY(qz_run_evaluate_folder(r, i, qz_output_work(r->made[i].output), &r->made[i].result.made));
    QZ_TRY(qz_signals_check());
    for (int i = 0; i < r->outputs; i++) QZ_TRY(qz_run_conclude(r, i));
    return QZ_OK;
}

qz_status qz_cmd_run(qz_cli *cli, int *exit_code)
{
    return qz_run_command(cli, exit_code, work);
}
