/* The folders that a recipe names beside its model, and the plan of a training. */
#include "programs/job.h"
#include "programs/output_folder.h"

#include <string.h>
#include <sys/stat.h>

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

qz_status qz_job_redirect(qz_job *job, qz_recipe *recipe, const qz_cli *cli)
{
    if (!recipe->train.adapter.wanted)
        return QZ_FAIL(QZ_ARG, "%s: train.parameters: only an \"adapter\" can be merged", cli->argument[0]);
    job->adapter = cli->adapter ? cli->adapter : recipe->output;
    recipe->output = cli->merged ? cli->merged : qz_arena_printf(cli->arena, "%s-merged", recipe->output);
    if (!recipe->output) return qz_arena_failed(cli->arena);
    return qz_output_keeps(recipe->output, job->adapter);
}

/* An adapter is judged in memory, by its loss. The merged model's distributions are compared when there is one, so a
 * recipe may ask for that, but not of its training. */
static qz_status check_accept(const qz_recipe *r)
{
    const char *key = r->evaluate.accept_kl > 0 ? "kl" : r->evaluate.accept_top1 > 0 ? "top1_agreement" : NULL;
    if (!key || !r->train.adapter.wanted) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "evaluate.accept.%s: training an adapter measures perplexity only: set perplexity_ratio, and ask "
                   "for %s when merging (--set evaluate.accept.%s=... of `qat merge`)",
                   key, key, key);
}

/* Two paths of one file: what training is chosen by cannot be what it is measured on. */
static qz_status check_validation(const qz_recipe *r)
{
    struct stat a, b;
    if (!r->train.validation.wanted || !r->evaluate.wanted) return QZ_OK;
    if (stat(r->train.validation.data, &a) != 0 || stat(r->evaluate.data, &b) != 0) return QZ_OK; /* reading tells */
    if (a.st_dev != b.st_dev || a.st_ino != b.st_ino) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "train.validation.data: %s is the file of evaluate.data, %s: what training is chosen by cannot be "
                   "what it is measured on; name another text",
                   r->train.validation.data, r->evaluate.data);
}

qz_status qz_job_open_training(qz_job *job, const qz_cli *cli)
{
    const qz_recipe_train *t = &job->recipe->train;
    QZ_TRY(check_accept(job->recipe));
    QZ_TRY(check_validation(job->recipe));
    if (t->init && !qz_recipe_starts_from_ptq(job->recipe)) {
        QZ_TRY(open_beside(&job->start, job, "train.init", t->init, cli));
        QZ_TRY(check_start(job));
    }
    if (!t->loss.teacher) return QZ_OK;
    QZ_TRY(open_beside(&job->teacher, job, "train.loss.teacher", t->loss.teacher, cli));
    const int64_t most = qz_model_config_of(job->teacher.model)->context;
    if (t->sequence_length <= most) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "train.sequence_length: found %lld, but max_position_embeddings of %s is %lld",
                   (long long)t->sequence_length, t->loss.teacher, (long long)most);
}

qz_train_args qz_job_train_args(const qz_job *job)
{
    const bool teaches = job->recipe->train.loss.divergence > 0;
    const qz_model *teacher = job->teacher.model ? job->teacher.model : job->session.model;
    return (qz_train_args){.recipe = job->recipe,
                           .model = job->start.model ? job->start.model : job->session.model,
                           .teacher = teaches ? teacher : NULL,
                           .plan = &job->output[0].plan};
}

/* Quantizing, training and evaluating come one after the other, so only the largest counts. */
static void put_rows(qz_plan *plan, const qz_train_plan *training)
{
    const int room = (int)(sizeof plan->memory / sizeof plan->memory[0]) - 1;
    const uint64_t others = plan->memory_bytes;
    plan->rows = training->rows < room ? training->rows : room;
    for (int i = 0; i < plan->rows; i++)
        plan->memory[i] = (qz_plan_row){training->memory[i].tier, training->memory[i].bytes};
    plan->memory_bytes = training->memory_bytes;
    if (others <= training->memory_bytes) return;
    plan->memory[plan->rows++] = (qz_plan_row){"or, at another time: quantizing and evaluating", others};
    plan->memory_bytes = others;
}

/* Linears outside of the layers are trained as they are. */
static qz_status check_outside(const qz_export_plan *plan)
{
    for (size_t i = plan->first[plan->layers]; i < plan->linears; i++)
        if (plan->linear[i].quantized)
            return QZ_FAIL(QZ_ARG,
                           "%s: training rounds the linears of the layers only; name it in weights.skip, or leave "
                           "its override out",
                           plan->linear[i].module);
    return QZ_OK;
}

qz_status qz_job_plan_training(qz_job *job)
{
    qz_train_plan training;
    qz_plan *p = &job->plan;
    const qz_train_args args = qz_job_train_args(job);
    QZ_TRY(check_outside(args.plan));
    const qz_status fits = qz_train_plan_make(&training, &args, job->gflops);
    put_rows(p, &training);
    p->disk_bytes += (uint64_t)training.states * training.state_bytes;
    p->flops += training.flops;
    p->seconds += training.seconds;
    job->parameters = training.parameters;
    QZ_TRY(fits);
    if (!p->disk_free || p->disk_bytes + p->disk_scratch <= p->disk_free) return QZ_OK;
    return QZ_FAIL(QZ_IO,
                   "the plan needs %.1f GB on the disk, %.1f GB are free: lower train.keep, or choose another output",
                   (double)(p->disk_bytes + p->disk_scratch) / 1e9, (double)p->disk_free / 1e9);
}
