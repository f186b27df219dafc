/* Cheap checks come first: recipe, output folder, then the model's headers, then a short measurement. */
#include "programs/job.h"

#include "base/log.h"
#include "programs/catalog.h"
#include "programs/output_folder.h"

static const double seconds_of_measurement = 0.1;

static qz_status check_output(const qz_recipe *r, const qz_cli *cli)
{
    QZ_TRY(cli->resume ? qz_output_check_resume(r->output, cli->overwrite)
                       : qz_output_check(r->output, cli->overwrite));
    if (cli->resume) QZ_TRY(qz_output_check_program(r->output, cli->program->trains));
    QZ_TRY(qz_output_keeps(r->output, r->model));
    QZ_TRY(qz_output_keeps(r->output, r->calibration.data));
    QZ_TRY(qz_output_keeps(r->output, r->evaluate.data));
    QZ_TRY(qz_output_keeps(r->output, r->train.data));
    QZ_TRY(qz_output_keeps(r->output, r->train.validation.data));
    QZ_TRY(qz_output_keeps(r->output, r->train.init));
    QZ_TRY(qz_output_keeps(r->output, r->train.loss.teacher));
    QZ_TRY(qz_output_keeps(r->output, r->train.adapter.from));
    return qz_output_keeps(r->output, cli->argument[0]);
}

static qz_status add_output(qz_job *job, const qz_recipe *recipe, const qz_cli *cli)
{
    qz_job_output *o = &job->output[job->outputs++];
    o->recipe = recipe;
    o->pass_through = qz_pattern_list(&recipe->output_as.pass_through, cli->arena);
    if (!o->pass_through) return qz_arena_failed(cli->arena);
    return check_output(recipe, cli);
}

/* What an interrupted run has put in its place already is not made again; that all of it is there is an error. */
static qz_status collect_outputs(qz_job *job, const qz_recipe *recipe, const qz_cli *cli)
{
    job->several = recipe->output_count > 1;
    for (int i = 0; i < recipe->output_count; i++) {
        const qz_recipe *r = recipe->outputs[i];
        const bool last = i + 1 == recipe->output_count && job->outputs == 0;
        if (cli->resume && !last && qz_output_is_finished(r->output, r->hash)) continue;
        QZ_TRY(add_output(job, r, cli));
    }
    if (!recipe->output_count) QZ_TRY(add_output(job, recipe, cli));
    job->recipe = job->output[0].recipe;
    return QZ_OK;
}

static bool trains(const qz_job *job)
{
    return job->recipe->train.wanted && !job->adapter;
}

static qz_status check_length(const char *key, int64_t length, bool used, const qz_job *job)
{
    const int64_t most = qz_model_config_of(job->session.model)->context;
    if (!used || length <= most) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s: found %lld, but max_position_embeddings of %s is %lld: set it to at most that", key,
                   (long long)length, job->recipe->model, (long long)most);
}

/* Windows that are longer than the model's context. */
static qz_status check_lengths(const qz_job *job)
{
    const qz_recipe *r = job->recipe;
    const qz_recipe_train *t = &r->train;
    const bool calibrates = (!trains(job) || qz_recipe_starts_from_ptq(r)) && r->calibration.data;
    QZ_TRY(check_length("calibration.sequence_length", r->calibration.sequence_length, calibrates, job));
    QZ_TRY(check_length("evaluate.sequence_length", r->evaluate.sequence_length, r->evaluate.wanted, job));
    QZ_TRY(check_length("train.sequence_length", t->sequence_length, trains(job), job));
    return check_length("train.validation.sequence_length", t->validation.sequence_length,
                        trains(job) && t->validation.wanted, job);
}

static qz_status make_plans(qz_job *job, qz_arena *arena)
{
    qz_calib_output outputs[QZ_RECIPE_OUTPUTS];
    for (int i = 0; i < job->outputs; i++) {
        qz_job_output *o = &job->output[i];
        QZ_TRY_CTX(qz_calib_export_plan(&o->plan, o->recipe, job->session.model, arena), "%s", o->recipe->output);
        outputs[i] = (qz_calib_output){.recipe = o->recipe, .plan = &o->plan};
    }
    const qz_calib_args args = {
        .model = job->session.model, .output = outputs, .outputs = job->outputs, .original = job->several};
    job->plan_fits = qz_calib_plan(&job->plan, &args, job->gflops);
    if (trains(job) && job->plan_fits == QZ_OK) job->plan_fits = qz_job_plan_training(job);
    if (job->plan_fits != QZ_OK) qz_error_save(&job->plan_error, job->plan_fits);
    return QZ_OK;
}

static qz_status plan(qz_job *job, qz_arena *arena)
{
    const qz_backend *backend = job->session.backend;
    if (backend->warning && backend->warning()) qz_warn("%s", backend->warning());
    QZ_TRY(qz_backend_measure(backend, seconds_of_measurement, &job->gflops));
    return make_plans(job, arena);
}

qz_status qz_job_open(qz_job *out, const qz_cli *cli)
{
    qz_recipe *recipe;
    *out = (qz_job){0};
    QZ_TRY(qz_catalog_read_recipe(&recipe, cli));
    if (cli->merges) QZ_TRY(qz_job_redirect(out, recipe, cli));
    QZ_TRY(collect_outputs(out, recipe, cli));
    QZ_TRY(qz_session_open(&out->session, recipe->model, recipe->backend, out->output[0].pass_through, cli->arena));
    qz_status status = check_lengths(out);
    if (status == QZ_OK && trains(out)) status = qz_job_open_training(out, cli);
    if (status == QZ_OK) status = plan(out, cli->arena);
    if (status != QZ_OK) qz_job_close(out);
    return status;
}

void qz_job_close(qz_job *job)
{
    qz_session_close(&job->teacher);
    qz_session_close(&job->start);
    qz_session_close(&job->session);
}

qz_status qz_job_fits(const qz_job *job)
{
    return job->plan_fits == QZ_OK ? QZ_OK : qz_error_restore(&job->plan_error);
}
