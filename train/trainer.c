/* The loop over steps, and what goes around it: schedule, evaluations, states, the log. train_rules.c turns the recipe
 * into the parts' rules. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/telemetry.h"
#include "train/train.h"
#include "train/train_rules.h"

struct qz_trained {
    qz_train_args args;
    const qz_recipe_train *how;
    qz_arena *arena;
    qz_train_rules rules;
    qz_student *student;
    qz_guide *guide;
    qz_stepper *stepper;
    qz_optimizer *optimizer;
    qz_telemetry *telemetry;
    qz_loader_batch batch;
    uint8_t *best; /* parameters, and what the student remembers, at the best evaluation; NULL: not kept */
    /* in the state file */
    int64_t step, tokens, epoch, index, best_step, since_best;
    double best_loss, first_loss, last_loss; /* of evaluations */
    qz_state state;
    qz_train_result result;
};

/* ---- the best so far ---- */

static uint64_t best_bytes(const qz_trained *t)
{
    const uint64_t numbers = (uint64_t)qz_parameters_numbers(qz_student_parameters(t->student));
    return numbers * sizeof(float) + qz_student_tensor_bytes(t->student);
}

static uint8_t *copy_view(uint8_t *at, const qz_tensor *view, bool out)
{
    const size_t bytes = (size_t)qz_tensor_count(view) * (size_t)qz_dtype_bits(view->dtype) / 8;
    memcpy(out ? at : view->data, out ? view->data : at, bytes);
    return at + bytes;
}

static void copy_values(qz_trained *t, bool out)
{
    int count;
    const qz_parameters *p = qz_student_parameters(t->student);
    const qz_state_tensor *memory = qz_student_tensors(t->student, &count);
    uint8_t *at = t->best;
    for (int i = 0; i < p->count; i++) at = copy_view(at, &p->list[i].value, out);
    for (int i = 0; i < count; i++) at = copy_view(at, &memory[i].view, out);
}

/* ---- evaluations ---- */

static qz_status judge(qz_trained *t, double *mean)
{
    qz_step_loss loss;
    qz_student_round(t->student, true); /* as it would be stored, even while training does not round yet */
    QZ_TRY(qz_stepper_judge(t->stepper, &t->args.judged->batch, &loss, NULL));
    *mean = loss.cross_entropy;
    return QZ_OK;
}

/* What cannot be exported is never the best: before the first batch static scales have no values. */
static bool is_better(const qz_trained *t, double loss)
{
    if (t->step == 0 && !qz_student_has_ranges(t->student)) return false;
    return t->best_step < 0 || loss < t->best_loss;
}

static qz_status evaluate(qz_trained *t)
{
    const double began = qz_seconds();
    double loss;
    if (!t->args.judged) return QZ_OK;
    QZ_TRY(judge(t, &loss));
    const bool best = is_better(t, loss);
    if (t->step == 0) t->first_loss = loss;
    t->last_loss = loss;
    t->since_best = best || t->best_step < 0 ? 0 : t->since_best + 1;
    if (best) {
        t->best_loss = loss;
        t->best_step = t->step;
        if (t->best) copy_values(t, true);
    }
    return qz_telemetry_evaluation(
        t->telemetry,
        &(qz_evaluation_figures){
            .step = t->step, .loss = loss, .perplexity = exp(loss), .best = best, .seconds = qz_seconds() - began});
}

/* ---- steps ---- */

static uint64_t memory_of(const qz_trained *t)
{
    const qz_parameters *p = qz_student_parameters(t->student);
    return qz_student_bytes(t->student) + qz_optimizer_bytes(p, t->how->moments_8bit) + qz_stepper_bytes(t->stepper) +
           (t->guide ? qz_guide_bytes(t->guide) : 0) + (t->best ? best_bytes(t) : 0);
}

static qz_status refuse_loss(qz_trained *t, const qz_step_batch *batch, double loss)
{
    char where[300];
    QZ_TRY(qz_stepper_search(t->stepper, batch, where, sizeof where));
    return QZ_FAIL(QZ_NUMERIC, "step %lld: the loss is %g%s%s; a lower train.learning_rate may help",
                   (long long)t->step + 1, loss, *where ? ": the first values that are not finite " : "", where);
}

static qz_status learn(qz_trained *t, qz_step_figures *f)
{
    const qz_step_batch batch = qz_step_batch_taken(&t->batch, t->args.loader);
    qz_step_loss loss;
    qz_student_round(t->student, t->step >= t->how->quantizer.after);
    qz_parameters_zero_gradients(qz_student_parameters(t->student));
    QZ_TRY(qz_stepper_run(t->stepper, &batch, (uint64_t)t->step, &loss));
    if (!isfinite(loss.loss)) return refuse_loss(t, &batch, loss.loss);
    QZ_TRY(qz_optimizer_norm(t->optimizer, t->step + 1, &f->gradient_norm));
    f->learning_rate = qz_schedule_rate(&t->rules.schedule, t->step + 1);
    QZ_TRY(qz_optimizer_step(t->optimizer, t->step + 1, f->learning_rate, f->gradient_norm));
    f->loss = loss.loss;
    f->cross_entropy = loss.cross_entropy;
    f->divergence = t->guide ? loss.divergence : NAN;
    f->tokens = loss.targets;
    return QZ_OK;
}

static bool is_time(int64_t step, int64_t every, int64_t last)
{
    return step == last || (every > 0 && step % every == 0);
}

static qz_status log_layers(qz_trained *t)
{
    if (!is_time(t->step, QZ_TRAIN_LAYERS_EVERY, t->how->steps)) return QZ_OK;
    for (int i = 0; i < qz_student_linears(t->student); i++) {
        qz_student_health h;
        if (!qz_student_health_of(t->student, i, &h)) continue;
        QZ_TRY(
            qz_telemetry_layer(t->telemetry, &(qz_layer_figures){.step = t->step,
                                                                 .layer = qz_student_linear_at(t->student, i)->module,
                                                                 .flipped = h.flipped,
                                                                 .oscillation = h.oscillation,
                                                                 .scale_drift = h.scale_drift,
                                                                 .saturation = h.saturation,
                                                                 .frozen = h.frozen}));
    }
    return QZ_OK;
}

static qz_status take_step(qz_trained *t)
{
    const double began = qz_seconds();
    qz_step_figures f = {0};
    char line[128];
    QZ_TRY(qz_loader_next(t->args.loader, &t->batch, t->how->batch));
    QZ_TRY(learn(t, &f));
    const qz_loader_position at = qz_loader_position_of(t->args.loader);
    t->epoch = at.epoch;
    t->index = at.index;
    f.step = ++t->step;
    f.seconds = qz_seconds() - began;
    f.tokens_per_second = (double)(t->batch.sequences * t->batch.length) / f.seconds;
    f.memory_bytes = memory_of(t);
    t->result.loss = f.loss;
    t->tokens += f.tokens;
    t->result.tokens_of_run += f.tokens;
    QZ_TRY(qz_telemetry_step(t->telemetry, &f));
    QZ_TRY(log_layers(t));
    return qz_progress_step(t->args.progress, 1, qz_telemetry_text(line, sizeof line, &f));
}

/* ---- states ---- */

static qz_status save(qz_trained *t)
{
    QZ_TRY(qz_telemetry_sync(t->telemetry));
    return qz_state_save(t->args.folder, &t->state, t->step, (int)t->how->keep);
}

static qz_status evaluate_if_due(qz_trained *t)
{
    return is_time(t->step, t->how->evaluate_every, t->how->steps) ? evaluate(t) : QZ_OK;
}

static bool is_stuck(const qz_trained *t)
{
    return t->how->patience > 0 && t->since_best >= t->how->patience;
}

static qz_status after_step(qz_trained *t, bool *stop)
{
    QZ_TRY(evaluate_if_due(t));
    *stop = is_stuck(t);
    return *stop || is_time(t->step, t->how->save_every, t->how->steps) ? save(t) : QZ_OK;
}

/* Asked to stop: nothing of what was learned is lost, and an evaluation that is due is not left out. */
static qz_status save_and_stop(qz_trained *t, bool learned)
{
    qz_error asked;
    qz_error_save(&asked, QZ_INTERRUPTED);
    if (learned) QZ_TRY(evaluate_if_due(t));
    QZ_TRY(save(t));
    return qz_error_restore(&asked);
}

static qz_status run_steps(qz_trained *t)
{
    bool stop = is_stuck(t);
    if (t->step == 0) QZ_TRY(evaluate(t));
    while (t->step < t->how->steps && !stop) {
        const int64_t before = t->step;
        const qz_status status = take_step(t);
        if (status == QZ_INTERRUPTED) return save_and_stop(t, t->step > before);
        QZ_TRY(status);
        QZ_TRY(after_step(t, &stop));
        if (t->args.stop_after && t->step >= t->args.stop_after) break;
    }
    return QZ_OK;
}

static qz_status resume(qz_trained *t)
{
    if (!t->args.resume) return qz_state_clear(t->args.folder);
    QZ_TRY(qz_state_load(&t->step, t->args.folder, &t->state));
    t->result.resumed_from = t->step;
    if (t->step == 0) return QZ_OK;
    return qz_loader_seek(t->args.loader, (qz_loader_position){t->epoch, t->index});
}

/* ---- putting it together ---- */

static qz_status make_best(qz_trained *t)
{
    if (!t->how->keep_best || !t->args.judged) return QZ_OK;
    t->best = qz_arena_alloc(t->arena, best_bytes(t));
    if (!t->best) return qz_arena_failed(t->arena);
    copy_values(t, true);
    return QZ_OK;
}

static qz_status make_state(qz_trained *t)
{
    int count, more;
    const qz_state_tensor *tensors = qz_optimizer_tensors(t->optimizer, &count);
    const qz_state_tensor *memory = qz_student_tensors(t->student, &more);
    qz_state_tensor *all = qz_arena_array(t->arena, qz_state_tensor, (size_t)count + (size_t)more + 1);
    if (!all) return qz_arena_failed(t->arena);
    memcpy(all, tensors, (size_t)count * sizeof *all);
    memcpy(all + count, memory, (size_t)more * sizeof *all);
    count += more;
    if (t->best) all[count++] = (qz_state_tensor){"best", qz_tensor_1d(t->best, QZ_U8, (int64_t)best_bytes(t))};
    const qz_state_integer integers[] = {{"tokens", &t->tokens},
                                         {"epoch", &t->epoch},
                                         {"index", &t->index},
                                         {"best_step", &t->best_step},
                                         {"since_best", &t->since_best}};
    const qz_state_number doubles[] = {{"best_loss", &t->best_loss},
                                       {"first_loss", &t->first_loss},
                                       {"last_loss", &t->last_loss},
                                       {"loss", &t->result.loss}};
    const qz_state_text texts[] = {{"program", "qat " QZ_VERSION, "program"},
                                   {"data", qz_loader_hash(t->args.loader), "training text"},
                                   {"model", t->args.model_hash ? t->args.model_hash : "", "model"},
                                   {"teacher", t->args.teacher_hash ? t->args.teacher_hash : "", "teacher"},
                                   {"validation", t->args.judged ? t->args.judged->hash : "", "validation text"}};
    enum { INTEGERS = sizeof integers / sizeof *integers, DOUBLES = sizeof doubles / sizeof *doubles };
    enum { TEXTS = sizeof texts / sizeof *texts };
    qz_state_integer *i = qz_arena_alloc(t->arena, sizeof integers);
    qz_state_number *d = qz_arena_alloc(t->arena, sizeof doubles);
    qz_state_text *x = qz_arena_alloc(t->arena, sizeof texts);
    if (!i || !d || !x) return qz_arena_failed(t->arena);
    memcpy(i, integers, sizeof integers);
    memcpy(d, doubles, sizeof doubles);
    memcpy(x, texts, sizeof texts);
    t->state = (qz_state){.recipe = t->args.recipe->text,
                          .text = x,
                          .tensor = all,
                          .integer = i,
                          .number = d,
                          .texts = TEXTS,
                          .tensors = count,
                          .integers = INTEGERS,
                          .numbers = DOUBLES};
    return QZ_OK;
}

static qz_status prepare(qz_trained *t)
{
    const qz_backend *be = qz_model_backend(t->args.model);
    QZ_TRY(qz_arena_new(&t->arena, "training"));
    QZ_TRY(qz_train_rules_make(&t->rules, &t->args, false));
    QZ_TRY(qz_student_new(&t->student, t->args.model, &t->rules.student));
    if (t->args.begin) QZ_TRY(t->args.begin(t->args.context, t->student));
    if (t->args.teacher) QZ_TRY(qz_guide_new(&t->guide, t->args.teacher, false));
    QZ_TRY(qz_stepper_new(&t->stepper, t->student, t->guide, &t->rules.step, false));
    QZ_TRY(qz_optimizer_new(&t->optimizer, be, qz_student_parameters(t->student), &t->rules.optimizer, t->arena));
    QZ_TRY(qz_step_room(&t->batch, t->how->batch, t->how->sequence_length, t->arena));
    QZ_TRY(make_best(t));
    return make_state(t);
}

static qz_status run(qz_trained *t)
{
    const double began = qz_seconds();
    QZ_TRY(resume(t));
    QZ_TRY(qz_telemetry_open(&t->telemetry, t->args.folder, t->step, t->args.times));
    qz_progress_begin(t->args.progress, "train", (uint64_t)(t->how->steps - t->step));
    QZ_TRY(run_steps(t));
    qz_progress_end(t->args.progress);
    if (t->best && t->best_step >= 0 && t->best_step != t->step) copy_values(t, false);
    t->result.steps = t->step;
    t->result.tokens = t->tokens;
    t->result.stopped_early = is_stuck(t);
    t->result.seconds = qz_seconds() - began;
    t->result.tokens_per_second = t->result.seconds > 0 ? (double)t->result.tokens_of_run / t->result.seconds : 0;
    t->result.memory_bytes = memory_of(t);
    t->result.best_step = t->best_step;
    t->result.first_perplexity = t->args.judged ? exp(t->first_loss) : NAN;
    t->result.last_perplexity = t->args.judged ? exp(t->last_loss) : NAN;
    t->result.best_perplexity = t->args.judged ? exp(t->best_loss) : NAN;
    return QZ_OK;
}

qz_status qz_train_run(qz_trained **out, const qz_train_args *args)
{
    qz_trained *t = qz_calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return QZ_FAIL(QZ_MEMORY, "no memory for training");
    t->args = *args;
    t->how = &args->recipe->train;
    t->best_step = -1;
    qz_status status = prepare(t);
    if (status == QZ_OK) status = run(t);
    qz_telemetry_close(t->telemetry);
    t->telemetry = NULL;
    if (status != QZ_OK) {
        qz_trained_free(t);
        return status;
    }
    *out = t;
    return QZ_OK;
}

void qz_trained_free(qz_trained *t)
{
    if (!t) return;
    qz_stepper_free(t->stepper);
    qz_guide_free(t->guide);
    qz_student_free(t->student);
    qz_arena_free(t->arena);
    qz_free(t);
}

qz_student *qz_trained_student(qz_trained *t)
{
    return t->student;
}

const qz_train_result *qz_trained_result(const qz_trained *t)
{
    return &t->result;
}
