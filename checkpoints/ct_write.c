/* qz_qtensor -> the weights of compressed-tensors checkpoints. Nothing is rounded: codes change their place and sign,
 * scales must be numbers of their stored type. */
#include "checkpoints/ct_tensors.h"
#include "checkpoints/tensor_parts.h"

static int bits_of(const qz_scheme *s)
{
    return qz_format_of(s->format)->bits;
}

static qz_status declare_weight(qz_shards *s, const qz_export_linear *l)
{
    const qz_scheme *c = &l->scheme;
    const int bits = bits_of(c);
    const qz_ct_form form = qz_ct_form_of(l);
    if (form != QZ_CT_PACKED)
        return qz_part_declare(s, l->module, "weight", form == QZ_CT_INT ? QZ_I8 : QZ_F8_E4M3, 2,
                               (int64_t[]){l->n, l->k});
    QZ_TRY(qz_part_declare(s, l->module, "weight_packed", QZ_I32, 2, (int64_t[]){l->n, qz_packing_words(l->k, bits)}));
    QZ_TRY(qz_part_declare(s, l->module, "weight_shape", QZ_I64, 1, (int64_t[]){2}));
    if (c->symmetric) return QZ_OK;
    return qz_part_declare(s, l->module, "weight_zero_point", QZ_I32, 2,
                           (int64_t[]){qz_packing_words(l->n, bits), qz_scheme_scale_cols(c, l->k)});
}

qz_status qz_ct_declare_linear(qz_shards *s, const qz_export_linear *l)
{
    const int64_t rows = qz_scheme_scale_rows(&l->scheme, l->n), cols = qz_scheme_scale_cols(&l->scheme, l->k);
    const int ndim = qz_ct_strategy_of(l) == QZ_CT_TENSOR ? 1 : 2;
    QZ_TRY(declare_weight(s, l));
    QZ_TRY(qz_part_declare(s, l->module, "weight_scale", l->scheme.scale_type, ndim, (int64_t[]){rows, cols}));
    return qz_ct_declare_input(s, l);
}

static qz_status write_packed(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const int bits = bits_of(&q->scheme);
    const int64_t shape[2] = {l->n, l->k};
    const qz_packing weight = qz_ct_weight_packing(l->n, l->k, bits);
    const qz_packing zeros = qz_ct_zero_packing(l->n, qz_scheme_scale_cols(&q->scheme, l->k), bits);
    QZ_TRY(qz_part_write_words(s, l->module, "weight_packed", q->codes, &weight, scratch));
    QZ_TRY(qz_part_write(s, l->module, "weight_shape", shape, sizeof shape));
    if (q->scheme.symmetric) return QZ_OK;
    return qz_part_write_words(s, l->module, "weight_zero_point", q->zeros, &zeros, scratch);
}

static qz_status write_bytes(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const size_t count = (size_t)(l->n * l->k);
    if (qz_format_of(q->scheme.format)->kind == QZ_KIND_FLOAT)
        return qz_part_write(s, l->module, "weight", q->codes, count);
    uint8_t *out = qz_arena_alloc(scratch, count);
    if (!out) return qz_arena_failed(scratch);
    for (size_t i = 0; i < count; i++) out[i] = (uint8_t)(q->codes[i] - 128); /* two's complement */
    return qz_part_write(s, l->module, "weight", out, count);
}

qz_status qz_ct_write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                             qz_arena *scratch)
{
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: compressed-tensors' readers take no permuted groups; use static groups",
                       l->module);
    const int64_t pieces = qz_scheme_scale_rows(&q->scheme, l->n) * qz_scheme_scale_cols(&q->scheme, l->k);
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status =
        qz_ct_form_of(l) == QZ_CT_PACKED ? write_packed(s, l, q, scratch) : write_bytes(s, l, q, scratch);
    if (status == QZ_OK)
        status = qz_part_write_floats(s, l->module, "weight_scale", q->scheme.scale_type, q->scales, pieces, scratch);
    if (status == QZ_OK) status = qz_ct_write_input(s, l, act);
    qz_arena_restore(scratch, mark);
    return status;
}
