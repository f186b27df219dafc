/* What holds for every problem, format and order: gptq never loses more than rounding with the same range; it is
 * rounding where inputs do not correlate; mse never loses more than minmax by its own measure; zeros keep to the
 * scheme's least; neither the number of threads nor a shared factor changes a bit. */
#include "base/parallel.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

enum { PROBLEMS = 24, ORDERS = 4, DESC = 3 };

typedef struct problem {
    quant_case c;
    qz_scheme scheme;
} problem;

/* Sizes, formats, granularity and range of problem i; tails, single rows and more columns than a panel among them. */
static problem problem_at(int i)
{
    static const int64_t rows[] = {1, 24, 65, 130}, cols[] = {32, 70, 144, 300, 640}, groups[] = {0, 16, 32, 128, 48};
    static const qz_format formats[] = {QZ_FORMAT_INT4, QZ_FORMAT_INT3, QZ_FORMAT_INT8,     QZ_FORMAT_INT2,
                                        QZ_FORMAT_NF4,  QZ_FORMAT_INT4, QZ_FORMAT_FP8_E4M3, QZ_FORMAT_FP8_E5M2};
    static const qz_dtype types[] = {QZ_F16, QZ_BF16, QZ_F32};
    problem p = {.c = quant_case_new(rows[i % 4], cols[i % 5], i % 3 ? 40 : 400, 300 + (uint64_t)i)};
    p.scheme = quant_scheme(formats[i % 8], 1, groups[i / 2 % 5], i % 3 != 0);
    p.scheme.scale_type = types[i % 3];
    p.scheme.least_zero = i % 2;
    p.scheme.zero_rule = i % 4 == 1 ? QZ_ROUND_SUM : QZ_ROUND_VALUE;
    p.scheme.narrow = i % 8 == 2 && p.scheme.symmetric;
    if (i % 11 == 5) p.scheme.piece_rows = 8;
    if (i % 11 == 7) p.scheme.piece_rows = p.scheme.piece_cols = 0;
    return p;
}

static const char *range_of(int i)
{
    static const char *const names[] = {"minmax", "mse", "clip"};
    return names[i % 3];
}

static qz_qtensor by(problem *p, const char *solver, const char *range, int order, qz_solve_info *info,
                     qz_solve_shared *shared)
{
    const qz_solver *s = qz_solver_at((size_t)qz_plugins_find(qz_solvers(), solver));
    const qz_range *r = quant_range(p->scheme.piece_rows != 1 && strcmp(range, "clip") == 0 ? "minmax" : range);
    const qz_solve_args args = {.backend = p->c.backend,
                                .weight = p->c.w,
                                .stats = &p->c.stats,
                                .scheme = p->scheme,
                                .range = r,
                                .range_options = qz_options_default(r->plugin.options),
                                .solver_options = {s->plugin.options, {order}},
                                .shared = shared};
    qz_qtensor q;
    check_ok(s->solve(&q, info, &args, p->c.arena));
    return q;
}

static double loss_of(problem *p, const qz_qtensor *q)
{
    double loss, energy;
    check_ok(qz_output_loss(&loss, &energy, p->c.backend, &p->c.w, q, &p->c.stats, p->c.arena));
    return loss;
}

static bool allowed(const problem *p, int order)
{
    return order != DESC || p->scheme.piece_rows == 1 || !p->scheme.piece_cols;
}

Test(gptq_property, never_loses_more_than_rounding)
{
    double all = 0, rounding = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        qz_solve_info info;
        const qz_qtensor plain = by(&p, "rtn", range_of(i), 0, &info, NULL);
        const double rtn = loss_of(&p, &plain);
        for (int order = 0; order < ORDERS; order++) {
            if (!allowed(&p, order)) continue;
            const qz_qtensor q = by(&p, "gptq", range_of(i), order, &info, NULL);
            const double loss = loss_of(&p, &q);
            cr_assert(loss <= rtn * (1 + TOL_LOSS_F32), "problem %d order %d: %g > %g", i, order, loss, rtn);
            cr_assert(info.damping == 0.01 && info.dead_channels == 1 && !info.fell_back);
            cr_assert(info.rows_kept <= q.rows &&
                      (q.permutation != NULL) ==
                          (order == DESC && q.cols > p.scheme.piece_cols && p.scheme.piece_cols > 0));
            all += loss;
            rounding += rtn;
        }
        quant_case_free(&p.c);
    }
    cr_assert(all < 0.8 * rounding, "%g of %g: feedback does nothing", all, rounding);
}

/* G = I, also with a channel that never fired: the codes are the nearest for the scales, and with minmax the scales are
 * those of rtn. */
Test(gptq_property, is_rounding_where_inputs_do_not_correlate)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        const int64_t k = p.c.stats.k;
        qz_solve_info info;
        for (int64_t j = 0; j < k * k; j++) p.c.stats.gram[j] = j % (k + 1) == 0 && j / (k + 1) != 5 ? 2.5f : 0;
        const qz_qtensor plain = by(&p, "rtn", "minmax", 0, &info, NULL);
        for (int order = 0; order < DESC; order++) {
            qz_qtensor q = by(&p, "gptq", range_of(i), order, &info, NULL), nearest = q;
            nearest.codes = qz_arena_alloc(p.c.arena, (size_t)(q.rows * q.cols));
            qz_round_to_nearest(&nearest, &p.c.w);
            cr_assert(memcmp(q.codes, nearest.codes, (size_t)(q.rows * q.cols)) == 0, "problem %d", i);
            cr_assert(info.rows_kept == 0 && info.dead_channels == 1);
            q = by(&p, "gptq", "minmax", order, &info, NULL);
            check_ok(qz_qtensor_compare(&q, &plain));
        }
        quant_case_free(&p.c);
    }
}

Test(gptq_property, zeros_keep_to_the_least)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        qz_solve_info info;
        for (int64_t j = 0; j < p.c.w.shape[0] * p.c.stats.k; j++) qz_f32(&p.c.w)[j] = fabsf(qz_f32(&p.c.w)[j]);
        p.scheme.least_zero = 1;
        for (int r = 0; r < 3; r++)
            for (int order = 0; order < ORDERS; order++) {
                if (!allowed(&p, order)) continue;
                const qz_qtensor q = by(&p, "gptq", range_of(r), order, &info, NULL);
                const int64_t pieces = qz_scheme_pieces(&q.scheme, q.rows, q.cols);
                for (int64_t j = 0; q.zeros && j < pieces; j++) cr_assert(q.zeros[j] >= 1, "problem %d", i);
                for (int64_t j = 0; q.scheme.narrow && j < q.rows * q.cols; j++) cr_assert(q.codes[j] >= 1);
            }
        quant_case_free(&p.c);
    }
}

/* Within rows by the group's block of G, else by its diagonal. */
static double own_loss(const problem *p, const float *value, int64_t n, int64_t left, int64_t right)
{
    const int64_t k = p->c.stats.k;
    double sum = 0;
    if (p->scheme.piece_rows == 1) return quant_row_loss(&p->c, value, NULL, n, left, right);
    for (int64_t j = left; j < right; j++) {
        const double e = (double)value[n * k + j] - (double)qz_f32(&p->c.w)[n * k + j];
        sum += e * e * (double)p->c.stats.gram[j * (k + 1)];
    }
    return sum;
}

Test(gptq_property, mse_is_never_worse_than_minmax)
{
    double all = 0, plain = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        const int64_t n = p.c.w.shape[0], k = p.c.stats.k, width = p.scheme.piece_cols ? p.scheme.piece_cols : k;
        const int64_t height = p.scheme.piece_rows ? p.scheme.piece_rows : n;
        const qz_qtensor a = quant_solved(&p.c, p.scheme, "mse"), b = quant_solved(&p.c, p.scheme, "minmax");
        const float *mse = quant_values(&p.c, &a), *minmax = quant_values(&p.c, &b);
        for (int64_t top = 0; top < n; top += height)
            for (int64_t left = 0; left < k; left += width) {
                double ours = 0, theirs = 0;
                for (int64_t row = top; row < n && row < top + height; row++) {
                    ours += own_loss(&p, mse, row, left, left + width < k ? left + width : k);
                    theirs += own_loss(&p, minmax, row, left, left + width < k ? left + width : k);
                }
                cr_assert(ours <= theirs * (1 + TOL_LOSS_F32), "problem %d row %ld: %g > %g", i, (long)top, ours,
                          theirs);
                all += ours;
                plain += theirs;
            }
        quant_case_free(&p.c);
    }
    cr_assert(all < 0.8 * plain, "%g of %g", all, plain);
}

Test(gptq_property, threads_and_a_shared_factor_change_nothing)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        for (int order = 0; order < ORDERS; order++) {
            if (!allowed(&p, order)) continue;
            qz_solve_info info, again;
            qz_solve_shared shared = {.arena = p.c.arena};
            qz_threads_set(1);
            const qz_qtensor one = by(&p, "gptq", range_of(i), order, &info, NULL);
            qz_threads_set(8);
            const qz_qtensor many = by(&p, "gptq", range_of(i), order, &again, &shared);
            const void *kept = shared.kept;
            const qz_qtensor last = by(&p, "gptq", range_of(i), order, &again, &shared);
            cr_assert(kept != NULL && shared.kept == kept, "made again");
            check_ok(qz_qtensor_compare(&one, &many));
            check_ok(qz_qtensor_compare(&one, &last));
            cr_assert(info.rows_kept == again.rows_kept && info.damping == again.damping);
        }
        quant_case_free(&p.c);
    }
}
