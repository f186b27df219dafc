/* The grid of a rounded linear: scales and zeros that are stored, fitted or learned. */
#include <stdio.h>
#include <string.h>

#include "train/student_parts.h"

/* Scales and zeros without codes. */
static qz_status alloc_grid(qz_student *s, qz_qtensor *q, const qz_scheme *scheme, int64_t n, int64_t k)
{
    const int64_t pieces = qz_scheme_pieces(scheme, n, k);
    *q = (qz_qtensor){.scheme = *scheme, .rows = n, .cols = k};
    QZ_TRY(qz_student_numbers(s, &q->scales, pieces));
    if (!qz_scheme_has_zeros(scheme) || s->rule.dry) return QZ_OK;
    q->zeros = qz_arena_alloc(s->arena, (size_t)pieces);
    return q->zeros ? QZ_OK : qz_arena_failed(s->arena);
}

/* Scales and zeros that the folder stores. */
static qz_status take_stored_grid(qz_student *s, qz_student_linear *l, qz_arena *scratch)
{
    const int64_t pieces = qz_scheme_pieces(&l->q.scheme, l->n, l->k);
    qz_qtensor stored;
    if (!qz_ckpt_is_quantized(qz_model_ckpt(s->m), l->module))
        return QZ_FAIL(QZ_ARG, "%s: stored plain, so there are no scales to start from", l->module);
    QZ_TRY(qz_ckpt_read_qtensor(qz_model_ckpt(s->m), l->module, l->n, l->k, &stored, scratch));
    if (!qz_scheme_alike(&stored.scheme, &l->q.scheme))
        return QZ_FAIL(QZ_ARG, "%s: stored in another scheme than the recipe's `weights`", l->module);
    if (stored.permutation)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: has a permutation (g_idx), which is not trained with", l->module);
    memcpy(l->q.scales, stored.scales, (size_t)pieces * sizeof *stored.scales);
    if (l->q.zeros && stored.zeros) memcpy(l->q.zeros, stored.zeros, (size_t)pieces);
    return QZ_OK;
}

static qz_status add_learned(qz_student *s, qz_student_linear *l, const char *what, qz_parameter_group group,
                             qz_parameter **out)
{
    char name[512];
    const qz_tensor like = qz_tensor_1d(NULL, QZ_F32, qz_scheme_pieces(&l->q.scheme, l->n, l->k));
    snprintf(name, sizeof name, "%s.%s", l->module, what);
    return qz_student_add_parameter(s, out, name, group, &like);
}

void qz_student_start_scales(const qz_student_linear *l)
{
    const int64_t pieces = qz_scheme_pieces(&l->q.scheme, l->n, l->k);
    if (l->scale) memcpy(l->scale->value.data, l->q.scales, (size_t)pieces * sizeof(float));
    for (int64_t i = 0; l->offset && i < pieces; i++) qz_f32(&l->offset->value)[i] = (float)l->q.zeros[i];
}

/* ---- fitting ---- */

bool qz_student_shares_scale(const qz_student_linear *l)
{
    const qz_scheme *scheme = &l->planned->scheme;
    return l->planned->fused >= 0 && qz_format_of(scheme->format)->kind == QZ_KIND_FLOAT && !scheme->flat &&
           !scheme->piece_rows && !scheme->piece_cols;
}

static qz_status fit_shared(const qz_student *s, const qz_student_linear *l, float *scale)
{
    *scale = 0;
    for (int i = s->first[l->layer]; i < s->linears && s->linear[i].layer == l->layer; i++) {
        const qz_student_linear *other = &s->linear[i];
        float own;
        qz_qtensor q = {.scheme = l->q.scheme, .rows = other->n, .cols = other->k, .scales = &own};
        if (!other->rounded || other->planned->fused != l->planned->fused || !qz_student_shares_scale(other)) continue;
        QZ_TRY(qz_op_fit_ranges(qz_model_backend(s->m), &q, &other->weight));
        *scale = own > *scale ? own : *scale;
    }
    return QZ_OK;
}

qz_status qz_student_fit(const qz_student *s, const qz_student_linear *l, qz_qtensor *q, const qz_tensor *weight)
{
    if (qz_student_shares_scale(l)) return fit_shared(s, l, q->scales);
    return qz_op_fit_ranges(qz_model_backend(s->m), q, weight);
}

/* ---- making ---- */

static qz_status refuse_scheme(const qz_student *s, const qz_student_linear *l)
{
    const qz_scheme *scheme = &l->planned->scheme;
    if (scheme->double_quant)
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "%s: scales that are quantized themselves are not trained through; set "
                       "weights.double_quant false",
                       l->module);
    if (s->adapters.merge_aware && l->a && qz_model_linear(s->m, l->layer, l->linear)->roles > 1 &&
        (scheme->piece_rows != 1 || scheme->flat))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: merge-aware training of fused linears needs groups or channels", l->module);
    if (s->adapters.merge_aware && qz_student_shares_scale(l))
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "%s: servers keep one scale for it and the linears that read the same input, which merge-aware "
                       "training rounds one by one; set weights.group \"channel\" (of compressed-tensors) or \"block\"",
                       l->module);
    return QZ_OK;
}

qz_status qz_student_add_grid(qz_student *s, qz_student_linear *l, qz_arena *scratch)
{
    const qz_student_rounding *r = &s->rule.rounding;
    l->rounded =
        l->planned && l->planned->quantized && (s->rule.train_weights || s->adapters.merge_aware || r->learn_scales);
    if (!l->rounded) return QZ_OK;
    QZ_TRY(refuse_scheme(s, l));
    QZ_TRY(alloc_grid(s, &l->q, &l->planned->scheme, l->n, l->k));
    if (l->base) return QZ_OK; /* fitted to W + B A whenever it is made */
    if (r->learn_scales) QZ_TRY(add_learned(s, l, "scale", QZ_PARAMETER_SCALE, &l->scale));
    if (r->learn_offsets && qz_scheme_has_zeros(&l->q.scheme))
        QZ_TRY(add_learned(s, l, "offset", QZ_PARAMETER_OFFSET, &l->offset));
    if (s->rule.dry) return QZ_OK;
    QZ_TRY(r->start_from_grid ? take_stored_grid(s, l, scratch)
                              : qz_op_fit_ranges(qz_model_backend(s->m), &l->q, &l->weight));
    qz_student_start_scales(l);
    return QZ_OK;
}
