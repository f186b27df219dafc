/* See fold.h. The products are plain fp32: the weights are working copies that have not been quantized yet. */
#include "calib/fold.h"

#include <math.h>

#include "base/parallel.h"
#include "numeric/minifloat.h"

static float round_to(float x, qz_dtype type)
{
    uint16_t half;
    if (type == QZ_F32) return x;
    if (type == QZ_F16) {
        half = qz_f16_encode(x);
        return qz_f16_decode(half);
    }
    half = qz_bf16_encode(x);
    return qz_bf16_decode(half);
}

void qz_round_stored(const qz_tensor *x, qz_dtype type)
{
    if (!x->data || type == QZ_F32) return;
    float *v = qz_f32(x);
    const int64_t count = qz_tensor_count(x);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < count; i++) {
        const float stored = round_to(v[i], type);
        if (isfinite(stored)) v[i] = stored;
    }
}

static void scale_columns(const qz_tensor *w, const float *scale)
{
    int64_t n = w->shape[0], k = w->shape[1];
    float *data = qz_f32(w);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) data[i * k + j] *= scale[j];
}

void qz_fold_norm(qz_layer *layer, int norm, qz_stage stage, float *scale, qz_dtype plain_type)
{
    const float offset = (float)layer->norm_offset;
    float *w = qz_f32(&layer->norm[norm]);
    for (int64_t i = 0; i < layer->norm[norm].shape[0]; i++) {
        float before = w[i] + offset, stored = round_to(before / scale[i] - offset, plain_type);
        if (stored + offset == 0.0f || before == 0.0f || !isfinite(stored)) {
            scale[i] = 1.0f;
            continue;
        }
        scale[i] = before / (stored + offset);
        w[i] = stored;
    }
    for (int expert = 0; expert < layer->experts; expert++)
        for (int role = expert ? QZ_ROLE_GATE : 0; role < QZ_ROLES; role++)
            if (qz_role_stage((qz_role)role) == stage)
                scale_columns(&qz_layer_part(layer, (qz_role)role, expert)->weight, scale);
    if (stage == QZ_STAGE_GATE_UP && layer->router.data) scale_columns(&layer->router, scale);
}

void qz_fold_linear(qz_layer *layer, qz_role producer, qz_role consumer, int expert, const float *scale, int64_t heads,
                    int64_t groups, int64_t size)
{
    const qz_linear *from = qz_layer_part(layer, producer, expert);
    const qz_tensor *w = &from->weight, *bias = &from->bias;
    int64_t k = w->shape[1], shared = heads / groups;
    float *data = qz_f32(w);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t row = 0; row < groups * size; row++) {
        float s = scale[(row / size) * shared * size + row % size];
        for (int64_t j = 0; j < k; j++) data[row * k + j] /= s;
        if (bias->data) qz_f32(bias)[row] /= s;
    }
    scale_columns(&qz_layer_part(layer, consumer, expert)->weight, scale);
}
