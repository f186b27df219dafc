/* A seeded linear problem for the tests of quant/: a weight, correlated inputs with outlier channels, statistics. */
#ifndef QZ_TESTING_QUANT_CASE_H
#define QZ_TESTING_QUANT_CASE_H

#include <math.h>

#include "quant/quant.h"
#include "testing/testing.h"

typedef struct quant_case {
    qz_arena *arena;
    const qz_backend *backend;
    qz_rng rng;
    qz_tensor w, x; /* (N, K), (T, K) */
    qz_stats stats;
} quant_case;

static inline qz_tensor quant_matrix(quant_case *c, int64_t rows, int64_t cols, double size)
{
    float *data = qz_arena_array(c->arena, float, (size_t)(rows * cols));
    cr_assert(data != NULL);
    for (int64_t i = 0; i < rows * cols; i++) data[i] = (float)(qz_rng_normal(&c->rng) * size);
    return qz_tensor_2d(data, QZ_F32, rows, cols);
}

/* Neighbouring channels move together, every 17th is 20 times larger, channel 3 is dead. */
static inline void quant_inputs(quant_case *c, int64_t tokens, int64_t k)
{
    c->x = quant_matrix(c, tokens, k, 1);
    float *x = qz_f32(&c->x);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t j = 0; j < k; j++) {
            if (j) x[t * k + j] += 0.5f * x[t * k + j - 1] / (j % 17 == 1 ? 20 : 1);
            if (j % 17 == 0) x[t * k + j] *= 20;
            if (j == 3) x[t * k + j] = 0;
        }
}

static inline quant_case quant_case_new(int64_t n, int64_t k, int64_t tokens, uint64_t seed)
{
    quant_case c = {.backend = qz_backend_best()};
    check_ok(qz_arena_new(&c.arena, "case"));
    qz_rng_seed(&c.rng, seed, 5);
    c.w = quant_matrix(&c, n, k, 0.05);
    quant_inputs(&c, tokens, k);
    check_ok(qz_stats_new(&c.stats, k, (qz_stats_wants){.reservoir = 16}, seed, 9, c.arena));
    check_ok(qz_stats_add(&c.stats, c.backend, &c.x));
    check_ok(qz_stats_finish(&c.stats));
    return c;
}

static inline void quant_case_free(quant_case *c)
{
    qz_arena_free(c->arena);
}

static inline const qz_range *quant_range(const char *name)
{
    return qz_range_at((size_t)qz_plugins_find(qz_ranges(), name));
}

static inline const qz_solver *quant_rtn(void)
{
    return qz_solver_at((size_t)qz_plugins_find(qz_solvers(), "rtn"));
}

static inline qz_scheme quant_scheme(qz_format format, int64_t rows, int64_t cols, bool symmetric)
{
    return (qz_scheme){
        .format = format, .piece_rows = rows, .piece_cols = cols, .symmetric = symmetric, .scale_type = QZ_F16};
}

/* Of the case's weight. */
static inline qz_qtensor quant_solved(quant_case *c, qz_scheme scheme, const char *range)
{
    const qz_range *r = quant_range(range);
    const qz_solve_args args = {.backend = c->backend,
                                .weight = c->w,
                                .stats = &c->stats,
                                .scheme = scheme,
                                .range = r,
                                .range_options = qz_options_default(r->plugin.options)};
    qz_qtensor q;
    check_ok(quant_rtn()->solve(&q, &(qz_solve_info){0}, &args, c->arena));
    return q;
}

/* |X (Q - W)^T|^2 over the columns [left, right) of row n, in double; x is divided by `divisor` (NULL: not). */
static inline double quant_row_loss(const quant_case *c, const float *value /* (N, K) */, const float *divisor,
                                    int64_t n, int64_t left, int64_t right)
{
    const int64_t k = c->w.shape[1];
    double sum = 0;
    for (int64_t t = 0; t < c->x.shape[0]; t++) {
        double y = 0;
        for (int64_t j = left; j < right; j++)
            y += ((double)value[n * k + j] - qz_f32(&c->w)[n * k + j]) * qz_f32(&c->x)[t * k + j] /
                 (divisor ? divisor[j] : 1);
        sum += y * y;
    }
    return sum;
}

static inline float *quant_values(quant_case *c, const qz_qtensor *q)
{
    float *out = qz_arena_array(c->arena, float, (size_t)(q->rows * q->cols));
    cr_assert(out != NULL);
    qz_qtensor_dequantize(out, q, 0, q->rows);
    return out;
}

#endif
