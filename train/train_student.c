/* The student without its training, for merging adapters: see train.h. */
#include "train/step.h"
#include "train/train_rules.h"

qz_status qz_train_student(qz_student **out, const qz_train_args *args, qz_arena *arena)
{
    qz_train_rules *rules = qz_arena_calloc(arena, sizeof *rules);
    *out = NULL;
    if (!rules) return qz_arena_failed(arena);
    QZ_TRY(qz_train_rules_make(rules, args, false));
    return qz_student_new(out, args->model, &rules->student);
}

static qz_status judge(double *loss, qz_student *s, const qz_step_batch *batch, qz_progress *progress)
{
    qz_stepper *stepper;
    qz_step_loss found;
    const qz_step_rule rule = {.micro_batch = 1, .cross_entropy = 1, .temperature = 1};
    QZ_TRY(qz_stepper_new(&stepper, s, NULL, &rule, false));
    const qz_status status = qz_stepper_judge(stepper, batch, &found, progress);
    if (status == QZ_OK) *loss = found.cross_entropy;
    qz_stepper_free(stepper);
    return status;
}

qz_status qz_train_judge(double *loss, qz_student *s, const qz_windows *w, qz_progress *progress)
{
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "judge"));
    qz_step_batch batch;
    qz_status status = qz_step_batch_of(&batch, w, arena);
    qz_progress_begin(progress, "perplexity", (uint64_t)w->count);
    if (status == QZ_OK) status = judge(loss, s, &batch, progress);
    qz_progress_end(progress);
    qz_arena_free(arena);
    return status;
}
