/* See optimizer.h. */
#include "train/optimizer.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { LEAST_8BIT = 4096, TENSORS = 5 /* of a parameter in the state, at most */ };

/* The moments of one parameter. */
typedef struct moments {
    bool coded;                          /* 8 bits */
    qz_tensor first, second;             /* F32 of the parameter's shape, or U8 (count) */
    qz_tensor first_scale, second_scale; /* 8 bits: absmax of blocks */
} moments;

struct qz_optimizer {
    const qz_backend *backend;
    qz_parameters parameters; /* the list is the caller's */
    qz_optimizer_options options;
    moments *moments;        /* [parameters->count] */
    qz_state_tensor *tensor; /* [tensors] */
    int tensors;
};

qz_optimizer_options qz_optimizer_options_of(const qz_recipe_train *train)
{
    return (qz_optimizer_options){
        .beta1 = train->beta1,
        .beta2 = train->beta2,
        .epsilon = train->epsilon,
        .clip_norm = train->clip_norm,
        .moments_8bit = train->moments_8bit,
        .group = {[QZ_PARAMETER_MATRIX] = {train->weight_decay, 1},
                  [QZ_PARAMETER_NORM] = {0, 1},
                  [QZ_PARAMETER_SCALE] = {0, train->scale_learning_rate / train->learning_rate},
                  [QZ_PARAMETER_OFFSET] = {0, train->offset_learning_rate / train->learning_rate},
                  [QZ_PARAMETER_ADAPTER] = {train->weight_decay, 1}},
    };
}

static bool is_coded(const qz_parameter *p, bool moments_8bit)
{
    return moments_8bit && qz_tensor_count(&p->value) >= LEAST_8BIT;
}

static int64_t blocks_of(const qz_parameter *p)
{
    return (qz_tensor_count(&p->value) + QZ_MOMENT_BLOCK - 1) / QZ_MOMENT_BLOCK;
}

uint64_t qz_optimizer_bytes(const qz_parameters *parameters, bool moments_8bit)
{
    uint64_t bytes = 0;
    for (int i = 0; i < parameters->count; i++) {
        const qz_parameter *p = &parameters->list[i];
        const uint64_t count = (uint64_t)qz_tensor_count(&p->value), blocks = (uint64_t)blocks_of(p);
        bytes += 2 * (is_coded(p, moments_8bit) ? count + blocks * sizeof(float) : count * sizeof(float));
    }
    return bytes;
}

/* ---- making ---- */

static qz_status make_coded(moments *m, const qz_parameter *p, qz_arena *arena)
{
    const int64_t count = qz_tensor_count(&p->value), blocks = blocks_of(p);
    uint8_t *codes = qz_arena_calloc(arena, qz_array_bytes((size_t)count, 2));
    float *scales = qz_arena_calloc(arena, qz_array_bytes((size_t)blocks, 2 * sizeof(float)));
    if (!codes || !scales) return qz_arena_failed(arena);
    m->coded = true; /* a block whose largest magnitude is 0 is all zeros, whatever its codes */
    m->first = qz_tensor_1d(codes, QZ_U8, count);
    m->second = qz_tensor_1d(codes + count, QZ_U8, count);
    m->first_scale = qz_tensor_1d(scales, QZ_F32, blocks);
    m->second_scale = qz_tensor_1d(scales + blocks, QZ_F32, blocks);
    return QZ_OK;
}

static qz_status make_moments(moments *m, const qz_parameter *p, bool moments_8bit, qz_arena *arena)
{
    *m = (moments){0};
    if (is_coded(p, moments_8bit)) return make_coded(m, p, arena);
    const size_t count = (size_t)qz_tensor_count(&p->value);
    float *numbers = qz_arena_calloc(arena, qz_array_bytes(count, 2 * sizeof(float)));
    if (!numbers) return qz_arena_failed(arena);
    m->first = m->second = p->value; /* the shape */
    m->first.data = numbers;
    m->second.data = numbers + count;
    return QZ_OK;
}

static qz_status add_tensor(qz_optimizer *o, const char *folder, const char *name, const qz_tensor *view,
                            qz_arena *arena)
{
    char *path = qz_arena_printf(arena, "%s/%s", folder, name);
    if (!path) return qz_arena_failed(arena);
    o->tensor[o->tensors++] = (qz_state_tensor){path, *view};
    return QZ_OK;
}

static qz_status add_tensors(qz_optimizer *o, int i, qz_arena *arena)
{
    const qz_parameter *p = &o->parameters.list[i];
    const moments *m = &o->moments[i];
    QZ_TRY(add_tensor(o, "parameters", p->name, &p->value, arena));
    QZ_TRY(add_tensor(o, "moments/first", p->name, &m->first, arena));
    QZ_TRY(add_tensor(o, "moments/second", p->name, &m->second, arena));
    if (!m->coded) return QZ_OK;
    QZ_TRY(add_tensor(o, "moments/first_absmax", p->name, &m->first_scale, arena));
    return add_tensor(o, "moments/second_absmax", p->name, &m->second_scale, arena);
}

qz_status qz_optimizer_new(qz_optimizer **out, const qz_backend *backend, const qz_parameters *parameters,
                           const qz_optimizer_options *options, qz_arena *arena)
{
    const size_t count = (size_t)parameters->count;
    qz_optimizer *o = qz_arena_calloc(arena, sizeof *o);
    if (!o) return qz_arena_failed(arena);
    *o = (qz_optimizer){.backend = backend, .parameters = *parameters, .options = *options};
    o->moments = qz_arena_array(arena, moments, count);
    o->tensor = qz_arena_array(arena, qz_state_tensor, count * TENSORS);
    if (!o->moments || !o->tensor) return qz_arena_failed(arena);
    for (int i = 0; i < parameters->count; i++) {
        QZ_TRY(make_moments(&o->moments[i], &parameters->list[i], options->moments_8bit, arena));
        QZ_TRY(add_tensors(o, i, arena));
    }
    *out = o;
    return QZ_OK;
}

const qz_state_tensor *qz_optimizer_tensors(const qz_optimizer *o, int *count)
{
    *count = o->tensors;
    return o->tensor;
}

/* ---- a step ---- */

/* Squares of finite F32 cannot overflow a double: the norm is finite exactly when every gradient is. From the end,
 * since the last linear is the first on the way back: what spoils one spoils those before it. */
static qz_status refuse(const qz_optimizer *o, int64_t step)
{
    for (int i = o->parameters.count - 1; i >= 0; i--) {
        const qz_parameter *p = &o->parameters.list[i];
        int64_t at;
        QZ_TRY(qz_op_first_nonfinite(o->backend, &p->grad, &at));
        if (at >= 0)
            return QZ_FAIL(QZ_NUMERIC,
                           "step %" PRId64 ": the gradient of %s is not finite (number %" PRId64 " of %" PRId64
                           "); a lower train.learning_rate or a longer train.warmup may help",
                           step, p->name, at, qz_tensor_count(&p->grad));
    }
    return QZ_FAIL(QZ_NUMERIC, "step %" PRId64 ": the norm of the gradients is not finite", step);
}

qz_status qz_optimizer_norm(const qz_optimizer *o, int64_t step, double *norm)
{
    double sum = 0, part;
    for (int i = 0; i < o->parameters.count; i++) {
        QZ_TRY(qz_op_square_sum(o->backend, &part, &o->parameters.list[i].grad));
        sum += part;
    }
    *norm = sqrt(sum);
    return isfinite(*norm) ? QZ_OK : refuse(o, step);
}

double qz_optimizer_clip(const qz_optimizer *o, double norm)
{
    static const double margin = 1e-6; /* torch.nn.utils.clip_grad_norm_ */
    const double clip = o->options.clip_norm, factor = clip / (norm + margin);
    return clip > 0 && factor < 1 ? factor : 1;
}

qz_status qz_optimizer_step(const qz_optimizer *o, int64_t step, double rate, double norm)
{
    const qz_optimizer_options *a = &o->options;
    qz_adamw how = {.beta1 = a->beta1, .beta2 = a->beta2, .epsilon = a->epsilon, .step = step};
    how.gradient_factor = qz_optimizer_clip(o, norm);
    assert(step >= 1);
    for (int i = 0; i < o->parameters.count; i++) {
        const qz_parameter *p = &o->parameters.list[i];
        const moments *m = &o->moments[i];
        how.rate = rate * a->group[p->group].rate_factor;
        how.decay = a->group[p->group].decay;
        if (m->coded)
            QZ_TRY(qz_op_adamw_8bit(o->backend, &p->value, &m->first, &m->first_scale, &m->second, &m->second_scale,
                                    &p->grad, &how));
        else
            QZ_TRY(qz_op_adamw(o->backend, &p->value, &m->first, &m->second, &p->grad, &how));
    }
    return QZ_OK;
}
