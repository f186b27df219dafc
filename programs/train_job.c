/* The folders that a recipe names beside its model, and the plan of a training. */
#include "programs/job.h"

#include <string.h>

/* A folder beside the model's, with the same vocabulary. */
static qz_status open_beside(qz_session *out, const qz_job *job, const char *key, const char *folder, const qz_cli *cli)
{
    const int64_t mine = qz_model_config_of(job->session.model)->vocabulary;
    QZ_TRY_CTX(qz_session_open_weights(out, folder, job->recipe->backend, job->output[0].pass_through, cli->arena),
               "%s", key);
    const int64_t theirs = qz_model_config_of(out->model)->vocabulary;
    if (theirs == mine) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "%s: %s has a vocabulary of %lld, but %s has one of %lld; predictions over other tokens cannot "
                   "be compared",
                   key, folder, (long long)theirs, job->recipe->model, (long long)mine);
}

/* What training starts from has the model's shape, and a grid. */
static qz_status check_start(const qz_job *job)
{
    const qz_model_config *a = qz_model_config_of(job->session.model), *b = qz_model_config_of(job->start.model);
    const char *folder = qz_ckpt_folder(job->start.ckpt);
    if (a->layers != b->layers || a->hidden != b->hidden || strcmp(a->family, b->family) != 0)
        return QZ_FAIL(
            QZ_ARG,
            "train.init: %s holds %s with %lld layers of %lld, but the model is %s with %lld of %lld; name a "
            "folder that was quantized from %s",
            folder, b->family, (long long)b->layers, (long long)b->hidden, a->family, (long long)a->layers,
            (long long)a->hidden, job->recipe->model);
    const char *first = qz_model_linear_name(job->start.model, 0, 0);
    for (int i = 0; i < qz_model_linears(job->start.model, 0); i++)
        if (qz_ckpt_is_quantized(job->start.ckpt, qz_model_linear_name(job->start.model, 0, i))) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "train.init: %s is not quantized (%s is plain); to start from its weights, name it as the model",
                   folder, first);
}

qz_status qz_job_open_training(qz_job *job, const qz_cli *cli)
{
    const qz_recipe_train *t = &job->recipe->train;
    if (t->init && !qz_recipe_starts_from_ptq(job->recipe)) {
        QZ_TRY(open_beside(&job->start, job, "train.init", t->init, cli));
        QZ_TRY(check_start(job));
    }
    if (t->loss.teacher) QZ_TRY(open_beside(&job->teacher, job, "train.loss.teacher", t->loss.teacher, cli));
    return QZ_OK;
}

qz_train_args qz_job_train_args(const qz_job *job)
{
    const bool teaches = job->recipe->train.loss.divergence > 0;
    const qz_model *teacher = job->teacher.model ? job->teacher.model : job->session.model;
    return (qz_train_args){.recipe = job->recipe,
                           .source = job->session.model,
                           .model = job->start.model ? job->start.model : job->session.model,
                           .teacher = teaches ? teacher : NULL,
                           .tokenizer = job->session.tokenizer,
                           .plan = &job->output[0].plan};
}

/* Quantizing, training and evaluating come one after the other, so only the largest counts. */
static void put_rows(qz_plan *plan, const qz_train_plan *training)
{
    const int room = (int)(sizeof plan->memory / sizeof plan->memory[0]);
    if (plan->memory_bytes > training->memory_bytes) {
        plan->memory[0] = (qz_plan_row){"quantizing or evaluating, more than training takes", plan->memory_bytes};
        plan->rows = 1;
        return;
    }
    plan->memory_bytes = training->memory_bytes;
    plan->rows = training->rows < room ? training->rows : room;
    for (int i = 0; i < plan->rows; i++)
        plan->memory[i] = (qz_plan_row){training->memory[i].what, training->memory[i].bytes};
}

qz_status qz_job_plan_training(qz_job *job)
{
    qz_train_plan training;
    qz_plan *p = &job->plan;
    const qz_train_args args = qz_job_train_args(job);
    QZ_TRY(qz_train_plan_make(&training, &args));
    put_rows(p, &training);
    p->disk_bytes += training.disk_bytes;
    p->flops += training.flops;
    if (job->gflops > 0) p->seconds += training.flops / (1e9 * job->gflops);
    if (p->memory_available && p->memory_bytes > p->memory_available)
        return QZ_FAIL(QZ_MEMORY,
                       "the plan needs %.1f GB of memory, %.1f GB are available: lower train.micro_batch or "
                       "train.sequence_length, or set train.recompute or train.moments \"int8\"",
                       (double)p->memory_bytes / 1e9, (double)p->memory_available / 1e9);
    if (p->disk_free && p->disk_bytes > p->disk_free)
        return QZ_FAIL(QZ_IO,
                       "the plan needs %.1f GB on the disk, %.1f GB are free: lower train.keep, or choose another "
                       "output",
                       (double)p->disk_bytes / 1e9, (double)p->disk_free / 1e9);
    return QZ_OK;
}
