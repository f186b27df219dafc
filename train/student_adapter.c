/* The factors A (R, K) and B (N, R) beside a linear, and their product on top of a weight. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "train/student_parts.h"

bool qz_student_is_adapted(const qz_student *s, const char *module)
{
    return s->rule.adapters && s->adapters.wanted(s->adapters.context, module);
}

/* Hu et al. 2021, section 4.1: B starts at zero, A at random: here uniform with the bound 1 / sqrt(K) (He et al. with
 * a = sqrt(5)), as PEFT has it. */
static void start_adapter(qz_student *s, qz_student_linear *l, int index)
{
    qz_rng rng;
    const int64_t count = qz_tensor_count(&l->a->value);
    const double bound = 1 / sqrt((double)l->k);
    qz_rng_seed(&rng, s->adapters.seed, (uint64_t)index);
    for (int64_t i = 0; i < count; i++) qz_f32(&l->a->value)[i] = (float)((2 * qz_rng_double(&rng) - 1) * bound);
    memset(l->b->value.data, 0, (size_t)qz_tensor_count(&l->b->value) * sizeof(float));
}

qz_status qz_student_add_factors(qz_student *s, qz_student_linear *l, int index)
{
    char name[512];
    const qz_student_adapters *how = &s->adapters;
    if (!qz_student_is_adapted(s, l->module)) return QZ_OK;
    if (how->rank > l->n || how->rank > l->k)
        return QZ_FAIL(QZ_ARG,
                       "%s: rank %lld is larger than the matrix (%lld, %lld); choose a smaller "
                       "train.adapter.rank",
                       l->module, (long long)how->rank, (long long)l->n, (long long)l->k);
    const qz_tensor a = qz_tensor_2d(NULL, QZ_F32, how->rank, l->k), b = qz_tensor_2d(NULL, QZ_F32, l->n, how->rank);
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", l->module);
    QZ_TRY(qz_student_add_parameter(s, &l->a, name, QZ_PARAMETER_ADAPTER, &a));
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", l->module);
    QZ_TRY(qz_student_add_parameter(s, &l->b, name, QZ_PARAMETER_ADAPTER, &b));
    if (!s->rule.dry) start_adapter(s, l, index);
    return QZ_OK;
}

qz_status qz_student_add_adapter(const qz_student *s, const qz_student_linear *l, const qz_tensor *weight, float factor)
{
    qz_arena *scratch;
    QZ_TRY(qz_arena_new(&scratch, "adapter"));
    float *data = qz_arena_array(scratch, float, (size_t)qz_tensor_count(&l->b->value));
    qz_tensor b = l->b->value;
    b.data = data;
    qz_status status = data ? qz_op_scale(qz_model_backend(s->m), &b, &l->b->value, factor) : qz_arena_failed(scratch);
    if (status == QZ_OK) status = qz_op_linear_grad_x(qz_model_backend(s->m), weight, &b, &l->a->value, true);
    qz_arena_free(scratch);
    return status;
}
