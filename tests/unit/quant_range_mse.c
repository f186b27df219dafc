/* The range mse: scales in closed form by hand, a fold, a diagonal in place of the Gram matrix, long rows and chunks.
 */
#include "quant/mse.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

static qz_qtensor one_piece(quant_case *c, qz_format format, bool symmetric, float scale, int zero)
{
    qz_scheme s = quant_scheme(format, 1, 0, symmetric);
    qz_qtensor q;
    s.scale_type = QZ_F32;
    check_ok(qz_qtensor_alloc(&q, &s, 1, 4, c->arena));
    q.scales[0] = scale;
    if (q.zeros) q.zeros[0] = (uint8_t)zero;
    return q;
}

Test(range_mse, refit_of_a_scale_is_least_squares)
{
    quant_case c = quant_case_new(1, 32, 8, 1);
    qz_qtensor q = one_piece(&c, QZ_FORMAT_INT4, true, 1, 0);
    qz_mse_refit(&q, 0, &(qz_mse_sums){.tt = 8, .tw = 6});
    cr_assert(q.scales[0] == 0.75f);
    qz_mse_refit(&q, 0, &(qz_mse_sums){.tt = 8, .tw = -6});
    cr_assert(q.scales[0] == 0.75f, "a scale is positive");
    qz_mse_refit(&q, 0, &(qz_mse_sums){.tt = 0, .tw = 0});
    cr_assert(q.scales[0] == 0.75f, "nothing to go by");
    q.scheme.scale_type = QZ_BF16;
    qz_mse_refit(&q, 0, &(qz_mse_sums){.tt = 3, .tw = 1});
    cr_assert(q.scales[0] == qz_scale_store(1.0f / 3, QZ_BF16), "as it is stored");
    quant_case_free(&c);
}

/* w = 0.5 (c - 5) with the codes 4 .. 7, but the grid says scale 1, zero 6. */
Test(range_mse, refit_moves_the_zero)
{
    quant_case c = quant_case_new(1, 32, 8, 1);
    qz_qtensor q = one_piece(&c, QZ_FORMAT_INT4, false, 1, 6);
    qz_mse_sums s = {0};
    for (int code = 4; code < 8; code++) {
        const double t = code - 6, w = 0.5 * (code - 5);
        s.tt += t * t, s.tw += t * w, s.to += t, s.oo += 1, s.ow += w;
    }
    qz_mse_refit(&q, 0, &s);
    cr_assert(q.zeros[0] == 5 && q.scales[0] == 0.5f, "%d %g", q.zeros[0], q.scales[0]);
    q = one_piece(&c, QZ_FORMAT_INT4, false, 1, 6);
    q.scheme.least_zero = 6;
    qz_mse_refit(&q, 0, &s);
    cr_assert(q.zeros[0] == 6 && q.scales[0] > 0.3f && q.scales[0] < 0.6f, "%d %g", q.zeros[0], q.scales[0]);
    quant_case_free(&c);
}

static qz_qtensor chosen(quant_case *c, const qz_stats *stats, qz_scheme scheme, const char *range)
{
    const qz_range *r = quant_range(range);
    const qz_options o = qz_options_default(r->plugin.options);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &scheme, c->w.shape[0], c->w.shape[1], c->arena));
    check_ok(r->choose(&q, c->backend, &c->w, stats, &o));
    qz_round_to_nearest(&q, &c->w);
    return q;
}

static double loss_of(quant_case *c, const qz_qtensor *q)
{
    double loss, energy;
    check_ok(qz_output_loss(&loss, &energy, c->backend, &c->w, q, &c->stats, c->arena));
    return loss;
}

/* A diagonal Gram matrix and the same as a diagonal lose the same, for clip and mse, within the rounding of the two
 * paths; gram itself is not looked at then. */
Test(range_mse, a_diagonal_takes_the_place_of_gram)
{
    static const char *const ranges[] = {"clip", "mse"};
    for (int i = 0; i < 4; i++) {
        quant_case c = quant_case_new(24, 96, 40, 3);
        const int64_t k = c.stats.k;
        float diagonal[96];
        qz_scheme s = quant_scheme(i < 2 ? QZ_FORMAT_INT3 : QZ_FORMAT_INT4, 1, 32, i % 2);
        for (int64_t j = 0; j < k * k; j++)
            if (j % (k + 1)) c.stats.gram[j] = 0;
        for (int64_t j = 0; j < k; j++) diagonal[j] = c.stats.gram[j * (k + 1)];
        const qz_stats own = {.k = k, .diagonal = diagonal};
        for (int r = 0; r < 2; r++) {
            const qz_qtensor a = chosen(&c, &c.stats, s, ranges[r]), b = chosen(&c, &own, s, ranges[r]);
            const double x = loss_of(&c, &a), y = loss_of(&c, &b);
            cr_assert(fabs(x - y) <= TOL_MSE_PATHS * x, "%s: %g by gram, %g by the diagonal", ranges[r], x, y);
        }
        quant_case_free(&c);
    }
}

/* Statistics of x / divisor are those of the divided inputs. */
Test(range_mse, honours_a_fold)
{
    for (int i = 0; i < 4; i++) {
        quant_case c = quant_case_new(24, 96, 40, 3), folded = quant_case_new(24, 96, 40, 3);
        float divisor[96];
        qz_scheme s = quant_scheme(QZ_FORMAT_INT4, i < 2 ? 1 : 8, 32, i % 2);
        for (int j = 0; j < 96; j++) divisor[j] = j % 3 ? 0.5f : 4; /* powers of two: exact */
        c.stats.divisor = divisor;
        qz_stats_rescale(&folded.stats, divisor);
        const qz_qtensor a = chosen(&c, &c.stats, s, "mse"), b = chosen(&folded, &folded.stats, s, "mse");
        const double x = loss_of(&folded, &a), y = loss_of(&folded, &b);
        cr_assert(fabs(x - y) <= TOL_MSE_PATHS * x, "%g and %g", x, y);
        quant_case_free(&c);
        quant_case_free(&folded);
    }
}

/* Beyond WIDE columns the shrinks are compared by the diagonal first; the loss still falls. */
Test(range_mse, rows_longer_than_a_block)
{
    quant_case c = quant_case_new(40, 700, 100, 8);
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        const qz_scheme s = quant_scheme(QZ_FORMAT_INT3, 1, 0, symmetric);
        const qz_qtensor a = chosen(&c, &c.stats, s, "mse"), b = chosen(&c, &c.stats, s, "minmax");
        cr_assert(loss_of(&c, &a) < 0.8 * loss_of(&c, &b), "%g of %g", loss_of(&c, &a), loss_of(&c, &b));
    }
    quant_case_free(&c);
}

Test(range_mse, runs_across_rows)
{
    quant_case c = quant_case_new(9, 70, 100, 8);
    qz_scheme s = quant_scheme(QZ_FORMAT_NF4, 0, 0, true);
    s.flat = 64;
    const qz_qtensor a = chosen(&c, &c.stats, s, "mse"), b = chosen(&c, &c.stats, s, "minmax");
    cr_assert(loss_of(&c, &a) < loss_of(&c, &b), "%g of %g", loss_of(&c, &a), loss_of(&c, &b));
    quant_case_free(&c);
}

Test(range_mse, no_data_at_all_is_minmax)
{
    quant_case c = quant_case_new(9, 70, 100, 8);
    memset(c.stats.gram, 0, 70 * 70 * sizeof(float));
    for (int i = 0; i < 4; i++) {
        const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, i < 2 ? 1 : 0, i < 2 ? 32 : 0, i % 2);
        const qz_qtensor a = chosen(&c, &c.stats, s, "mse"), b = chosen(&c, &c.stats, s, "minmax");
        check_ok(qz_qtensor_compare(&a, &b));
    }
    quant_case_free(&c);
}

Test(range_mse, narrow_codes_and_scales_that_can_be_stored)
{
    quant_case c = quant_case_new(24, 96, 40, 3);
    qz_scheme s = quant_scheme(QZ_FORMAT_INT8, 1, 0, true);
    s.narrow = true;
    s.scale_type = QZ_F32;
    const qz_qtensor a = chosen(&c, &c.stats, s, "mse"), b = chosen(&c, &c.stats, s, "minmax");
    for (int64_t i = 0; i < 24 * 96; i++) cr_assert(a.codes[i] >= 1);
    for (int64_t i = 0; i < 24; i++)
        cr_assert(a.scales[i] == b.scales[i] || qz_grid_narrow_scale(a.scales[i], 8) == a.scales[i]);
    cr_assert(loss_of(&c, &a) <= loss_of(&c, &b));
    quant_case_free(&c);
}

Test(range_mse, says_so_when_memory_is_short)
{
    for (int spans = 0; spans < 2; spans++) {
        bool done = false;
        for (long n = 1; !done; n++) {
            quant_case c = quant_case_new(24, 96, 40, 3);
            const qz_range *r = quant_range("mse");
            const qz_options o = qz_options_default(r->plugin.options);
            const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, spans ? 8 : 1, 32, true);
            qz_qtensor q;
            check_ok(qz_qtensor_alloc(&q, &s, 24, 96, c.arena));
            qz_alloc_fail_at(n);
            const qz_status status = r->choose(&q, c.backend, &c.w, &c.stats, &o);
            qz_alloc_fail_at(0);
            cr_assert(status == QZ_OK || status == QZ_MEMORY);
            done = status == QZ_OK;
            quant_case_free(&c);
        }
    }
}
