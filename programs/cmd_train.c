/* qat train: recipe -> model -> plan -> (the recipe's own quantization) -> training in OUTPUT.partial -> what was
 * exported, read back and evaluated beside the original and the start -> report.json -> OUTPUT. */
#include <math.h>
#include <stdio.h>

#include "base/file.h"
#include "programs/adapter_folder.h"
#include "programs/adapter_scales.h"
#include "programs/checkpoint_run.h"
#include "programs/signals.h"
#include "programs/train_text.h"
#include "programs/trained_export.h"

/* ---- a student's figures on evaluate.data ---- */

/* As it computes now: a mean loss in the place of a perplexity that a folder would have. */
static qz_status judge(qz_measured *out, qz_run *r, qz_student *student)
{
    double loss;
    QZ_TRY(qz_train_judge(&loss, student, &r->evaluation, r->progress));
    out->evaluated = true;
    out->perplexity = (qz_perplexity){.perplexity = exp(loss),
                                      .mean_log_prob = -loss,
                                      .tokens = r->evaluation.count * (r->evaluation.length - 1),
                                      .windows = r->evaluation.count};
    return qz_signals_check();
}

/* The base as it is in memory, then the adapter as it was trained: rounded where it is merge_aware. */
static qz_status judge_adapter(qz_run *r, qz_student *student)
{
    qz_run_result *result = &r->made[0].result;
    if (!r->job.recipe->evaluate.wanted) return QZ_OK;
    qz_student_adapt(student, false);
    qz_student_round(student, false);
    QZ_TRY(judge(&result->start, r, student));
    qz_student_adapt(student, true);
    qz_student_round(student, true);
    return judge(&result->made, r, student);
}

/* The model as it computes before the first step. It is made anew, since a resumed run has it no more. */
static qz_status judge_beginning(qz_run *r)
{
    qz_student *student;
    qz_arena *arena;
    const qz_train_args args = qz_job_train_args(&r->job);
    QZ_TRY(qz_arena_new(&arena, "student"));
    qz_status status = qz_train_student(&student, &args, arena);
    if (status == QZ_OK) {
        qz_student_round(student, true);
        status = judge(&r->made[0].result.start, r, student);
        qz_student_free(student);
    }
    qz_arena_free(arena);
    return status;
}

/* ---- where it starts ---- */

/* The checkpoint of train.init "ptq" in OUTPUT.partial, while training lasts. */
static const char start_folder[] = "start";

/* Plain weights would not keep the scales to start from: then the first container that can hold them is taken. */
static qz_status start_output(qz_job_output *out, qz_recipe *recipe, const qz_run *r)
{
    const qz_plugins *all = qz_containers();
    *out = r->job.output[0];
    if (qz_container_at((size_t)out->recipe->output_as.container.index)->holds) return QZ_OK;
    *recipe = *out->recipe;
    out->recipe = recipe;
    for (int i = 0; i < (int)all->count; i++) {
        if (!qz_container_at((size_t)i)->holds) continue;
        recipe->output_as.container = (qz_choice){.name = all->rows[i]->name, .index = i};
        if (qz_calib_export_plan(&out->plan, recipe, r->job.session.model, r->cli->arena) == QZ_OK) return QZ_OK;
    }
    return QZ_FAIL(QZ_ARG, "train.init: no container can hold what \"ptq\" would start from: leave it out");
}

static qz_status make_start(qz_run *r, const char *folder)
{
    qz_recipe recipe;
    qz_job_output start;
    const qz_job_output wanted = r->job.output[0];
    QZ_TRY(start_output(&start, &recipe, r));
    r->job.output[0] = start;
    const qz_status status = qz_run_calibrate(r, r->job.session.model, &folder, false);
    r->job.output[0] = wanted;
    return status;
}

/* Quantizes into OUTPUT.partial/start, unless the run that is resumed did; then the model is opened from there. */
static qz_status quantize(qz_run *r)
{
    qz_arena *arena = r->cli->arena;
    const char *folder = qz_path_join(arena, qz_output_work(r->made[0].output), start_folder);
    const char *unfinished = folder ? qz_arena_printf(arena, "%s.partial", folder) : NULL;
    if (!unfinished) return qz_arena_failed(arena);
    if (!qz_path_exists(folder)) {
        if (qz_path_exists(unfinished)) QZ_TRY(qz_folder_remove(unfinished));
        QZ_TRY(qz_folder_make(unfinished));
        QZ_TRY(make_start(r, unfinished));
        QZ_TRY(qz_path_rename(unfinished, folder));
    }
    return qz_session_open_weights(&r->job.start, folder, r->job.recipe->backend, r->job.output[0].pass_through, arena);
}

static qz_status prepare_start(qz_run *r)
{
    if (qz_recipe_starts_from_ptq(r->job.recipe)) QZ_TRY(quantize(r));
    if (!r->job.recipe->evaluate.wanted || r->job.recipe->train.adapter.wanted) return QZ_OK;
    if (!r->job.start.ckpt) return judge_beginning(r);
    return qz_run_evaluate_folder(r, 0, qz_ckpt_folder(r->job.start.ckpt), &r->made[0].result.start);
}

static qz_status remove_start(qz_run *r)
{
    qz_session_close(&r->job.start);
    if (!qz_recipe_starts_from_ptq(r->job.recipe)) return QZ_OK;
    const char *folder = qz_path_join(r->cli->arena, qz_output_work(r->made[0].output), start_folder);
    return folder ? qz_folder_remove(folder) : qz_arena_failed(r->cli->arena);
}

/* ---- training ---- */

/* With the scales that the inputs and the cache of a merge_aware one are rounded with, so that merging finds them. */
static qz_status export_adapter(const qz_run *r, qz_student *student)
{
    const char *folder = qz_output_work(r->made[0].output);
    const qz_export_plan *plan = &r->job.output[0].plan;
    QZ_TRY(qz_adapter_write(folder, student, r->job.recipe));
    if (!r->job.recipe->train.adapter.merge_aware || !qz_adapter_scales_needed(plan)) return QZ_OK;
    return qz_adapter_scales_write(folder, student, plan);
}

/* What was trained, into the folder. */
static qz_status export_trained(qz_run *r, qz_student *student, const qz_model *start)
{
    if (r->job.recipe->train.adapter.wanted) return export_adapter(r, student);
    const qz_calib_output output = qz_run_output(r, 0, qz_output_work(r->made[0].output));
    return qz_trained_export(student, start, &output, r->progress);
}

/* train.adapter.from */
static qz_status begin_with(void *context, qz_student *student)
{
    const qz_recipe *recipe = context;
    QZ_TRY_CTX(qz_adapter_read(student, recipe->train.adapter.from, recipe), "train.adapter.from");
    return QZ_OK;
}

/* Of states and log. */
static qz_status training_folder(const char **out, const qz_run *r)
{
    *out = qz_path_join(r->cli->arena, qz_output_work(r->made[0].output), QZ_OUTPUT_TRAINING);
    return *out ? qz_folder_make(*out) : qz_arena_failed(r->cli->arena);
}

/* A state can be gone on from with another number of steps, but not backwards. */
static qz_status check_steps(const qz_run *r, const char *folder)
{
    int64_t done;
    if (!r->cli->resume) return QZ_OK;
    QZ_TRY(qz_state_newest(&done, folder));
    if (done <= r->job.recipe->train.steps) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "train.steps: is %lld, but %s holds the state after step %lld; ask for as many at least, or remove "
                   "the states that went too far",
                   (long long)r->job.recipe->train.steps, folder, (long long)done);
}

static qz_status train_on(qz_run *r, qz_loader *loader)
{
    char hash[2][QZ_HASH_TEXT] = {"", ""};
    qz_run_result *result = &r->made[0].result;
    qz_train_args args = qz_job_train_args(&r->job);
    qz_trained *trained;
    QZ_TRY(qz_ckpt_hash(qz_model_ckpt(args.model), hash[0]));
    if (args.teacher) QZ_TRY(qz_ckpt_hash(qz_model_ckpt(args.teacher), hash[1]));
    args.loader = loader;
    if (r->job.recipe->train.validation.wanted) args.judged = &r->validation;
    QZ_TRY(training_folder(&args.folder, r));
    QZ_TRY(check_steps(r, args.folder));
    args.model_hash = hash[0];
    args.teacher_hash = hash[1];
    args.resume = r->cli->resume;
    if (r->job.recipe->train.adapter.from) args.begin = begin_with;
    args.context = (void *)(uintptr_t)r->job.recipe;
    args.times = true;
    args.progress = r->progress;
    QZ_TRY(qz_train_run(&trained, &args));
    result->trained = true;
    result->training = *qz_trained_result(trained);
    snprintf(result->training_hash, sizeof result->training_hash, "%s", qz_loader_hash(loader));
    qz_student *student = qz_trained_student(trained);
    qz_status status = export_trained(r, student, args.model);
    if (status == QZ_OK && r->job.recipe->train.adapter.wanted) status = judge_adapter(r, student);
    qz_trained_free(trained);
    return status;
}

static qz_status train(qz_run *r)
{
    qz_loader *loader;
    QZ_TRY(qz_run_open_training_text(&loader, r));
    qz_status status = train_on(r, loader);
    qz_loader_close(loader);
    return status;
}

/* An adapter is no model by itself: its figures are those of the base with it, found while it was in memory. */
static qz_status measure(qz_run *r)
{
    qz_measured *made = &r->made[0].result.made;
    const char *folder = qz_output_work(r->made[0].output);
    if (!r->job.recipe->train.adapter.wanted) return qz_run_evaluate_folder(r, 0, folder, made);
    return qz_folder_bytes(&made->folder_bytes, folder);
}

static qz_status work(qz_run *r)
{
    QZ_TRY(qz_run_load_texts(r));
    QZ_TRY(qz_run_load_validation_text(r));
    QZ_TRY(qz_run_evaluate_original(r));
    QZ_TRY(prepare_start(r));
    QZ_TRY(train(r));
    QZ_TRY(remove_start(r));
    QZ_TRY(measure(r));
    QZ_TRY(qz_signals_check());
    return qz_run_conclude(r, 0);
}

qz_status qz_cmd_train(qz_cli *cli, int *exit_code)
{
    return qz_run_command(cli, exit_code, work);
}
