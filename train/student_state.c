/* What a student remembers beside its parameters, as the state file keeps it:
 *
 *     rounding/marks             which beginnings have been made
 *     rounding/scales/<module>   grids that are neither learned nor fitted anew in each step; zeros/<module> too
 *     activations/range          extremes of static inputs; activations/cache: those of the cache
 *     watch/...                  codes of the step before, directions, averages: student_watch.c */
#include "train/student_parts.h"

enum { OF_A_LINEAR = 7, OF_ALL = 4 };

static qz_status add(qz_student *s, const char *folder, const char *name, qz_tensor view)
{
    const char *path = name ? qz_arena_printf(s->arena, "%s/%s", folder, name) : folder;
    if (!path) return qz_arena_failed(s->arena);
    s->tensor[s->tensors++] = (qz_state_tensor){path, view};
    return QZ_OK;
}

static qz_status add_grid(qz_student *s, const qz_student_linear *l)
{
    const int64_t pieces = l->rounded ? qz_scheme_pieces(&l->q.scheme, l->n, l->k) : 0;
    if (!l->rounded || l->base || s->rule.rounding.fit) return QZ_OK;
    if (!l->scale) QZ_TRY(add(s, "rounding/scales", l->module, qz_tensor_1d(l->q.scales, QZ_F32, pieces)));
    if (!qz_scheme_has_zeros(&l->q.scheme) || l->offset) return QZ_OK;
    return add(s, "rounding/zeros", l->module, qz_tensor_1d(l->q.zeros, QZ_U8, pieces));
}

static qz_status add_watch(qz_student *s, int i)
{
    const qz_student_linear *l = &s->linear[i];
    if (!s->watch || !s->watch[i].watched) return QZ_OK;
    const qz_student_watch *w = &s->watch[i];
    const int64_t count = l->n * l->k, pieces = qz_scheme_pieces(&l->q.scheme, l->n, l->k);
    QZ_TRY(add(s, "watch/rank", l->module, qz_tensor_1d(w->rank, QZ_U8, count)));
    QZ_TRY(add(s, "watch/course", l->module, qz_tensor_1d(w->course, QZ_U8, count)));
    QZ_TRY(add(s, "watch/start", l->module, qz_tensor_1d(w->start, QZ_F32, pieces)));
    if (s->rule.rounding.freeze <= 0) return QZ_OK;
    QZ_TRY(add(s, "watch/frequency", l->module, qz_tensor_1d(w->frequency, QZ_F16, count)));
    return add(s, "watch/ahead", l->module, qz_tensor_1d(w->ahead, QZ_F16, count));
}

static qz_status add_all(qz_student *s)
{
    const qz_model_config *c = qz_model_config_of(s->m);
    QZ_TRY(add(s, "rounding/marks", NULL, qz_tensor_1d(s->marks, QZ_I64, QZ_STUDENT_MARKS)));
    if (s->range) {
        const int64_t each = sizeof *s->range / sizeof(float);
        QZ_TRY(add(s, "activations/range", NULL, qz_tensor_2d(s->range, QZ_F32, c->layers * s->inputs, each)));
    }
    if (s->cache) QZ_TRY(add(s, "activations/cache", NULL, qz_tensor_2d(s->cache, QZ_F32, 2 * c->layers, c->kv_heads)));
    if (s->watch) QZ_TRY(add(s, "watch/oscillation", NULL, qz_tensor_1d(s->oscillation, QZ_F64, s->linears)));
    return QZ_OK;
}

qz_status qz_student_add_tensors(qz_student *s)
{
    s->tensor = qz_arena_array(s->arena, qz_state_tensor, (size_t)(s->linears * OF_A_LINEAR + OF_ALL));
    if (!s->tensor) return qz_arena_failed(s->arena);
    if (!s->rule.plan) return QZ_OK;
    QZ_TRY(add_all(s));
    for (int i = 0; i < s->linears; i++) {
        QZ_TRY(add_grid(s, &s->linear[i]));
        QZ_TRY(add_watch(s, i));
    }
    return QZ_OK;
}

const qz_state_tensor *qz_student_tensors(const qz_student *s, int *count)
{
    *count = s->tensors;
    return s->tensor;
}

uint64_t qz_student_tensor_bytes(const qz_student *s)
{
    uint64_t bytes = 0;
    for (int i = 0; i < s->tensors; i++)
        bytes += (uint64_t)qz_tensor_count(&s->tensor[i].view) * (uint64_t)qz_dtype_bits(s->tensor[i].view.dtype) / 8;
    return bytes;
}
