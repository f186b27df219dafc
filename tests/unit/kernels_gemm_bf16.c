/* kernels/cpu_gemm_bf16: every way of multiplying against sums in double, in every orientation. */
#include <math.h>

#include "base/arena.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/cpu_gemm_bf16.h"
#include "numeric/minifloat.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { PAD = 3 };
static const qz_gemm_path paths[] = {QZ_GEMM_BLAS, QZ_GEMM_SINGLE, QZ_GEMM_PAIRS};
enum { PATHS = sizeof paths / sizeof *paths };

typedef struct problem {
    qz_arena *arena;
    qz_rng rng;
    qz_gemm g;
    float *c, *before; /* (m, n + PAD) */
} problem;

static size_t result_count(const problem *p)
{
    return (size_t)(p->g.m * (p->g.n + PAD));
}

static qz_factor factor_new(problem *p, int64_t count, int64_t k, bool across)
{
    const int64_t rows = across ? k : count, stride = (across ? count : k) + PAD;
    float *data = qz_arena_array(p->arena, float, (size_t)(rows * stride));
    cr_assert(data != NULL);
    for (int64_t i = 0; i < rows * stride; i++) data[i] = (float)qz_rng_normal(&p->rng);
    return (qz_factor){data, stride, across};
}

static problem problem_new(int64_t m, int64_t n, int64_t k, unsigned kind)
{
    problem p = {.g = {.m = m, .n = n, .k = k, .add = kind & 4}};
    check_ok(qz_arena_new(&p.arena, "test"));
    qz_rng_seed(&p.rng, 7, kind);
    p.g.a = factor_new(&p, m, k, kind & 1);
    p.g.b = factor_new(&p, n, k, kind & 2);
    p.c = qz_arena_array(p.arena, float, result_count(&p));
    p.before = qz_arena_array(p.arena, float, result_count(&p));
    cr_assert(p.c && p.before);
    for (size_t i = 0; i < result_count(&p); i++) p.before[i] = p.g.add ? (float)qz_rng_normal(&p.rng) : NAN;
    p.g.c = (qz_tile){p.c, n + PAD};
    return p;
}

static void multiply(problem *p, qz_gemm_path path)
{
    memcpy(p->c, p->before, result_count(p) * sizeof *p->c);
    qz_gemm_bf16(&p->g, path);
}

static double element(const qz_factor *f, int64_t i, int64_t p)
{
    return (double)qz_bf16_decode(qz_bf16_encode(f->data[f->across ? p * f->stride + i : i * f->stride + p]));
}

static double expected(const problem *p, int64_t i, int64_t j)
{
    double sum = p->g.add ? (double)p->before[i * p->g.c.stride + j] : 0;
    for (int64_t at = 0; at < p->g.k; at++) sum += element(&p->g.a, i, at) * element(&p->g.b, j, at);
    return sum;
}

static void check_result(const problem *p, qz_gemm_path path)
{
    const double allowed = TOL_KERNEL_SUM * (1 + 4 * sqrt((double)p->g.k)); /* about the largest value */
    for (int64_t i = 0; i < p->g.m; i++) {
        for (int64_t j = 0; j < p->g.n; j++) {
            const double want = expected(p, i, j), got = (double)p->c[i * p->g.c.stride + j];
            cr_assert(fabs(got - want) <= allowed, "path %d, (%lld, %lld): %.9g, expected %.9g", (int)path,
                      (long long)i, (long long)j, got, want);
        }
        cr_assert(
            memcmp(p->c + i * p->g.c.stride + p->g.n, p->before + i * p->g.c.stride + p->g.n, PAD * sizeof *p->c) == 0);
    }
}

/* Sides around those of the register tile and of the blocks. */
static const int64_t shapes[][3] = {{1, 1, 1},      {13, 31, 5},    {14, 32, 256}, {15, 33, 257},  {57, 65, 40},
                                    {61, 200, 601}, {113, 385, 19}, {1050, 34, 6}, {300, 290, 401}};
enum { SHAPES = sizeof shapes / sizeof *shapes, KINDS = 8 };

Test(gemm_bf16, every_path_and_orientation)
{
    for (int s = 0; s < SHAPES; s++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            problem p = problem_new(shapes[s][0], shapes[s][1], shapes[s][2], kind);
            for (int w = 0; w < PATHS; w++) {
                const qz_gemm_path path = paths[w];
                if (!qz_gemm_has(path)) continue;
                multiply(&p, path);
                check_result(&p, path);
            }
            qz_arena_free(p.arena);
        }
    }
}

Test(gemm_bf16, does_not_depend_on_threads)
{
    for (int w = 0; w < PATHS; w++) {
        const qz_gemm_path path = paths[w];
        if (!qz_gemm_has(path)) continue;
        problem p = problem_new(300, 450, 530, 2);
        float *one = qz_arena_array(p.arena, float, result_count(&p));
        cr_assert(one != NULL);
        qz_threads_set(1);
        multiply(&p, path);
        memcpy(one, p.c, result_count(&p) * sizeof *one);
        qz_threads_set(8);
        multiply(&p, path);
        cr_assert(memcmp(one, p.c, result_count(&p) * sizeof *one) == 0, "path %d", (int)path);
        qz_arena_free(p.arena);
    }
}

/* With one product to each sum the result is the product of the nearest BF16 numbers, ties to even. */
Test(gemm_bf16, rounds_to_nearest_even)
{
    static const float x[] = {1.00390625f, 1.01171875f, -1.00390625f, 1.00390637f, 3.0e38f, 0};
    static const float want[] = {1, 1.015625f, -1, 1.0078125f, 0x1.c4p127f, 0};
    const float one = 1;
    for (int w = 0; w < PATHS; w++) {
        const qz_gemm_path path = paths[w];
        if (!qz_gemm_has(path)) continue;
        float c[6];
        const qz_gemm g = {6, 1, 1, {x, 1, false}, {&one, 1, false}, {c, 1}, false};
        qz_gemm_bf16(&g, path);
        for (int i = 0; i < 6; i++) cr_assert(c[i] == want[i], "path %d: %.9g of %.9g", (int)path, c[i], x[i]);
    }
}

/* What is not finite reaches its row, and only that. */
Test(gemm_bf16, keeps_what_is_not_finite)
{
    uint32_t all_ones = 0x7fffffff; /* rounding must not carry into the sign */
    float nan;
    memcpy(&nan, &all_ones, sizeof nan);
    for (int w = 0; w < PATHS; w++) {
        const qz_gemm_path path = paths[w];
        if (!qz_gemm_has(path)) continue;
        problem p = problem_new(20, 40, 33, 0);
        float *a = (float *)p.g.a.data;
        a[3 * p.g.a.stride + 32] = nan;
        a[5 * p.g.a.stride] = INFINITY;
        multiply(&p, path);
        for (int i = 0; i < 20; i++)
            for (int j = 0; j < 40; j++) {
                const float y = p.c[i * p.g.c.stride + j];
                cr_assert(i == 3   ? isnan(y)
                          : i == 5 ? !isfinite(y)
                                   : isfinite(y),
                          "path %d: (%d, %d)", (int)path, i, j);
            }
        qz_arena_free(p.arena);
    }
}

Test(gemm_bf16, a_way_there_always_is)
{
    cr_assert(qz_gemm_has(QZ_GEMM_BLAS) && qz_gemm_has(qz_gemm_best()));
}
