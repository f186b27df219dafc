/* The relative output error of a linear, against the sums of its definition in double. */
#include "calib/layer_error.h"

#include <math.h>

#include "testing/testing.h"
#include "testing/tolerances.h"

enum { N = 1100, K = 32, R = 300, USED = 256 }; /* more rows than a tile; more samples than are used */

typedef struct linear_case {
    qz_arena *arena;
    float *weight;
    qz_tensor w;
    qz_qtensor q;
    qz_stats stats;
} linear_case;

static linear_case new_case(int rows)
{
    linear_case c;
    qz_rng rng;
    qz_rng_seed(&rng, 1, 0);
    check_ok(qz_arena_new(&c.arena, "test"));
    c.weight = qz_arena_array(c.arena, float, N *K);
    for (int i = 0; i < N * K; i++) c.weight[i] = (float)qz_rng_normal(&rng);
    c.w = qz_tensor_2d(c.weight, QZ_F32, N, K);
    qz_scheme scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 16, .scale_type = QZ_F16};
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    qz_solve_args args = {.backend = qz_backend_best(),
                          .weight = c.w,
                          .scheme = scheme,
                          .range = minmax,
                          .range_options = qz_options_default(minmax->plugin.options)};
    check_ok(qz_solver_at(0)->solve(&c.q, &(qz_solve_info){0}, &args, c.arena));
    check_ok(qz_stats_new(&c.stats, K, (qz_stats_wants){.reservoir = R}, 0, 0, c.arena));
    float *x = qz_arena_array(c.arena, float, R *K);
    for (int i = 0; i < R * K; i++) x[i] = (float)qz_rng_normal(&rng);
    qz_tensor t = qz_tensor_2d(x, QZ_F32, rows, K);
    if (rows) check_ok(qz_stats_add(&c.stats, args.backend, &t));
    return c;
}

static double by_definition(const linear_case *c, int rows)
{
    float *q = qz_arena_array(c->arena, float, N *K);
    qz_qtensor_dequantize(q, &c->q, 0, N);
    double difference = 0, energy = 0;
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < N; n++) {
            double y = 0, d = 0;
            for (int k = 0; k < K; k++) {
                double x = c->stats.reservoir[r * K + k];
                y += x * c->weight[n * K + k];
                d += x * ((double)q[n * K + k] - c->weight[n * K + k]);
            }
            energy += y * y;
            difference += d * d;
        }
    return difference / energy;
}

static void check_rows(int rows, int used)
{
    linear_case c = new_case(rows);
    double found, expected = by_definition(&c, used);
    float first = c.weight[0], last = c.weight[N * K - 1];
    check_ok(qz_layer_error(&found, qz_backend_best(), &c.w, &c.q, &c.stats, c.arena));
    cr_assert_float_eq(found, expected, TOL_LAYER_ERROR * expected, "found %.9g, expected %.9g", found, expected);
    cr_assert(found > 1e-4 && found < 0.1);
    cr_assert(first == c.weight[0] && last == c.weight[N * K - 1]);
    qz_arena_free(c.arena);
}

Test(layer_error, is_the_relative_change_of_the_output)
{
    check_rows(1, 1);
    check_rows(100, 100);
    check_rows(R, USED);
}

Test(layer_error, is_zero_for_exact_codes)
{
    linear_case c = new_case(10);
    double found;
    qz_qtensor_dequantize(c.weight, &c.q, 0, N);
    check_ok(qz_layer_error(&found, qz_backend_best(), &c.w, &c.q, &c.stats, c.arena));
    cr_assert(found == 0.0);
    qz_arena_free(c.arena);
}

Test(layer_error, is_zero_without_samples_or_output)
{
    linear_case c = new_case(0);
    double found = 7;
    check_ok(qz_layer_error(&found, qz_backend_best(), &c.w, &c.q, &c.stats, c.arena));
    cr_assert(found == 0.0);
    qz_arena_free(c.arena);
    c = new_case(10);
    memset(c.stats.reservoir, 0, 10 * K * sizeof(float));
    check_ok(qz_layer_error(&found, qz_backend_best(), &c.w, &c.q, &c.stats, c.arena));
    cr_assert(found == 0.0);
    qz_arena_free(c.arena);
}
