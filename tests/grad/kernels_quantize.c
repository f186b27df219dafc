/* Gradients of rounding on every backend of the host against differences of its surrogate in double: the
 * straight-through estimator is the derivative of the clamp alone, rounding replaced by the identity; learned steps
 * (Esser et al. 2020) and offsets (Bhalgat et al. 2020) take what rounding adds to a value as a constant. Values near a
 * bound, where the clamp has no derivative, are left out of the inputs. */
#include <stdlib.h>

#include "base/arena.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "numeric/actgrid.h"
#include "numeric/piece.h"
#include "testing/gradient.h"

enum { N = 6, K = 21, MOST = N * K };

/* y = (clamp(v, low - z, high - z) + kept) s, v = w / s; `kept` is what rounding adds where nothing is clamped. */
typedef struct problem {
    const qz_qtensor *q;
    double w[MOST], weight[MOST], scale[MOST], zero[MOST], kept[MOST];
} problem;

/* Bounds of the codes, or of the values of floating formats. */
static void bounds(double *low, double *high, const qz_scheme *s)
{
    const qz_format_info *f = qz_format_of(s->format);
    *high = f->kind == QZ_KIND_INTEGER ? (1 << f->bits) - 1 : f->largest;
    *low = f->kind == QZ_KIND_INTEGER ? (s->narrow ? 1 : 0) : -f->largest;
}

static int64_t piece_of(const qz_qtensor *q, int i)
{
    int64_t piece;
    qz_piece_run(&piece, q, i / K, i % K);
    return piece;
}

static double value(const void *context)
{
    const problem *p = context;
    double sum = 0, low, high;
    bounds(&low, &high, &p->q->scheme);
    for (int i = 0; i < MOST; i++) {
        const int64_t piece = piece_of(p->q, i);
        const double s = p->scale[piece], z = p->zero[piece], v = p->w[i] / s;
        const double y = v + z < low ? low - z : v + z > high ? high - z : v + p->kept[i];
        sum += p->weight[i] * y * s;
    }
    return sum;
}

static qz_qtensor grids(const qz_scheme *s, qz_rng *rng, qz_arena *arena)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, s, N, K, arena));
    for (int64_t i = 0; i < qz_scheme_pieces(s, N, K); i++) {
        q.scales[i] = (float)(0.2 + 0.3 * qz_rng_double(rng));
        if (q.zeros) q.zeros[i] = (uint8_t)(3 + qz_rng_below(rng, 6));
    }
    return q;
}

static void fill(problem *p, const qz_qtensor *q, qz_rng *rng)
{
    double low, high;
    bounds(&low, &high, &q->scheme);
    p->q = q;
    const bool whole = qz_format_of(q->scheme.format)->kind == QZ_KIND_INTEGER;
    for (int64_t i = 0; i < qz_scheme_pieces(&q->scheme, N, K); i++) {
        p->scale[i] = (double)q->scales[i];
        p->zero[i] = !whole ? 0 : q->zeros ? q->zeros[i] : 1 << (qz_format_of(q->scheme.format)->bits - 1);
    }
    const double near = whole ? 0.6 : 0.08 * high, spread = whole ? 1.5 : 0.2 * high; /* of v, of w */
    for (int i = 0; i < MOST; i++) {
        const int64_t piece = piece_of(q, i);
        double v;
        do {
            p->w[i] = (double)(float)(spread * qz_rng_normal(rng));
            v = p->w[i] / p->scale[piece] + p->zero[piece];
        } while (fabs(v - low) < near || fabs(v - high) < near);
        p->weight[i] = (double)(float)qz_rng_normal(rng);
        float w = (float)p->w[i], y;
        qz_piece_round(&y, &w, 1, q, piece);
        p->kept[i] = (double)y / p->scale[piece] - p->w[i] / p->scale[piece];
    }
}

static qz_tensor floats(const double *x, float *data)
{
    for (int i = 0; i < MOST; i++) data[i] = (float)x[i];
    return qz_tensor_2d(data, QZ_F32, N, K);
}

static void check(problem *p, const qz_backend *backend)
{
    static float data[5][MOST];
    const int64_t pieces = qz_scheme_pieces(&p->q->scheme, N, K);
    qz_tensor w = floats(p->w, data[0]), dy = floats(p->weight, data[1]), dw = qz_tensor_2d(data[2], QZ_F32, N, K);
    qz_tensor dscales = qz_tensor_1d(data[3], QZ_F32, pieces), doffsets = qz_tensor_1d(data[4], QZ_F32, pieces);
    const qz_tensor *offsets = p->q->zeros ? &doffsets : NULL;
    for (int rule = QZ_STE_CLIP; rule <= QZ_STE_LSQ; rule++) {
        memset(data[3], 0, sizeof data[3]);
        memset(data[4], 0, sizeof data[4]);
        check_ok(qz_op_fake_quant_grad(backend, &dw, &dscales, offsets, &dy, &w, p->q, (qz_ste)rule, 1));
        gradient_check("fake_quant, w", value, p, p->w, data[2], MOST);
        gradient_check("fake_quant, scales", value, p, p->scale, data[3], pieces);
        if (offsets) gradient_check("fake_quant, offsets", value, p, p->zero, data[4], pieces);
    }
}

static const qz_scheme schemes[] = {
    {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 8, .symmetric = true},
    {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 8},
    {.format = QZ_FORMAT_INT3, .piece_rows = 1, .zero_rule = QZ_ROUND_SUM},
    {.format = QZ_FORMAT_INT4, .symmetric = true, .narrow = true},
    {.format = QZ_FORMAT_FP8_E4M3, .piece_rows = 4, .piece_cols = 16, .symmetric = true},
};

Test(kernels_quantize_gradient, equals_differences_of_the_surrogate)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available() || backend->device != QZ_HOST) continue;
        for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
            static problem p;
            qz_arena *arena;
            qz_rng rng;
            check_ok(qz_arena_new(&arena, "test"));
            qz_rng_seed(&rng, 7, i);
            const qz_qtensor q = grids(&schemes[i], &rng, arena);
            fill(&p, &q, &rng);
            check(&p, backend);
            qz_arena_free(arena);
        }
    }
}

/* ---- a static scale of activations: the same with one scale, and the gradient of x by the mask ---- */

typedef struct activations {
    double x[MOST], weight[MOST], kept[MOST], scale;
    double low, high;
} activations;

static double activation_value(const void *context)
{
    const activations *a = context;
    double sum = 0;
    for (int i = 0; i < MOST; i++) {
        const double v = a->x[i] / a->scale;
        sum += a->weight[i] * (v < a->low ? a->low : v > a->high ? a->high : v + a->kept[i]) * a->scale;
    }
    return sum;
}

static void fill_activations(activations *a, const qz_act_scheme *s, qz_act_values v, qz_rng *rng)
{
    const double near = qz_act_is_int(s->format) ? 0.6 : 0.08 * a->high;
    a->scale = (double)v.scale;
    for (int i = 0; i < MOST; i++) {
        do {
            a->x[i] = (double)(float)(a->high * qz_rng_normal(rng));
        } while (fabs(a->x[i] / a->scale - a->low) < near || fabs(a->x[i] / a->scale - a->high) < near);
        a->weight[i] = (double)(float)qz_rng_normal(rng);
        a->kept[i] = ((double)qz_act_round((float)a->x[i], v, s->format) - a->x[i]) / a->scale;
    }
}

static void check_activations(const qz_backend *backend, const qz_act_scheme *s, qz_act_values v, double low,
                              double high)
{
    static activations a;
    static float data[3][MOST], grad;
    uint8_t bits[(MOST + 7) / 8];
    double sum = 0;
    qz_rng rng;
    qz_rng_seed(&rng, 8, (uint64_t)s->format);
    a.low = low;
    a.high = high;
    fill_activations(&a, s, v, &rng);
    qz_tensor x = floats(a.x, data[0]), dy = floats(a.weight, data[1]), y = qz_tensor_2d(data[2], QZ_F32, N, K);
    const qz_tensor mask = qz_tensor_1d(bits, QZ_U8, sizeof bits);
    check_ok(qz_op_activation_scale_grad(backend, &sum, &dy, &x, s, &v, 1));
    check_ok(qz_op_fake_quant_activations(backend, &y, &mask, &x, s, &v));
    check_ok(qz_op_mask_grad(backend, &dy, &dy, &mask));
    grad = (float)sum;
    gradient_check("activations, scale", activation_value, &a, &a.scale, &grad, 1);
    gradient_check("activations, x", activation_value, &a, a.x, data[1], MOST);
}

Test(kernels_quantize_gradient, activations)
{
    const qz_act_scheme whole = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true};
    const qz_act_scheme shifted = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8};
    const qz_act_scheme fp8 = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_FP8_E5M2};
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available() || backend->device != QZ_HOST) continue;
        check_activations(backend, &whole, (qz_act_values){1.1f, 0}, -128, 127);
        check_activations(backend, &shifted, (qz_act_values){0.9f, -37}, -91, 164);
        check_activations(backend, &fp8, (qz_act_values){0.8f, 0}, -57344, 57344);
    }
}
