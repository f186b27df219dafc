/* The best approximation of low rank: exact where the matrix has that rank, as good as theory allows where it does not
 * (what is left is the energy of the other components), the same with any number of threads. */
#include "train/low_rank.h"

#include <math.h>

#include "base/parallel.h"
#include "base/rng.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fit {
    qz_arena *arena;
    qz_tensor m, b, a;
    double factor;
} fit;

static qz_tensor matrix(qz_arena *arena, int64_t rows, int64_t cols)
{
    return qz_tensor_2d(qz_arena_calloc(arena, (size_t)(rows * cols) * sizeof(float)), QZ_F32, rows, cols);
}

static void draw(const qz_tensor *x, uint64_t seed)
{
    qz_rng rng;
    qz_rng_seed(&rng, seed, 0);
    for (int64_t i = 0; i < qz_tensor_count(x); i++) qz_f32(x)[i] = (float)qz_rng_normal(&rng);
}

static fit fit_new(int64_t n, int64_t k, int64_t rank, double factor)
{
    fit f = {.factor = factor};
    check_ok(qz_arena_new(&f.arena, "test"));
    f.m = matrix(f.arena, n, k);
    f.b = matrix(f.arena, n, rank);
    f.a = matrix(f.arena, rank, k);
    return f;
}

static void fit_run(fit *f)
{
    check_ok(qz_low_rank(qz_backend_best(), &f->m, &f->b, &f->a, f->factor, f->arena));
}

/* Sum of squares of m, and of m - factor b a. */
static double energy_of(const fit *f)
{
    double sum = 0;
    for (int64_t i = 0; i < qz_tensor_count(&f->m); i++) sum += (double)qz_f32(&f->m)[i] * (double)qz_f32(&f->m)[i];
    return sum;
}

static double energy_left(const fit *f)
{
    const int64_t n = f->m.shape[0], k = f->m.shape[1], rank = f->a.shape[0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++) {
            double x = (double)qz_f32(&f->m)[i * k + j];
            for (int64_t r = 0; r < rank; r++)
                x -= f->factor * (double)qz_f32(&f->b)[i * rank + r] * (double)qz_f32(&f->a)[r * k + j];
            sum += x * x;
        }
    }
    return sum;
}

/* m = sum_i size(i) u_i v_i^T with vectors of a discrete cosine transform, which are orthonormal. */
static double cosine(int64_t i, int64_t at, int64_t n)
{
    return sqrt((i ? 2.0 : 1.0) / (double)n) * cos(M_PI * (double)i * ((double)at + 0.5) / (double)n);
}

static void compose(const qz_tensor *m, const double *size, int64_t count)
{
    const int64_t n = m->shape[0], k = m->shape[1];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++) {
            double sum = 0;
            for (int64_t c = 0; c < count; c++) sum += size[c] * cosine(c, i, n) * cosine(c, j, k);
            qz_f32(m)[i * k + j] = (float)sum;
        }
    }
}

Test(low_rank, a_matrix_of_that_rank_is_met)
{
    static const double size[] = {9, 4, 4, 0.5};
    static const int64_t shapes[][2] = {{70, 40}, {40, 70}, {4, 90}, {64, 4}};
    for (int i = 0; i < 4; i++) {
        fit f = fit_new(shapes[i][0], shapes[i][1], 4, 2);
        compose(&f.m, size, 4);
        fit_run(&f);
        cr_assert(energy_left(&f) < 1e-10 * energy_of(&f), "%g of %g", energy_left(&f), energy_of(&f));
        qz_arena_free(f.arena);
    }
}

Test(low_rank, what_is_left_are_the_other_components)
{
    double size[60];
    double rest = 0;
    enum { RANK = 5 };
    for (int i = 0; i < 60; i++) size[i] = 1 / (1.0 + i);
    for (int i = RANK; i < 60; i++) rest += size[i] * size[i];
    fit f = fit_new(120, 90, RANK, 0.25);
    compose(&f.m, size, 60);
    fit_run(&f);
    cr_assert(fabs(energy_left(&f) / rest - 1) < TOL_LOW_RANK, "%g, expected %g", energy_left(&f), rest);
    for (int r = 0; r < RANK; r++) { /* the root of the singular value on either side */
        double a = 0, b = 0;
        for (int64_t j = 0; j < 90; j++) a += (double)qz_f32(&f.a)[r * 90 + j] * (double)qz_f32(&f.a)[r * 90 + j];
        for (int64_t j = 0; j < 120; j++) b += (double)qz_f32(&f.b)[j * RANK + r] * (double)qz_f32(&f.b)[j * RANK + r];
        cr_assert(fabs(a / b - 1) < 1e-5 && fabs(a * f.factor / size[r] - 1) < TOL_LOW_RANK, "%d: %g, %g", r, a, b);
    }
    qz_arena_free(f.arena);
}

/* The hardest kind, and that of rounding errors: all components are about as large. */
Test(low_rank, noise)
{
    enum { N = 200, K = 150, RANK = 8 };
    fit f = fit_new(N, K, RANK, 1), whole = fit_new(N, K, K, 1);
    draw(&f.m, 7);
    memcpy(whole.m.data, f.m.data, (size_t)(N * K) * sizeof(float));
    fit_run(&f);
    fit_run(&whole);
    double best = 0; /* energy of the largest components, from a decomposition of full rank */
    for (int r = 0; r < RANK; r++) {
        double a = 0;
        for (int64_t j = 0; j < K; j++) a += (double)qz_f32(&whole.a)[r * K + j] * (double)qz_f32(&whole.a)[r * K + j];
        best += a * a;
    }
    cr_assert(energy_left(&whole) < 1e-9 * energy_of(&f));
    const double got = energy_of(&f) - energy_left(&f);
    cr_assert(got > (1 - TOL_LOW_RANK) * best && got < (1 + 1e-6) * best, "%g, the best has %g", got, best);
    qz_arena_free(f.arena);
    qz_arena_free(whole.arena);
}

Test(low_rank, nothing_leaves_a_as_it_is)
{
    fit f = fit_new(20, 30, 3, 1);
    for (int i = 0; i < 90; i++) qz_f32(&f.a)[i] = 5;
    draw(&f.b, 1);
    fit_run(&f);
    for (int i = 0; i < 90; i++) cr_assert(qz_f32(&f.a)[i] == 5);
    for (int i = 0; i < 60; i++) cr_assert(qz_f32(&f.b)[i] == 0);
    qz_arena_free(f.arena);
}

Test(low_rank, threads_make_no_difference)
{
    const int before = qz_threads();
    fit f[2];
    for (int i = 0; i < 2; i++) {
        f[i] = fit_new(150, 260, 6, 1);
        draw(&f[i].m, 3);
        qz_threads_set(i ? 8 : 1);
        fit_run(&f[i]);
    }
    qz_threads_set(before);
    cr_assert_arr_eq(f[0].a.data, f[1].a.data, 6 * 260 * sizeof(float));
    cr_assert_arr_eq(f[0].b.data, f[1].b.data, 150 * 6 * sizeof(float));
    for (int i = 0; i < 2; i++) qz_arena_free(f[i].arena);
}
