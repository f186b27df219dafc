/* qat merge: base + adapter -> a checkpoint in any container, and what that keeps of the adapter's gain.
 *
 * With merge_aware the weights are rounded as they were in training, so the checkpoint is what was trained. Otherwise
 * the sum is a plain model, which the recipe's own qcal job quantizes; without `weights` it is written as it is. */
#include "base/file.h"
#include "programs/adapter_folder.h"
#include "programs/adapter_origin.h"
#include "programs/adapter_scales.h"
#include "programs/checkpoint_run.h"
#include "programs/signals.h"
#include "programs/trained_export.h"

/* The plain sum in OUTPUT.partial, until it is quantized. */
static const char sum_folder[] = "sum";

/* ---- the plain sum ---- */

/* The recipe with a container of plain weights. */
static qz_recipe plain_recipe(const qz_recipe *recipe)
{
    qz_recipe plain = *recipe;
    const int dense = qz_plugins_find(qz_containers(), "dense");
    plain.output_as.container = (qz_choice){.name = "dense", .index = dense};
    return plain;
}

/* The plan with nothing quantized, in fp32: the sum is not rounded twice. */
static qz_status plain_plan(qz_export_plan *out, const qz_export_plan *plan, qz_arena *arena)
{
    qz_export_linear *linear = qz_arena_array(arena, qz_export_linear, plan->linears);
    if (!linear) return qz_arena_failed(arena);
    for (size_t i = 0; i < plan->linears; i++) {
        linear[i] = plan->linear[i];
        linear[i].quantized = false;
        linear[i].activation = (qz_act_scheme){0};
    }
    *out = *plan;
    out->linear = linear;
    out->plain_type = QZ_F32;
    out->kv = (qz_kv_scheme){0};
    return QZ_OK;
}

static qz_status write_sum(qz_run *r, qz_student *student, const char *folder)
{
    qz_export_plan plan;
    const qz_recipe recipe = plain_recipe(r->job.recipe);
    const qz_calib_output output = {.recipe = &recipe, .plan = &plan, .folder = folder, .report = r->made[0].report};
    QZ_TRY(plain_plan(&plan, &r->job.output[0].plan, r->cli->arena));
    QZ_TRY(qz_folder_make(folder));
    return qz_trained_export(student, r->job.session.model, &output, r->progress);
}

static qz_status quantize_sum(qz_run *r, const char *folder)
{
    const char *work = qz_output_work(r->made[0].output);
    const char *const *pass = r->job.output[0].pass_through;
    QZ_TRY(qz_session_open_weights(&r->job.start, folder, r->job.recipe->backend, pass, r->cli->arena));
    qz_status status = qz_run_calibrate(r, r->job.start.model, &work, false);
    qz_session_close(&r->job.start);
    return status;
}

static qz_status merge_and_quantize(qz_run *r, qz_student *student)
{
    const char *folder = qz_path_join(r->cli->arena, qz_output_work(r->made[0].output), sum_folder);
    if (!folder) return qz_arena_failed(r->cli->arena);
    QZ_TRY(write_sum(r, student, folder));
    QZ_TRY(quantize_sum(r, folder));
    return qz_folder_remove(folder);
}

/* ---- the merge ---- */

/* Does the student round as the checkpoint will? Static scales of inputs and cache come from text: those of the
 * training lie beside the adapter. */
static bool is_rounded_here(const qz_run *r)
{
    const qz_recipe *recipe = r->job.output[0].recipe;
    if (!recipe->weights.wanted) return true;
    if (!recipe->train.adapter.merge_aware) return false;
    return !qz_adapter_scales_needed(&r->job.output[0].plan) || qz_adapter_scales_exist(r->job.adapter);
}

/* The adapter was made elsewhere, or by a recipe that rounds neither: then calibration finds scales for the sum, whose
 * weights it rounds as training did. */
static qz_status check_scales(const qz_run *r)
{
    const qz_recipe *recipe = r->job.output[0].recipe;
    if (is_rounded_here(r) || !qz_adapter_scales_needed(&r->job.output[0].plan)) return QZ_OK;
    if (recipe->calibration.data && recipe->calibration.samples > 0) return QZ_OK;
    return QZ_FAIL(QZ_ARG,
                   "%s: there are no static scales of activations or cache beside the adapter "
                   "(activation_scales.safetensors), and the recipe has no calibration to find them: add "
                   "calibration.data, or use \"dynamic\" activations and no kv_cache",
                   r->job.adapter);
}

static qz_status read_adapter(qz_run *r, qz_student *student)
{
    const qz_export_plan *plan = &r->job.output[0].plan;
    QZ_TRY(qz_adapter_read(student, r->job.adapter, r->job.recipe));
    const bool scaled = r->job.recipe->weights.wanted && qz_adapter_scales_needed(plan) && is_rounded_here(r);
    return scaled ? qz_adapter_scales_read(student, r->job.adapter, plan) : QZ_OK;
}

static qz_status write_merged(qz_run *r, qz_student *student)
{
    const qz_calib_output output = qz_run_output(r, 0, qz_output_work(r->made[0].output));
    if (!is_rounded_here(r)) return merge_and_quantize(r, student);
    return qz_trained_export(student, r->job.session.model, &output, r->progress);
}

static qz_status merge(qz_run *r, qz_student *student)
{
    qz_merged *merged = &r->made[0].result.merged;
    const bool evaluates = r->job.recipe->evaluate.wanted;
    merged->wanted = true;
    merged->adapter = r->job.adapter;
    qz_student_round(student, false);
    qz_student_adapt(student, false);
    if (evaluates) QZ_TRY(qz_train_judge(&merged->base, student, &r->evaluation, r->progress));
    qz_student_adapt(student, true);
    QZ_TRY(read_adapter(r, student));
    if (evaluates) QZ_TRY(qz_train_judge(&merged->adapted, student, &r->evaluation, r->progress));
    merged->measured = evaluates;
    qz_student_round(student, true);
    merged->rounds = evaluates && r->job.recipe->weights.wanted && is_rounded_here(r);
    if (merged->rounds) QZ_TRY(qz_train_judge(&merged->rounded, student, &r->evaluation, r->progress));
    return write_merged(r, student);
}

static qz_status work(qz_run *r)
{
    qz_student *student;
    QZ_TRY(check_scales(r));
    qz_adapter_warn_other_grid(r->job.adapter, r->job.recipe);
    QZ_TRY(qz_run_load_texts(r));
    QZ_TRY(qz_run_evaluate_original(r));
    const qz_train_args args = qz_job_train_args(&r->job);
    QZ_TRY(qz_train_student(&student, &args, r->cli->arena));
    qz_status status = merge(r, student);
    qz_student_free(student);
    QZ_TRY(status);
    QZ_TRY(qz_run_evaluate_folder(r, 0, qz_output_work(r->made[0].output), &r->made[0].result.made));
    QZ_TRY(qz_signals_check());
    return qz_run_conclude(r, 0);
}

qz_status qz_cmd_merge(qz_cli *cli, int *exit_code)
{
    cli->merges = true;
    cli->merged = cli->output;
    cli->output = NULL; /* the recipe's names the adapter */
    return qz_run_command(cli, exit_code, work);
}
