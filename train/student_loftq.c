/* A weight -> a quantized base and an adapter that makes good what rounding lost: LoftQ (Li et al. 2023, "LoftQ:
 * LoRA-Fine-Tuning-Aware Quantization for Large Language Models", algorithm 1):
 *
 *     Q_t = round(W - f B_(t-1) A_(t-1)),  f B_t A_t = best of rank R of W - Q_t,  B_0 = 0
 *
 * The base is no longer the rounded weight, so it belongs to this adapter's start: it is found anew, the same bit for
 * bit, from the same model and recipe. */
#include <string.h>

#include "train/low_rank.h"
#include "train/student_parts.h"

/* rest = W - values of q */
static void subtract_base(const qz_tensor *rest, const qz_tensor *weight, const qz_qtensor *q)
{
    const int64_t count = qz_tensor_count(rest);
    float *x = qz_f32(rest);
    const float *w = qz_f32(weight);
    qz_qtensor_dequantize(x, q, 0, q->rows);
    for (int64_t i = 0; i < count; i++) x[i] = w[i] - x[i];
}

static qz_status fit_in_turn(qz_student *s, const qz_student_linear *l, qz_qtensor *q, const qz_tensor *weight,
                             const qz_tensor *rest, qz_arena *scratch)
{
    const qz_backend *be = qz_model_backend(s->m);
    const float factor = s->adapters.factor;
    for (int64_t i = 0; i < s->adapters.loftq; i++) {
        const qz_arena_mark mark = qz_arena_save(scratch);
        memcpy(rest->data, weight->data, (size_t)(l->n * l->k) * sizeof(float));
        QZ_TRY(qz_student_add_adapter(s, l, rest, -factor));
        QZ_TRY(qz_student_round_base(s, q, rest, s->adapters.base, scratch));
        subtract_base(rest, weight, q);
        QZ_TRY(qz_low_rank(be, rest, &l->b->value, &l->a->value, (double)factor, scratch));
        if (i + 1 < s->adapters.loftq) qz_arena_restore(scratch, mark); /* the last codes are packed */
    }
    return QZ_OK;
}

qz_status qz_student_start_loftq(qz_student *s, qz_student_linear *l, const qz_tensor *weight, qz_arena *scratch)
{
    qz_qtensor q;
    const qz_arena_mark mark = qz_arena_save(scratch);
    qz_packed *base = qz_arena_calloc(s->arena, sizeof *base);
    float *data = qz_arena_array(scratch, float, (size_t)(l->n * l->k));
    if (!base) return qz_arena_failed(s->arena);
    if (!data) return qz_arena_failed(scratch);
    const qz_tensor rest = qz_tensor_2d(data, QZ_F32, l->n, l->k);
    QZ_TRY(fit_in_turn(s, l, &q, weight, &rest, scratch));
    QZ_TRY(qz_packed_from(base, &q, s->arena));
    qz_arena_restore(scratch, mark);
    l->base = base;
    return QZ_OK;
}
