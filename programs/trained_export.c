/* See trained_export.h. One linear at a time, so that no more than one is in memory beside the student. */
#include "programs/trained_export.h"

#include <string.h>

#include "calib/writer.h"

static int find_linear(const qz_student *s, const char *module)
{
    for (int i = 0; i < qz_student_linears(s); i++)
        if (strcmp(qz_student_linear_at(s, i)->module, module) == 0) return i;
    return -1;
}

static qz_status write_linear(qz_writer *w, qz_student *s, const qz_export_linear *plan, qz_arena *scratch)
{
    const int i = find_linear(s, plan->module);
    qz_qtensor q;
    qz_act_values act;
    if (i < 0) return QZ_FAIL(QZ_UNSUPPORTED, "%s: is not among the linears that are trained", plan->module);
    qz_linear linear = {.bias = qz_student_linear_at(s, i)->bias};
    if (plan->quantized) {
        QZ_TRY(qz_student_codes(s, i, &q, scratch));
        QZ_TRY(qz_student_activation(s, i, &act));
        return qz_writer_linear(w, plan, &linear, &q, &act, scratch);
    }
    float *values = qz_arena_array(scratch, float, (size_t)(plan->n * plan->k));
    if (!values) return qz_arena_failed(scratch);
    linear.weight = qz_tensor_2d(values, QZ_F32, plan->n, plan->k);
    QZ_TRY(qz_student_weight(s, i, true, &linear.weight));
    return qz_writer_linear(w, plan, &linear, NULL, NULL, scratch);
}

static qz_status write_caches(qz_writer *w, const qz_student *s, const qz_export_plan *plan, qz_arena *scratch)
{
    float *key = qz_arena_array(scratch, float, (size_t)plan->kv_heads),
          *value = qz_arena_array(scratch, float, (size_t)plan->kv_heads);
    if (!key || !value) return qz_arena_failed(scratch);
    for (int i = 0; i < plan->layers; i++) {
        QZ_TRY(qz_student_kv(s, i, key, value));
        QZ_TRY(qz_writer_kv(w, i, &(qz_kv_values){key, value}));
    }
    return QZ_OK;
}

/* Norms, embeddings and head, where they are trained. */
static qz_status write_plain(qz_writer *w, qz_student *s, const qz_model *source, qz_arena *scratch)
{
    const char **names;
    size_t count;
    QZ_TRY(qz_model_plain_names(source, &names, &count, scratch));
    for (size_t i = 0; i < count; i++) {
        const qz_parameter *p = qz_parameters_find(qz_student_parameters(s), names[i]);
        if (p) QZ_TRY(qz_writer_plain(w, p->name, &p->value, scratch));
    }
    return QZ_OK;
}

static qz_status write_all(qz_writer *w, qz_student *s, const qz_model *source, const qz_export_plan *plan,
                           qz_progress *progress, qz_arena *scratch)
{
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_arena_mark mark = qz_arena_save(scratch);
        QZ_TRY(write_linear(w, s, &plan->linear[i], scratch));
        qz_arena_restore(scratch, mark);
        QZ_TRY(qz_progress_step(progress, 1, plan->linear[i].module));
    }
    if (plan->kv.wanted) QZ_TRY(write_caches(w, s, plan, scratch));
    QZ_TRY(write_plain(w, s, source, scratch));
    return qz_writer_finish(w, scratch);
}

qz_status qz_trained_export(qz_student *student, const qz_model *source, const qz_calib_output *output,
                            qz_progress *progress)
{
    qz_writer *w;
    qz_arena *scratch;
    QZ_TRY(qz_arena_new(&scratch, "export"));
    qz_progress_begin(progress, "export", output->plan->linears);
    qz_status status = qz_writer_new(&w, source, output, false, progress);
    if (status == QZ_OK) status = write_all(w, student, source, output->plan, progress, scratch);
    qz_progress_end(progress);
    qz_writer_free(w);
    qz_arena_free(scratch);
    return status;
}
