/* Cheap checks come first: recipe, output folder, then the model's headers, then a short measurement. */
#include "programs/job.h"

#include "base/log.h"
#include "programs/catalog.h"
#include "programs/output_folder.h"

static const double seconds_of_measurement = 0.1;

static qz_status check_output(const qz_recipe *r, const qz_cli *cli)
{
    QZ_TRY(qz_output_check(r->output, cli->overwrite));
    QZ_TRY(qz_output_keeps(r->output, r->model));
    QZ_TRY(qz_output_keeps(r->output, r->calibration.data));
    QZ_TRY(qz_output_keeps(r->output, r->evaluate.data));
    return qz_output_keeps(r->output, cli->argument[0]);
}

static qz_status make_plan(qz_job *job, qz_arena *arena)
{
    const qz_backend *backend = job->session.backend;
    QZ_TRY(qz_calib_export_plan(&job->export_plan, job->recipe, job->session.model, arena));
    if (backend->warning && backend->warning()) qz_warn("%s", backend->warning());
    QZ_TRY(qz_backend_measure(backend, seconds_of_measurement, &job->gflops));
    job->plan_fits = qz_calib_plan(&job->plan, job->recipe, job->session.model, &job->export_plan, job->gflops);
    if (job->plan_fits != QZ_OK) qz_error_save(&job->plan_error, job->plan_fits);
    return QZ_OK;
}

qz_status qz_job_open(qz_job *out, const qz_cli *cli)
{
    qz_recipe *recipe;
    *out = (qz_job){0};
    QZ_TRY(qz_catalog_read_recipe(&recipe, cli));
    out->recipe = recipe;
    out->pass_through = qz_pattern_list(&recipe->output_as.pass_through, cli->arena);
    if (!out->pass_through) return qz_arena_failed(cli->arena);
    QZ_TRY(check_output(recipe, cli));
    QZ_TRY(qz_session_open(&out->session, recipe->model, recipe->backend, out->pass_through, cli->arena));
    qz_status status = make_plan(out, cli->arena);
    if (status != QZ_OK) qz_job_close(out);
    return status;
}

void qz_job_close(qz_job *job)
{
    qz_session_close(&job->session);
}

qz_status qz_job_fits(const qz_job *job)
{
    return job->plan_fits == QZ_OK ? QZ_OK : qz_error_restore(&job->plan_error);
}
