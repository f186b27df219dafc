/* AdamW with moments in fp32 and in 8 bits on every backend of the host, and the sum of squares. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "numeric/codebook.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { COUNT = 1000, BLOCKS = (COUNT + QZ_MOMENT_BLOCK - 1) / QZ_MOMENT_BLOCK };

static qz_adamw step_of(int64_t step)
{
    return (qz_adamw){
        .rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .decay = 0.1, .gradient_factor = 0.5, .step = step};
}

static void for_backends(void (*check)(const qz_backend *backend))
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (backend->available() && backend->device == QZ_HOST) check(backend);
    }
}

/* Parameters, gradients, and moments of both kinds. */
typedef struct state {
    float p[COUNT], g[COUNT], m[COUNT], v[COUNT], m_absmax[BLOCKS], v_absmax[BLOCKS];
    uint8_t m_code[COUNT], v_code[COUNT];
} state;

static state *state_new(uint64_t seed)
{
    state *s = calloc(1, sizeof *s);
    qz_rng rng;
    qz_rng_seed(&rng, 3, seed);
    for (int i = 0; i < COUNT; i++) s->p[i] = (float)qz_rng_normal(&rng);
    return s;
}

static void step_f32(const qz_backend *backend, state *s, int64_t step)
{
    const qz_adamw how = step_of(step);
    const qz_tensor p = qz_tensor_2d(s->p, QZ_F32, 10, COUNT / 10), m = qz_tensor_1d(s->m, QZ_F32, COUNT);
    const qz_tensor v = qz_tensor_1d(s->v, QZ_F32, COUNT), g = qz_tensor_2d(s->g, QZ_F32, COUNT / 10, 10);
    check_ok(qz_op_adamw(backend, &p, &m, &v, &g, &how));
}

static void step_8bit(const qz_backend *backend, state *s, int64_t step)
{
    const qz_adamw how = step_of(step);
    const qz_tensor p = qz_tensor_1d(s->p, QZ_F32, COUNT), g = qz_tensor_1d(s->g, QZ_F32, COUNT);
    const qz_tensor m = qz_tensor_1d(s->m_code, QZ_U8, COUNT), v = qz_tensor_1d(s->v_code, QZ_U8, COUNT);
    const qz_tensor a = qz_tensor_1d(s->m_absmax, QZ_F32, BLOCKS), b = qz_tensor_1d(s->v_absmax, QZ_F32, BLOCKS);
    check_ok(qz_op_adamw_8bit(backend, &p, &m, &a, &v, &b, &g, &how));
}

/* Algorithm 2 of the paper, in double. */
static void step_double(double *p, double *m, double *v, double g, int64_t step)
{
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.95 * *v + 0.05 * g * g;
    const double m_hat = *m / (1 - pow(0.9, (double)step)), v_hat = *v / (1 - pow(0.95, (double)step));
    *p -= 0.01 * (m_hat / (sqrt(v_hat) + 1e-8) + 0.1 * *p);
}

static void check_against_double(const qz_backend *backend)
{
    static double p[COUNT], m[COUNT], v[COUNT];
    state *s = state_new(1);
    qz_rng rng;
    qz_rng_seed(&rng, 4, 0);
    memset(m, 0, sizeof m), memset(v, 0, sizeof v);
    for (int i = 0; i < COUNT; i++) p[i] = s->p[i];
    for (int64_t step = 1; step <= 10; step++) {
        for (int i = 0; i < COUNT; i++) {
            s->g[i] = (float)qz_rng_normal(&rng);
            step_double(p + i, m + i, v + i, 0.5 * s->g[i], step);
        }
        step_f32(backend, s, step);
    }
    for (int i = 0; i < COUNT; i++)
        cr_assert(fabs(s->p[i] - p[i]) <= TOL_ADAMW_F32, "%s, element %d: %.9g, is %.9g", backend->plugin.name, i,
                  s->p[i], p[i]);
    free(s);
}

Test(kernels_optimizer, adamw_is_the_algorithm)
{
    for_backends(check_against_double);
}

/* torch 2, optim/adam.py, _single_tensor_adam: one fp32 operation after another, scalars worked out in double. */
static float torch_step(float p, float *m, float *v, float g, int64_t step)
{
    const double bias1 = 1 - pow(0.9, (double)step), bias2 = 1 - pow(0.95, (double)step);
    const float decayed = p * (float)(1 - 0.01 * 0.1);
    const float difference = g - *m, part = difference * (float)(1 - 0.9);                    /* lerp */
    const float kept = *v * (float)0.95, scaled = (float)(1 - 0.95) * g, square = scaled * g; /* mul, addcmul */
    *m = *m + part;
    *v = kept + square;
    const float root = sqrtf(*v), divided = root / (float)sqrt(bias2), below = divided + (float)1e-8;
    const float above = (float)-(0.01 / bias1) * *m, change = above / below; /* addcdiv */
    return decayed + change;
}

static void check_against_torch(const qz_backend *backend)
{
    state *s = state_new(2), *want = state_new(2);
    qz_rng rng;
    qz_rng_seed(&rng, 5, 0);
    for (int64_t step = 1; step <= 5; step++) {
        for (int i = 0; i < COUNT; i++) {
            s->g[i] = (float)qz_rng_normal(&rng);
            want->p[i] = torch_step(want->p[i], want->m + i, want->v + i, s->g[i] * 0.5f, step);
        }
        step_f32(backend, s, step);
        cr_assert(memcmp(s->p, want->p, sizeof s->p) == 0, "%s, step %lld", backend->plugin.name, (long long)step);
        cr_assert(memcmp(s->m, want->m, sizeof s->m) == 0 && memcmp(s->v, want->v, sizeof s->v) == 0);
    }
    free(s), free(want);
}

Test(kernels_optimizer, adamw_has_the_bits_of_torchs_order)
{
    for_backends(check_against_torch);
}

/* A parabola with curvatures between 0.1 and 10: both kinds of moments come as close to its lowest point. */
static double parabola(const qz_backend *backend, void (*step)(const qz_backend *backend, state *s, int64_t step))
{
    state *s = state_new(3);
    double distance = 0;
    for (int64_t i = 1; i <= 300; i++) {
        for (int j = 0; j < COUNT; j++) s->g[j] = (float)pow(10, j % 21 / 10.0 - 1) * (s->p[j] - 0.5f);
        step(backend, s, i);
    }
    for (int j = 0; j < COUNT; j++) distance += (s->p[j] - 0.5) * (s->p[j] - 0.5);
    free(s);
    return sqrt(distance / COUNT);
}

static void check_parabola(const qz_backend *backend)
{
    const double wide = parabola(backend, step_f32), narrow = parabola(backend, step_8bit);
    cr_log_info("%s: distance %.4g in fp32, %.4g in 8 bits", backend->plugin.name, wide, narrow);
    cr_assert(wide < TOL_PARABOLA && narrow < TOL_PARABOLA, "%s: fp32 %.4g, 8 bits %.4g", backend->plugin.name, wide,
              narrow);
}

Test(kernels_optimizer, eight_bits_converge_like_fp32)
{
    for_backends(check_parabola);
}

static int nearest(double share, float (*decode)(int code))
{
    int best = 0;
    for (int code = 1; code < 256; code++)
        if (fabs(decode(code) - share) < fabs(decode(best) - share)) best = code;
    return best;
}

static float signed_value(int code)
{
    return qz_dynamic_decode(code);
}

static float unsigned_value(int code)
{
    return qz_dynamic_unsigned_decode(code);
}

/* From nothing, one step leaves m = 0.1 g / 2 and v = 0.05 (g / 2)^2. Exact: the largest of each block. Of the codes
 * the nearest, but that v stays above 0. */
static void check_first_codes(const qz_backend *backend)
{
    state *s = state_new(4);
    qz_rng rng;
    qz_rng_seed(&rng, 6, 0);
    for (int i = 0; i < COUNT; i++) s->g[i] = (float)(qz_rng_normal(&rng) * pow(10, -(i % 7)));
    step_8bit(backend, s, 1);
    for (int b = 0; b < BLOCKS; b++) {
        const int first = b * QZ_MOMENT_BLOCK, end = first + QZ_MOMENT_BLOCK < COUNT ? first + QZ_MOMENT_BLOCK : COUNT;
        float m_most = 0, v_most = 0;
        for (int i = first; i < end; i++) {
            const float g = s->g[i] * 0.5f;
            m_most = fmaxf(m_most, fabsf(g * (float)(1 - 0.9)));
            v_most = fmaxf(v_most, (float)(1 - 0.95) * g * g);
        }
        cr_assert(s->m_absmax[b] == m_most && s->v_absmax[b] == v_most, "%s, block %d", backend->plugin.name, b);
        for (int i = first; i < end; i++) {
            const float g = s->g[i] * 0.5f, m = g * (float)(1 - 0.9), v = (float)(1 - 0.95) * g * g;
            const int m_code = nearest((double)(m / m_most), signed_value);
            int v_code = nearest((double)(v / v_most), unsigned_value);
            if (v_code == 0 && v > 0) v_code = 1;
            cr_assert(s->m_code[i] == m_code, "%s, %d: m %d, nearest %d", backend->plugin.name, i, s->m_code[i],
                      m_code);
            cr_assert(s->v_code[i] == v_code, "%s, %d: v %d, nearest %d", backend->plugin.name, i, s->v_code[i],
                      v_code);
        }
    }
    free(s);
}

Test(kernels_optimizer, codes_are_the_nearest_and_block_scales_exact)
{
    for_backends(check_first_codes);
}

/* Midpoints and their neighbours, of m of both signs, and near those of v: cpu's table of keys finds what bisection
 * does. */
Test(kernels_optimizer, codes_at_midpoints)
{
    enum { ALL = 2 * 256 * 3 };
    static float g[ALL], p[2][ALL];
    static uint8_t m[2][ALL], v[2][ALL];
    static float am[2][ALL / QZ_MOMENT_BLOCK], av[2][ALL / QZ_MOMENT_BLOCK];
    const qz_adamw how = {.rate = 0, .epsilon = 1, .gradient_factor = 1, .step = 1}; /* betas 0: m = g, v = g g */
    for (int i = 0; i < ALL; i++) {
        const int code = i / 3 % 255;
        const bool of_v = i >= ALL / 2;
        const float middle = of_v ? sqrtf((unsigned_value(code) + unsigned_value(code + 1)) / 2)
                                  : (signed_value(code) + signed_value(code + 1)) / 2;
        g[i] = i % 3 == 0 ? middle : nextafterf(middle, i % 3 == 1 ? 2.0f : -2.0f);
        if (i % QZ_MOMENT_BLOCK == 0) g[i] = 1;
    }
    const qz_tensor gt = qz_tensor_1d(g, QZ_F32, ALL);
    for (size_t b = 0; b < 2; b++) {
        const qz_tensor pt = qz_tensor_1d(p[b], QZ_F32, ALL), mt = qz_tensor_1d(m[b], QZ_U8, ALL);
        const qz_tensor vt = qz_tensor_1d(v[b], QZ_U8, ALL);
        const qz_tensor a = qz_tensor_1d(am[b], QZ_F32, ALL / QZ_MOMENT_BLOCK);
        const qz_tensor c = qz_tensor_1d(av[b], QZ_F32, ALL / QZ_MOMENT_BLOCK);
        check_ok(qz_op_adamw_8bit(qz_backend_at(b), &pt, &mt, &a, &vt, &c, &gt, &how));
        for (int i = 0; i < ALL; i++)
            cr_assert(m[b][i] == qz_dynamic_encode(g[i]), "%zu, %d: %.9g gives %d, is %d", b, i, g[i], m[b][i],
                      qz_dynamic_encode(g[i]));
    }
    cr_assert(memcmp(v[0], v[1], sizeof v[0]) == 0 && memcmp(m[0], m[1], sizeof m[0]) == 0);
}

/* A gradient that is not a number spoils its block in a way that can be seen, not one that looks like numbers. */
static void check_nan(const qz_backend *backend)
{
    state *s = state_new(5);
    for (int i = 0; i < COUNT; i++) s->g[i] = i == 300 ? NAN : 1;
    step_8bit(backend, s, 1);
    cr_assert(isnan(s->p[300]) && isnan(s->m_absmax[1]) && isnan(s->v_absmax[1]), "%s", backend->plugin.name);
    cr_assert(isfinite(s->p[0]) && isfinite(s->m_absmax[0]) && isfinite(s->v_absmax[2]));
    free(s);
}

Test(kernels_optimizer, nan_is_seen)
{
    for_backends(check_nan);
}

/* Without gradients nothing but the decay moves parameters, and moments stay 0. */
static void check_zero(const qz_backend *backend)
{
    state *s = state_new(6), *before = state_new(6);
    step_8bit(backend, s, 1);
    step_8bit(backend, s, 2);
    for (int i = 0; i < COUNT; i++) {
        const float keep = (float)(1 - 0.01 * 0.1);
        cr_assert(s->p[i] == before->p[i] * keep * keep, "%s, %d", backend->plugin.name, i);
    }
    for (int b = 0; b < BLOCKS; b++) cr_assert(s->m_absmax[b] == 0 && s->v_absmax[b] == 0);
    free(s), free(before);
}

Test(kernels_optimizer, nothing_to_do)
{
    for_backends(check_zero);
}

Test(kernels_optimizer, unsigned_map)
{
    cr_assert(unsigned_value(0) == 0 && unsigned_value(255) == 1);
    for (int code = 1; code < 255; code++) {
        /* the middle of cell j of n = 2^(decade + 1) on [0.1, 1], times 10^(decade - 6) */
        const int decade = (int)floor(log2(code + 1)) - 1, n = 1 << (decade + 1), j = code + 1 - n;
        const double want = pow(10, decade - 6) * (0.1 + 0.9 * (j + 0.5) / n), got = unsigned_value(code);
        cr_assert(fabs(got - want) <= 2e-7 * want, "code %d: %.9g, is %.9g", code, got, want);
        cr_assert(unsigned_value(code) > unsigned_value(code - 1));
    }
    for (int code = 0; code < 256; code++) cr_assert(qz_dynamic_unsigned_encode(unsigned_value(code)) == code);
    const float tie = (unsigned_value(7) + unsigned_value(8)) / 2;
    cr_assert(qz_dynamic_unsigned_encode(tie) == 7 && qz_dynamic_unsigned_encode(nextafterf(tie, 1)) == 8);
    cr_assert(qz_dynamic_unsigned_encode(3) == 255 && qz_dynamic_unsigned_encode(-3) == 0);
}

/* Squares of whole numbers add up exactly in any order; gaps between rows count nothing. */
static void check_squares(const qz_backend *backend)
{
    enum { ROWS = 37, COLS = 1021, STRIDE = 1030 };
    static float x[ROWS * STRIDE];
    double want = 0, sum = -1;
    for (int i = 0; i < ROWS * STRIDE; i++) {
        x[i] = (float)(i % 1000 - 500);
        if (i % STRIDE < COLS) want += x[i] * x[i];
    }
    qz_tensor view = qz_tensor_2d(x, QZ_F32, ROWS, COLS);
    view.stride[0] = STRIDE;
    check_ok(qz_op_square_sum(backend, &sum, &view));
    cr_assert(sum == want, "%s: %.17g, is %.17g", backend->plugin.name, sum, want);
    const float large = FLT_MAX;
    const qz_tensor one = qz_tensor_1d((void *)&large, QZ_F32, 1);
    check_ok(qz_op_square_sum(backend, &sum, &one));
    cr_assert(sum == (double)FLT_MAX * FLT_MAX);
}

Test(kernels_optimizer, square_sum_is_exact)
{
    for_backends(check_squares);
}

/* More pieces than are added in one round, with 1 and 8 threads. */
Test(kernels_optimizer, square_sum_of_many_pieces)
{
    enum { MANY = 20 * 1000 * 1000 };
    float *x = malloc(MANY * sizeof *x);
    double one, eight, want = 0;
    for (int i = 0; i < MANY; i++) x[i] = (float)(i % 97) * 0.01f;
    for (int i = 0; i < MANY; i++) want += (double)x[i] * x[i];
    const qz_tensor view = qz_tensor_1d(x, QZ_F32, MANY);
    qz_threads_set(1);
    check_ok(qz_op_square_sum(qz_backend_at(1), &one, &view));
    qz_threads_set(8);
    check_ok(qz_op_square_sum(qz_backend_at(1), &eight, &view));
    cr_assert(one == eight && fabs(one - want) <= TOL_SAME_FP64 * want, "%.17g %.17g %.17g", one, eight, want);
    free(x);
}

Test(kernels_optimizer, refusals)
{
    static float x[64];
    static uint8_t codes[300];
    qz_tensor a = qz_tensor_1d(x, QZ_F32, 8), b = qz_tensor_1d(x, QZ_F32, 7), gaps = qz_tensor_2d(x, QZ_F32, 2, 4);
    qz_tensor m = qz_tensor_1d(codes, QZ_U8, 300), scales = qz_tensor_1d(x, QZ_F32, 1),
              two = qz_tensor_1d(x, QZ_F32, 2);
    const qz_backend *ref = qz_backend_at(0);
    qz_adamw how = step_of(1);
    gaps.stride[0] = 5;
    check_fails(QZ_SHAPE, "adamw: v has 7 elements, but 8 are needed", qz_op_adamw(ref, &a, &a, &b, &a, &how));
    check_fails(QZ_SHAPE, "adamw: g has gaps", qz_op_adamw(ref, &a, &a, &a, &gaps, &how));
    check_fails(QZ_SHAPE, "m_absmax has 1 elements, but 2", qz_op_adamw_8bit(ref, &a, &m, &scales, &m, &two, &a, &how));
    check_fails(QZ_SHAPE, "p has 8 elements, but 300", qz_op_adamw_8bit(ref, &a, &m, &two, &m, &two, &a, &how));
    check_fails(QZ_UNSUPPORTED, "m has type F32, allowed: U8", qz_op_adamw_8bit(ref, &a, &a, &two, &m, &two, &a, &how));
    how.step = 0;
    check_fails(QZ_ARG, "step 0, the first one is 1", qz_op_adamw(ref, &a, &a, &a, &a, &how));
    how = step_of(1), how.beta2 = 1;
    check_fails(QZ_ARG, "beta2 1, both must be in [0, 1)", qz_op_adamw(ref, &a, &a, &a, &a, &how));
    how = step_of(1), how.epsilon = 0;
    check_fails(QZ_ARG, "epsilon is 0", qz_op_adamw(ref, &a, &a, &a, &a, &how));
    how = step_of(1), how.rate = NAN;
    check_fails(QZ_ARG, "rate nan", qz_op_adamw(ref, &a, &a, &a, &a, &how));
    check_fails(QZ_ARG, "sum has no data", qz_op_square_sum(ref, NULL, &a));
}
