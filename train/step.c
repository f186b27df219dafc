/* See step.h. */
#include "train/step.h"

#include <math.h>
#include <stdio.h>

struct qz_stepper {
    qz_student *student;
    qz_guide *guide;
    qz_step_rule rule;
    qz_tape *tape;
    qz_arena *arena; /* tables of one pass */
};

qz_status qz_stepper_new(qz_stepper **out, qz_student *student, qz_guide *guide, const qz_step_rule *rule, bool dry)
{
    qz_stepper *s = qz_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return QZ_FAIL(QZ_MEMORY, "no memory for training steps");
    *s = (qz_stepper){.student = student, .guide = guide, .rule = *rule};
    qz_status status = qz_tape_new(&s->tape, qz_model_backend(qz_student_model(student)), dry);
    if (status == QZ_OK) status = qz_arena_new(&s->arena, "step");
    if (status != QZ_OK) {
        qz_stepper_free(s);
        return status;
    }
    qz_tape_bf16(s->tape, rule->bf16);
    if (guide) qz_guide_bf16(guide, rule->bf16);
    *out = s;
    return QZ_OK;
}

void qz_stepper_free(qz_stepper *s)
{
    if (!s) return;
    qz_tape_free(s->tape);
    qz_arena_free(s->arena);
    qz_free(s);
}

uint64_t qz_stepper_bytes(const qz_stepper *s)
{
    return qz_tape_peak(s->tape);
}

qz_status qz_step_batch_of(qz_step_batch *out, const qz_windows *w, qz_arena *arena)
{
    const int64_t count = w->count * w->length;
    int32_t *labels = qz_arena_array(arena, int32_t, (size_t)count);
    if (!labels) return qz_arena_failed(arena);
    for (int64_t i = 0; i < count; i++) labels[i] = (i + 1) % w->length ? w->ids[i + 1] : QZ_LABEL_NONE;
    *out = (qz_step_batch){w->ids, labels, NULL, w->count, w->length};
    return QZ_OK;
}

qz_status qz_step_room(qz_loader_batch *out, int64_t sequences, int64_t length, qz_arena *arena)
{
    const size_t count = (size_t)(sequences * length);
    *out = (qz_loader_batch){.ids = qz_arena_array(arena, int32_t, count),
                             .labels = qz_arena_array(arena, int32_t, count),
                             .first = qz_arena_array(arena, int32_t, count),
                             .length = length};
    return out->ids && out->labels && out->first ? QZ_OK : qz_arena_failed(arena);
}

qz_step_batch qz_step_batch_taken(const qz_loader_batch *b, const qz_loader *loader)
{
    return (qz_step_batch){b->ids, b->labels, qz_loader_packs(loader) ? b->first : NULL, b->sequences, b->length};
}

qz_status qz_step_batch_read(qz_step_batch *out, qz_loader *loader, int64_t most, int64_t length, qz_arena *arena)
{
    const int64_t windows = qz_loader_windows(loader), wanted = most > 0 && most < windows ? most : windows;
    qz_loader_batch b;
    QZ_TRY(qz_step_room(&b, wanted, length, arena));
    QZ_TRY(qz_loader_next(loader, &b, wanted));
    if (b.targets == 0)
        return QZ_FAIL(QZ_FORMAT,
                       "nothing is to be predicted in the first %lld windows of %lld ids: all of it is prompts",
                       (long long)wanted, (long long)length);
    *out = qz_step_batch_taken(&b, loader);
    return QZ_OK;
}

/* Sequences [at, at + count) of a batch. */
static qz_step_batch part_of(const qz_step_batch *b, int64_t at, int64_t count)
{
    const int64_t skip = at * b->length;
    return (qz_step_batch){b->ids ? b->ids + skip : NULL, b->labels ? b->labels + skip : NULL,
                           b->first ? b->first + skip : NULL, count, b->length};
}

static int64_t count_targets(const qz_step_batch *b)
{
    int64_t targets = 0;
    for (int64_t i = 0; b->labels && i < b->sequences * b->length; i++) targets += b->labels[i] >= 0;
    return targets;
}

static double per(const qz_stepper *s, const qz_step_batch *whole, int64_t targets)
{
    const int64_t count = s->rule.divergence_everywhere ? whole->sequences * whole->length : targets;
    return count > 0 ? (double)count : 1;
}

static qz_head_rule head_rule(const qz_stepper *s, const qz_step_batch *whole, const qz_step_batch *part,
                              int64_t targets)
{
    const qz_model_config *c = qz_model_config_of(qz_student_model(s->student));
    qz_head_rule r = {.labels = part->labels,
                      .softcap = (float)c->logit_softcap,
                      .cross_entropy = s->rule.cross_entropy,
                      .divergence = s->rule.divergence,
                      .temperature = s->rule.temperature,
                      .divergence_everywhere = s->rule.divergence_everywhere,
                      .cross_entropy_per = targets > 0 ? (double)targets : 1,
                      .divergence_per = per(s, whole, targets)};
    if (s->guide) r.teacher = qz_guide_teacher(s->guide);
    return r;
}

/* Forward, losses, backward. */
static qz_status run_part(qz_stepper *s, const qz_step_batch *part, const qz_head_rule *rule, uint64_t number,
                          qz_head_sums *sums)
{
    const qz_tape_batch batch = {part->sequences, part->length, part->ids, part->first};
    qz_var *hidden, *head;
    qz_tape_reset(s->tape);
    qz_arena_reset(s->arena);
    QZ_TRY(qz_student_forward(s->student, s->tape, batch, number, &hidden, &head, s->arena));
    QZ_TRY(qz_ag_head(sums, s->tape, hidden, head, rule));
    qz_var_release(s->tape, hidden);
    return qz_tape_backward(s->tape);
}

static qz_status run_teacher(qz_stepper *s, const qz_step_batch *part)
{
    const qz_tape_batch batch = {part->sequences, part->length, part->ids, part->first};
    return s->guide ? qz_guide_run(s->guide, batch) : QZ_OK;
}

static qz_status run_parts(qz_stepper *s, const qz_step_batch *b, uint64_t number, int64_t targets, qz_head_sums *total)
{
    const int64_t most = s->rule.micro_batch;
    const uint64_t parts = (uint64_t)((b->sequences + most - 1) / most);
    uint64_t i = 0;
    for (int64_t at = 0; at < b->sequences; at += most, i++) {
        const qz_step_batch part = part_of(b, at, b->sequences - at < most ? b->sequences - at : most);
        const qz_head_rule rule = head_rule(s, b, &part, targets);
        qz_head_sums sums;
        QZ_TRY(run_teacher(s, &part));
        QZ_TRY(run_part(s, &part, &rule, number * parts + i, &sums));
        total->cross_entropy += sums.cross_entropy;
        total->divergence += sums.divergence;
    }
    return QZ_OK;
}

qz_status qz_stepper_run(qz_stepper *s, const qz_step_batch *batch, uint64_t number, qz_step_loss *loss)
{
    const int64_t targets = count_targets(batch);
    qz_head_sums total = {0};
    QZ_TRY(qz_student_begin_step(s->student, true));
    QZ_TRY(run_parts(s, batch, number, targets, &total));
    QZ_TRY(qz_student_end_step(s->student));
    loss->targets = targets;
    loss->cross_entropy = targets ? total.cross_entropy / (double)targets : 0;
    loss->divergence = total.divergence / per(s, batch, targets);
    loss->loss = s->rule.cross_entropy * loss->cross_entropy + s->rule.divergence * loss->divergence;
    return QZ_OK;
}

/* ---- evaluation ---- */

static qz_status judge_parts(qz_stepper *s, const qz_step_batch *b, qz_progress *progress, double *total)
{
    for (int64_t at = 0; at < b->sequences; at += s->rule.micro_batch) {
        const int64_t left = b->sequences - at;
        const qz_step_batch part = part_of(b, at, left < s->rule.micro_batch ? left : s->rule.micro_batch);
        qz_head_rule rule = head_rule(s, b, &part, 1);
        qz_head_sums sums;
        rule.teacher.logits = NULL;
        QZ_TRY(run_part(s, &part, &rule, QZ_STUDENT_JUDGED, &sums));
        *total += sums.cross_entropy;
        QZ_TRY(qz_progress_step(progress, (uint64_t)part.sequences, NULL));
    }
    return QZ_OK;
}

qz_status qz_stepper_judge(qz_stepper *s, const qz_step_batch *batch, qz_step_loss *loss, qz_progress *progress)
{
    const int64_t targets = count_targets(batch);
    double total = 0;
    QZ_TRY(qz_student_begin_step(s->student, false));
    qz_tape_record(s->tape, false);
    qz_tape_bf16(s->tape, false);
    qz_status status = judge_parts(s, batch, progress, &total);
    qz_tape_bf16(s->tape, s->rule.bf16);
    qz_tape_record(s->tape, true);
    QZ_TRY(status);
    *loss = (qz_step_loss){.targets = targets, .cross_entropy = targets ? total / (double)targets : 0};
    loss->loss = loss->cross_entropy;
    return QZ_OK;
}

qz_status qz_stepper_search(qz_stepper *s, const qz_step_batch *batch, char *text, size_t size)
{
    qz_step_loss loss;
    qz_student_search(s->student, true);
    const qz_status status = qz_stepper_judge(s, batch, &loss, NULL);
    qz_student_search(s->student, false);
    QZ_TRY(status);
    const char *module = qz_student_found(s->student);
    snprintf(text, size, "%s%s", module ? "enter " : isfinite(loss.loss) ? "" : "are the logits", module ? module : "");
    return QZ_OK;
}
