/* The solver gptq against the plain form of Frantar et al. 2022 in double, what it reports, and what it refuses. */
#include <stdlib.h>

#include "base/parallel.h"
#include "numeric/piece.h"
#include "quant/gptq.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

enum { NATURAL, STATIC, GAR, DESC };

static const qz_solver *gptq(void)
{
    return qz_solver_at((size_t)qz_plugins_find(qz_solvers(), "gptq"));
}

static qz_solve_args args_of(quant_case *c, qz_scheme scheme, const char *range, int order)
{
    const qz_range *r = quant_range(range);
    return (qz_solve_args){.backend = c->backend,
                           .weight = c->w,
                           .stats = &c->stats,
                           .scheme = scheme,
                           .range = r,
                           .range_options = qz_options_default(r->plugin.options),
                           .solver_options = {gptq()->plugin.options, {order}}};
}

/* ---- the plain form ---- */

/* Upper U with H^-1 = U^T U, by Gauss-Jordan and a Cholesky factorization. */
static double *inverse_factor(const double *h, int64_t k)
{
    double *a = malloc((size_t)(k * k) * sizeof *a), *inv = calloc((size_t)(k * k), sizeof *inv);
    memcpy(a, h, (size_t)(k * k) * sizeof *a);
    for (int64_t i = 0; i < k; i++) inv[i * (k + 1)] = 1;
    for (int64_t p = 0; p < k; p++) {
        const double pivot = a[p * (k + 1)];
        for (int64_t j = 0; j < k; j++) a[p * k + j] /= pivot, inv[p * k + j] /= pivot;
        for (int64_t i = 0; i < k; i++) {
            const double f = a[i * k + p];
            if (i == p || f == 0) continue;
            for (int64_t j = 0; j < k; j++) a[i * k + j] -= f * a[p * k + j], inv[i * k + j] -= f * inv[p * k + j];
        }
    }
    for (int64_t i = 0; i < k; i++) /* upper factor of inv = U^T U, in a */
        for (int64_t j = i; j < k; j++) {
            double sum = inv[i * k + j];
            for (int64_t t = 0; t < i; t++) sum -= a[t * k + i] * a[t * k + j];
            a[i * k + j] = i == j ? sqrt(sum) : sum / a[i * (k + 1)];
        }
    free(inv);
    return a;
}

/* Codes of one row: columns in the order `visit`, scales of `q`, or (refresh) minmax of the updated group. */
static void plain_row(uint8_t *codes, qz_qtensor *q, const float *weight, const double *u, const int32_t *visit,
                      int64_t n, bool refresh, bool desc)
{
    const int64_t k = q->cols, width = q->scheme.piece_cols ? q->scheme.piece_cols : k;
    double *w = malloc((size_t)k * sizeof *w);
    float *group = malloc((size_t)k * sizeof *group);
    int64_t last = -1;
    for (int64_t i = 0; i < k; i++) w[i] = weight[visit[i]];
    for (int64_t i = 0; i < k; i++) {
        const int64_t g = (desc ? i : visit[i]) / width;
        int64_t piece;
        qz_scheme_run(&piece, &q->scheme, k, n, g * width);
        if (refresh && g != last) {
            int64_t count = 0;
            float lo, hi;
            for (int64_t j = i; j < k && (desc ? j : visit[j]) / width == g; j++) group[count++] = (float)w[j];
            qz_range_of(&lo, &hi, group, count);
            qz_piece_fit(q, piece, lo, hi);
        }
        last = g;
        const float x = (float)w[i];
        float value;
        qz_piece_encode(&codes[visit[i]], &x, 1, q, piece);
        qz_piece_round(&value, &x, 1, q, piece);
        const double e = (w[i] - (double)value) / u[i * (k + 1)];
        for (int64_t j = i; j < k; j++) w[j] -= e * u[i * k + j];
    }
    free(group);
    free(w);
}

static qz_qtensor plain_form(quant_case *c, const qz_solve_args *a, int order)
{
    const int64_t n = c->w.shape[0], k = c->stats.k;
    int32_t *visit = malloc((size_t)k * sizeof *visit);
    double *h = malloc((size_t)(k * k) * sizeof *h), mean = 0, live = 0;
    qz_qtensor q;
    check_ok(qz_gptq_visit(visit, &c->stats, (qz_gptq_order)order, a->scheme.piece_cols, c->arena));
    for (int64_t i = 0; i < k; i++) {
        mean += c->stats.gram[i * (k + 1)];
        live += c->stats.gram[i * (k + 1)] > 0;
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) h[i * k + j] = c->stats.gram[visit[i] * k + visit[j]];
    for (int64_t i = 0; i < k; i++) h[i * (k + 1)] = h[i * (k + 1)] > 0 ? h[i * (k + 1)] + 0.01 * mean / live : 1;
    double *u = inverse_factor(h, k);
    check_ok(qz_qtensor_alloc(&q, &a->scheme, n, k, c->arena));
    check_ok(qz_solve_scales(&q, a));
    const bool refresh = order != STATIC && a->scheme.piece_cols;
    for (int64_t i = 0; i < n; i++)
        plain_row(q.codes + i * k, &q, qz_f32(&c->w) + i * k, u, visit, i, refresh, order == DESC);
    free(u);
    free(h);
    free(visit);
    return q;
}

/* Loss in double from codes in order `order` of groups. */
static double loss_of(quant_case *c, qz_qtensor *q, const int32_t *permutation)
{
    double loss, energy;
    q->permutation = (int32_t *)permutation;
    check_ok(qz_output_loss(&loss, &energy, c->backend, &c->w, q, &c->stats, c->arena));
    return loss;
}

/* Rows that lose more than rounding's become rounding's. */
static int64_t keep_rounding(quant_case *c, qz_qtensor *q, const qz_solve_args *a, const int32_t *permutation)
{
    const int64_t n = q->rows, k = q->cols, pieces = qz_scheme_pieces(&q->scheme, n, k) / n;
    int64_t kept = 0;
    qz_solve_info info;
    qz_qtensor plain;
    if (permutation) return 0;
    check_ok(quant_rtn()->solve(&plain, &info, a, c->arena));
    const float *ours = quant_values(c, q), *theirs = quant_values(c, &plain);
    for (int64_t i = 0; i < n; i++) {
        if (quant_row_loss(c, ours, NULL, i, 0, k) <= quant_row_loss(c, theirs, NULL, i, 0, k)) continue;
        memcpy(q->codes + i * k, plain.codes + i * k, (size_t)k);
        if (q->scheme.piece_rows == 1)
            memcpy(q->scales + i * pieces, plain.scales + i * pieces, (size_t)pieces * sizeof *q->scales);
        if (q->zeros) memcpy(q->zeros + i * pieces, plain.zeros + i * pieces, (size_t)pieces);
        kept++;
    }
    return kept;
}

static void equals_plain_form(int64_t n, int64_t k, qz_scheme scheme, int order)
{
    quant_case c = quant_case_new(n, k, 2 * k, 77 + (uint64_t)k);
    qz_solve_args a = args_of(&c, scheme, "minmax", order);
    qz_solve_info info;
    qz_qtensor q, want = plain_form(&c, &a, order);
    int64_t differ = 0;
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    const int64_t kept = keep_rounding(&c, &want, &a, q.permutation);
    cr_assert(info.rows_kept == kept, "order %d: %ld rows kept, plainly %ld", order, (long)info.rows_kept, (long)kept);
    for (int64_t i = 0; i < n * k; i++) differ += q.codes[i] != want.codes[i];
    const double ours = loss_of(&c, &q, q.permutation), theirs = loss_of(&c, &want, q.permutation);
    cr_log_info("%ld x %ld, order %d: %ld codes differ, loss %g and %g, kept %ld", (long)n, (long)k, order,
                (long)differ, ours, theirs, (long)info.rows_kept);
    cr_assert((double)differ <= TOL_GPTQ_CODES * (double)(n * k), "order %d: %ld of %ld codes differ", order,
              (long)differ, (long)(n * k));
    cr_assert(fabs(ours - theirs) <= TOL_GPTQ_LOSS * theirs, "order %d: loss %g, plainly %g", order, ours, theirs);
    quant_case_free(&c);
}

Test(gptq, equals_the_plain_form_in_double)
{
    for (int order = 0; order < 4; order++) {
        equals_plain_form(33, 300, quant_scheme(QZ_FORMAT_INT4, 1, 128, true), order);
        equals_plain_form(70, 200, quant_scheme(QZ_FORMAT_INT3, 1, 32, false), order);
        equals_plain_form(33, 250, quant_scheme(QZ_FORMAT_INT8, 1, 0, true), order);
        equals_plain_form(33, 250, quant_scheme(QZ_FORMAT_INT4, 1, 160, false), order);
    }
    equals_plain_form(20, 600, quant_scheme(QZ_FORMAT_INT4, 1, 32, false), STATIC); /* more than a panel */
    equals_plain_form(20, 600, quant_scheme(QZ_FORMAT_INT4, 1, 48, false), NATURAL);
    equals_plain_form(10, 700, quant_scheme(QZ_FORMAT_INT4, 1, 560, true), NATURAL); /* groups longer than one */
    equals_plain_form(64, 384, quant_scheme(QZ_FORMAT_FP8_E4M3, 128, 128, true), STATIC);
    equals_plain_form(64, 384, quant_scheme(QZ_FORMAT_NF4, 1, 64, true), STATIC);
}

/* ---- orders ---- */

Test(gptq, visits_columns_in_order)
{
    float gram[36] = {0}, diagonal[6] = {3, 1, 4, 9, 4, 2};
    qz_stats s = {.k = 6, .gram = gram};
    int32_t v[6];
    const int32_t natural[] = {0, 1, 2, 3, 4, 5}, falling[] = {3, 2, 4, 0, 5, 1}, groups[] = {3, 2, 4, 5, 0, 1};
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "order"));
    for (int i = 0; i < 6; i++) gram[i * 7] = diagonal[i];
    check_ok(qz_gptq_visit(v, &s, QZ_GPTQ_NATURAL, 2, arena));
    cr_assert(memcmp(v, natural, sizeof v) == 0);
    check_ok(qz_gptq_visit(v, &s, QZ_GPTQ_STATIC, 2, arena));
    cr_assert(memcmp(v, falling, sizeof v) == 0);
    check_ok(qz_gptq_visit(v, &s, QZ_GPTQ_DESC, 2, arena));
    cr_assert(memcmp(v, falling, sizeof v) == 0);
    check_ok(qz_gptq_visit(v, &s, QZ_GPTQ_GAR, 2, arena));
    cr_assert(memcmp(v, groups, sizeof v) == 0);
    qz_arena_free(arena);
}

Test(gptq, desc_says_which_group_a_column_is_in)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", DESC);
    qz_solve_info info;
    qz_qtensor q;
    int32_t visit[70];
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    check_ok(qz_gptq_visit(visit, &c.stats, QZ_GPTQ_DESC, 0, c.arena));
    for (int i = 0; i < 70; i++) cr_assert(q.permutation[visit[i]] == i / 32);
    a.scheme.piece_cols = 0;
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    cr_assert(q.permutation == NULL, "one group needs none");
    a.scheme.piece_cols = 32;
    a.scheme.piece_rows = 8;
    check_fails(QZ_UNSUPPORTED, "order desc needs groups within rows", gptq()->solve(&q, &info, &a, c.arena));
    quant_case_free(&c);
}

/* ---- scales ---- */

Test(gptq, given_scales_stay)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    for (int order = 0; order < 4; order++) {
        qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, false), "minmax", order);
        qz_qtensor given = quant_solved(&c, a.scheme, "clip"), q;
        qz_solve_info info;
        a.given = &given;
        check_ok(gptq()->solve(&q, &info, &a, c.arena));
        cr_assert(memcmp(q.scales, given.scales, 27 * sizeof *q.scales) == 0);
        cr_assert(memcmp(q.zeros, given.zeros, 27) == 0);
        cr_assert(order == DESC || loss_of(&c, &q, q.permutation) < loss_of(&c, &given, NULL));
    }
    quant_case_free(&c);
}

Test(gptq, runs_across_the_matrix_and_quantized_scales)
{
    quant_case c = quant_case_new(40, 128, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_NF4, 0, 0, true), "minmax", STATIC);
    qz_solve_info info;
    qz_qtensor q, plain;
    a.scheme.scale_type = QZ_F32;
    a.scheme.flat = 64;
    a.scheme.double_quant = true;
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    check_ok(quant_rtn()->solve(&plain, &info, &a, c.arena));
    check_ok(qz_qtensor_compare(
        &(qz_qtensor){.scheme = q.scheme, .rows = 40, .cols = 128, .codes = q.codes, .scales = q.scales},
        &(qz_qtensor){.scheme = q.scheme, .rows = 40, .cols = 128, .codes = q.codes, .scales = plain.scales}));
    cr_assert(memcmp(q.scale_codes, plain.scale_codes, 80) == 0 && q.scale_offset == plain.scale_offset);
    cr_assert(loss_of(&c, &q, NULL) < 0.6 * loss_of(&c, &plain, NULL));
    a.scheme.flat = 48;
    check_fails(QZ_UNSUPPORTED, "rows of 128 weights are not whole runs of 48", gptq()->solve(&q, &info, &a, c.arena));
    quant_case_free(&c);
}

/* ---- damping and failure ---- */

/* G = I - (1 + excess) v v^T with a unit v: the smallest eigenvalue is -excess. */
static void indefinite(quant_case *c, double excess)
{
    const int64_t k = c->stats.k;
    for (int64_t i = 0; i < k * k; i++) c->stats.gram[i] = (float)((i % (k + 1) == 0) - (1 + excess) / (double)k);
}

Test(gptq, takes_the_next_rung_when_a_pivot_is_not_positive)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    static const double excess[] = {0.005, 0.02, 0.09, 0.25, 0.9}, rung[] = {0.01, 0.03, 0.1, 0.3, 1};
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", STATIC);
    for (int i = 0; i < 5; i++) {
        qz_solve_info info;
        qz_qtensor q;
        indefinite(&c, excess[i]);
        check_ok(gptq()->solve(&q, &info, &a, c.arena));
        cr_assert(info.damping == rung[i], "excess %g: damping %g", excess[i], info.damping);
    }
    quant_case_free(&c);
}

Test(gptq, falls_back_only_where_it_may)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", STATIC);
    qz_solve_info info;
    qz_qtensor q, plain = quant_solved(&c, a.scheme, "minmax");
    indefinite(&c, 5);
    check_fails(QZ_NUMERIC, "0.01, 0.03, 0.1, 0.3, 1", gptq()->solve(&q, &info, &a, c.arena));
    check_fails(QZ_NUMERIC, "\"on_failure\": \"rtn\"", gptq()->solve(&q, &info, &a, c.arena));
    a.may_fall_back = true;
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    cr_assert(info.fell_back);
    check_ok(qz_qtensor_compare(&q, &plain));
    quant_case_free(&c);
}

Test(gptq, statistics_that_are_not_finite_stop_it)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", STATIC);
    qz_solve_info info;
    qz_qtensor q;
    a.may_fall_back = true;
    c.stats.gram[7 * 70 + 5] = NAN;
    check_fails(QZ_NUMERIC, "channel 7", gptq()->solve(&q, &info, &a, c.arena));
    quant_case_free(&c);
}

Test(gptq, no_data_at_all_is_rounding)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", STATIC);
    qz_solve_info info;
    qz_qtensor q, plain = quant_solved(&c, a.scheme, "minmax");
    memset(c.stats.gram, 0, 70 * 70 * sizeof(float));
    check_ok(gptq()->solve(&q, &info, &a, c.arena));
    cr_assert(info.dead_channels == 70);
    check_ok(qz_qtensor_compare(&q, &plain));
    quant_case_free(&c);
}

/* ---- rows that keep rounding's codes ---- */

/* One row of two strongly coupled columns, 2 bits: gptq's first code leaves the second beyond its grid. */
Test(gptq, rows_that_rounding_serves_better_are_kept_and_counted)
{
    enum { N = 600, K = 24 };
    quant_case c = quant_case_new(N, K, 60, 21);
    for (int64_t order = 0; order < DESC; order++) {
        qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT2, 1, 8, false), "minmax", (int)order);
        qz_qtensor q, plain = quant_solved(&c, a.scheme, "minmax");
        qz_solve_info info;
        int64_t same = 0;
        check_ok(gptq()->solve(&q, &info, &a, c.arena));
        const float *ours = quant_values(&c, &q), *theirs = quant_values(&c, &plain);
        for (int64_t n = 0; n < N; n++) {
            const double x = quant_row_loss(&c, ours, NULL, n, 0, K), y = quant_row_loss(&c, theirs, NULL, n, 0, K);
            cr_assert(x <= y * (1 + TOL_LOSS_F32), "order %ld row %ld: %g > %g", (long)order, (long)n, x, y);
            same += memcmp(ours + n * K, theirs + n * K, K * sizeof *ours) == 0;
        }
        cr_assert(info.rows_kept > 0 && info.rows_kept <= same && same < N, "%ld kept, %ld same", (long)info.rows_kept,
                  (long)same);
    }
    quant_case_free(&c);
}

/* ---- the factor ---- */

static double product_at(const qz_gptq_factor *f, int64_t a, int64_t b)
{
    const int64_t size = f->stats->k;
    double sum = 0;
    for (int64_t k = a > b ? a : b; k < size; k++)
        sum += f->weight[k] * (double)f->l[k * size + a] * (double)f->l[k * size + b];
    return sum;
}

/* One band of the triangle, several, and a short last one: H = sum_k R_kk^2 l_k^T l_k, and nothing above l's diagonal.
 */
Test(gptq, the_factor_gives_back_the_matrix)
{
    static const int64_t sizes[] = {70, 900, 1601};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t size = sizes[i], step = size / 23;
        quant_case c = quant_case_new(2, size, 300, 4);
        const qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 0, true), "minmax", STATIC);
        const qz_gptq_factor *f;
        check_ok(qz_gptq_factor_get(&f, &a, QZ_GPTQ_STATIC, 0, c.arena));
        for (int64_t row = size - 1; row >= 0; row -= step)
            for (int64_t col = row; col >= 0; col -= step) {
                const float *g = c.stats.gram + f->visit[row] * size;
                const double diagonal = g[f->visit[row]], other = c.stats.gram[f->visit[col] * (size + 1)];
                const double h = g[f->visit[col]] + (row == col ? f->added : 0);
                if (!(diagonal > 0)) continue; /* the dead channel */
                cr_assert(fabs(product_at(f, row, col) - h) < TOL_KERNEL_SUM * sqrt(diagonal * other),
                          "%ld: (%ld, %ld)", (long)size, (long)row, (long)col);
            }
        for (int64_t row = 0; row < size; row++) {
            cr_assert(f->l[row * (size + 1)] == 1);
            for (int64_t col = row + 1; col < size; col++) cr_assert(f->l[row * size + col] == 0);
        }
        quant_case_free(&c);
    }
}

/* ---- memory ---- */

/* Beside the factor and the threads' workspace: codes, scales and what is known of columns, in blocks of 256 KiB. */
Test(gptq, takes_no_more_memory_than_it_says)
{
    enum { N = 600, K = 1601, BLOCK = 256 << 10 };
    quant_case c = quant_case_new(N, K, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 0, true), "minmax", STATIC);
    qz_solve_shared shared = {0};
    qz_arena *arena;
    qz_qtensor q;
    qz_threads_set(3);
    check_ok(qz_arena_new(&shared.arena, "shared"));
    check_ok(qz_arena_new(&arena, "small"));
    a.shared = &shared;
    check_ok(gptq()->solve(&q, &(qz_solve_info){0}, &a, arena));
    const uint64_t factor = gptq()->factor_bytes(K), work = 3 * gptq()->work_bytes(&a.scheme, K);
    cr_assert(qz_arena_peak(shared.arena) >= factor * 9 / 10 && qz_arena_peak(shared.arena) <= factor + 2 * BLOCK);
    cr_assert(qz_arena_peak(arena) <= work + N * K + 4 * BLOCK, "%zu, but said %zu", qz_arena_peak(arena),
              (size_t)work);
    qz_arena_free(arena);
    qz_arena_free(shared.arena);
    quant_case_free(&c);
}

Test(gptq, a_shared_arena_may_be_the_call_s)
{
    quant_case c = quant_case_new(9, 70, 300, 4);
    qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, true), "minmax", GAR);
    qz_solve_shared shared = {.arena = c.arena};
    qz_solve_info info;
    qz_qtensor one, two, three;
    check_ok(gptq()->solve(&one, &info, &a, c.arena));
    a.shared = &shared;
    check_ok(gptq()->solve(&two, &info, &a, c.arena));
    check_ok(gptq()->solve(&three, &info, &a, c.arena));
    check_ok(qz_qtensor_compare(&one, &two));
    check_ok(qz_qtensor_compare(&one, &three));
    quant_case_free(&c);
}

Test(gptq, says_so_when_memory_is_short)
{
    for (int order = 0; order < 4; order++) {
        bool done = false;
        for (long n = 1; !done; n++) {
            quant_case c = quant_case_new(70, 300, 40, 4);
            qz_solve_args a = args_of(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, false), "mse", order);
            qz_solve_info info;
            qz_qtensor q;
            qz_arena *arena;
            check_ok(qz_arena_new(&arena, "small"));
            qz_alloc_fail_at(n);
            const qz_status status = gptq()->solve(&q, &info, &a, arena);
            qz_alloc_fail_at(0);
            cr_assert(status == QZ_OK || status == QZ_MEMORY);
            done = status == QZ_OK;
            qz_arena_free(arena);
            quant_case_free(&c);
        }
    }
}
