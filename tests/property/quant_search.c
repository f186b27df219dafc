/* What holds for every problem: the search is never worse than leaving the weights alone and is rounding where its grid
 * has one point, clip is never worse than minmax by its own measure, tied channels share a scale, the number of threads
 * changes no bit, and how data is cut into calls changes nothing but the rounding of sums. */
#include "base/parallel.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

enum { PROBLEMS = 12 };

/* Sizes, group and symmetry of problem i; tails and single rows among them. */
typedef struct problem {
    quant_case c;
    qz_scheme scheme;
} problem;

static problem problem_at(int i)
{
    static const int64_t rows[] = {1, 24, 65}, cols[] = {32, 70, 128, 144}, groups[] = {0, 16, 32, 128};
    static const qz_format formats[] = {QZ_FORMAT_INT4, QZ_FORMAT_INT3, QZ_FORMAT_INT8, QZ_FORMAT_FP8_E4M3};
    static const qz_dtype types[] = {QZ_F16, QZ_BF16, QZ_F32};
    problem p = {.c = quant_case_new(rows[i % 3], cols[i % 4], 40, 100 + (uint64_t)i)};
    p.scheme = quant_scheme(formats[i / 2 % 4], 1, groups[i / 3 % 4], i % 2);
    p.scheme.scale_type = types[i % 3];
    return p;
}

static qz_search_result searched(problem *p, const char *range, int grid, bool weight_means, int64_t tie_groups)
{
    const qz_range *r = quant_range(range);
    const qz_search_weight weight = {p->c.w, r, qz_options_default(r->plugin.options)};
    const qz_search_args args = {.backend = p->c.backend,
                                 .weight = &weight,
                                 .weights = 1,
                                 .stats = &p->c.stats,
                                 .scheme = p->scheme,
                                 .grid = grid,
                                 .weight_means = weight_means,
                                 .tie_heads = tie_groups ? 8 : 0,
                                 .tie_groups = tie_groups,
                                 .tie_size = tie_groups ? p->c.stats.k / 8 : 0};
    qz_search_result found = {.scale = qz_arena_array(p->c.arena, float, (size_t)p->c.stats.k)};
    check_ok(qz_scale_search(&found, &args, p->c.arena));
    return found;
}

Test(quant_property, search_is_never_worse_than_the_identity)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        const qz_search_result r = searched(&p, i % 2 ? "clip" : "minmax", 7, true, 0);
        cr_assert(r.loss <= r.identity_loss && isfinite(r.loss), "problem %d: %g > %g", i, r.loss, r.identity_loss);
        cr_assert(r.kept_identity == (r.loss == r.identity_loss));
        for (int64_t k = 0; k < p.c.stats.k; k++) cr_assert(r.scale[k] > 0 && isfinite(r.scale[k]));
        quant_case_free(&p.c);
    }
}

/* r = 0 alone is s = 1: AWQ is then round to nearest. */
Test(quant_property, a_grid_of_one_point_is_rounding)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        double loss, energy;
        const qz_search_result r = searched(&p, "minmax", 1, false, 0);
        const qz_qtensor q = quant_solved(&p.c, p.scheme, "minmax");
        check_ok(qz_output_loss(&loss, &energy, p.c.backend, &p.c.w, &q, &p.c.stats, p.c.arena));
        cr_assert(r.kept_identity && r.exponent == 0 && r.loss == r.identity_loss);
        cr_assert(fabs(r.loss - loss) <= TOL_LOSS_F32 * loss, "problem %d: %g, rounding gives %g", i, r.loss, loss);
        for (int64_t k = 0; k < p.c.stats.k; k++) cr_assert(r.scale[k] == 1);
        quant_case_free(&p.c);
    }
}

Test(quant_property, tied_channels_share_a_scale)
{
    for (int64_t groups = 1; groups <= 8; groups *= 2) {
        problem p = problem_at(6); /* 128 channels: 8 heads of 16 */
        const qz_search_result r = searched(&p, "minmax", 20, true, groups);
        cr_assert(!r.kept_identity && p.c.stats.k == 128);
        for (int k = 0; k < 128; k++) {
            const int first = k / 16 / (int)(8 / groups) * (int)(8 / groups) * 16 + k % 16;
            cr_assert(r.scale[k] == r.scale[first], "%ld groups: channel %d", (long)groups, k);
        }
        quant_case_free(&p.c);
    }
}

/* By the measure of clip, each group's own output error. */
Test(quant_property, clip_is_never_worse_than_minmax)
{
    for (int i = 0; i < PROBLEMS; i++) {
        problem p = problem_at(i);
        const int64_t k = p.c.stats.k, width = p.scheme.piece_cols ? p.scheme.piece_cols : k;
        const qz_qtensor a = quant_solved(&p.c, p.scheme, "clip"), b = quant_solved(&p.c, p.scheme, "minmax");
        const float *clip = quant_values(&p.c, &a), *minmax = quant_values(&p.c, &b);
        for (int64_t n = 0; n < p.c.w.shape[0]; n++)
            for (int64_t left = 0; left < k; left += width) {
                const int64_t right = left + width < k ? left + width : k;
                const double ours = quant_row_loss(&p.c, clip, NULL, n, left, right);
                const double plain = quant_row_loss(&p.c, minmax, NULL, n, left, right);
                cr_assert(ours <= plain * (1 + TOL_LOSS_F32), "problem %d row %ld: %g > %g", i, (long)n, ours, plain);
            }
        quant_case_free(&p.c);
    }
}

/* Everything that a problem gives, under a number of threads. */
typedef struct outcome {
    problem p;
    qz_search_result found;
    qz_qtensor q;
} outcome;

static outcome outcome_with(int threads, int i)
{
    qz_threads_set(threads);
    outcome o = {.p = problem_at(i)};
    o.found = searched(&o.p, "clip", 5, true, 0);
    qz_stats_rescale(&o.p.c.stats, o.found.scale);
    o.q = quant_solved(&o.p.c, o.p.scheme, "clip");
    return o;
}

Test(quant_property, threads_change_no_bit)
{
    const int threads[] = {2, 8};
    for (int i = 0; i < PROBLEMS; i++) {
        outcome one = outcome_with(1, i);
        const size_t k = (size_t)one.p.c.stats.k;
        for (int t = 0; t < 2; t++) {
            outcome other = outcome_with(threads[t], i);
            cr_assert_arr_eq(other.p.c.stats.gram, one.p.c.stats.gram, k * k * sizeof(float));
            cr_assert_arr_eq(other.p.c.stats.abssum, one.p.c.stats.abssum, k * sizeof(double));
            cr_assert_arr_eq(other.found.scale, one.found.scale, k * sizeof(float));
            cr_assert(other.found.loss == one.found.loss && other.found.identity_loss == one.found.identity_loss);
            check_ok(qz_qtensor_compare(&one.q, &other.q));
            quant_case_free(&other.p.c);
        }
        quant_case_free(&one.p.c);
    }
}

static void add_in_calls(qz_stats *s, const quant_case *c, int64_t rows)
{
    for (int64_t t = 0; t < c->x.shape[0]; t += rows) {
        const int64_t left = c->x.shape[0] - t;
        const qz_tensor x = qz_tensor_rows(&c->x, t, left < rows ? left : rows);
        check_ok(qz_stats_add(s, c->backend, &x));
    }
    check_ok(qz_stats_finish(s));
}

Test(quant_property, statistics_do_not_depend_on_the_calls)
{
    enum { K = 90, T = 333 };
    quant_case c = quant_case_new(1, K, T, 31);
    const int64_t rows[] = {1, 7, 128, 332};
    for (int i = 0; i < 4; i++) {
        qz_stats s;
        check_ok(qz_stats_new(&s, K, (qz_stats_wants){.reservoir = 16}, 31, 9, c.arena));
        add_in_calls(&s, &c, rows[i]);
        cr_assert(s.tokens == T && s.reservoir_rows == 16);
        cr_assert_arr_eq(s.absmax, c.stats.absmax, K * sizeof(float));
        cr_assert_arr_eq(s.reservoir, c.stats.reservoir, 16 * K * sizeof(float));
        for (int j = 0; j < K; j++) cr_assert(fabs(s.abssum[j] - c.stats.abssum[j]) <= TOL_SAME_FP64 * s.abssum[j]);
        for (int j = 0; j < K * K; j++) {
            const double size = sqrt((double)s.gram[j / K * (K + 1)] * s.gram[j % K * (K + 1)]);
            cr_assert(fabs((double)s.gram[j] - c.stats.gram[j]) <= TOL_GRAM * size, "gram %d", j);
        }
    }
    quant_case_free(&c);
}
