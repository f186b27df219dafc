/* Statistics against sums in double, the reservoir, folds, and what is refused. */
#include "quant/stats.h"

#include <math.h>

#include "testing/quant_case.h"
#include "testing/tolerances.h"

Test(stats, are_the_sums)
{
    quant_case c = quant_case_new(1, 70, 50, 1);
    const float *x = qz_f32(&c.x);
    for (int64_t i = 0; i < 70; i++) {
        double abssum = 0, absmax = 0;
        for (int64_t t = 0; t < 50; t++) abssum += fabs(x[t * 70 + i]), absmax = fmax(absmax, fabs(x[t * 70 + i]));
        cr_assert(c.stats.absmax[i] == absmax && fabs(c.stats.abssum[i] - abssum) <= TOL_SAME_FP64 * abssum);
        for (int64_t j = 0; j < 70; j++) {
            double g = 0, size = 0;
            for (int64_t t = 0; t < 50; t++) g += (double)x[t * 70 + i] * x[t * 70 + j];
            for (int64_t t = 0; t < 50; t++) size += fabs((double)x[t * 70 + i] * x[t * 70 + j]);
            cr_assert(fabs(c.stats.gram[i * 70 + j] - g) <= TOL_GRAM * size, "gram (%ld, %ld)", (long)i, (long)j);
            cr_assert(c.stats.gram[i * 70 + j] == c.stats.gram[j * 70 + i], "mirrored");
        }
    }
    cr_assert(c.stats.tokens == 50);
    quant_case_free(&c);
}

Test(stats, rescaled_are_those_of_rescaled_data)
{
    enum { K = 40 };
    quant_case c = quant_case_new(1, K, 60, 2);
    float scale[K];
    qz_stats of_data;
    for (int j = 0; j < K; j++) scale[j] = (float)exp(qz_rng_normal(&c.rng));
    for (int64_t i = 0; i < c.x.shape[0] * K; i++) qz_f32(&c.x)[i] /= scale[i % K];
    check_ok(qz_stats_new(&of_data, K, (qz_stats_wants){.reservoir = 16}, 2, 9, c.arena));
    check_ok(qz_stats_add(&of_data, c.backend, &c.x));
    check_ok(qz_stats_finish(&of_data));
    qz_stats_rescale(&c.stats, scale);
    for (int i = 0; i < K; i++) {
        cr_assert(fabs((double)c.stats.absmax[i] - of_data.absmax[i]) <= TOL_ONE_PRODUCT * of_data.absmax[i]);
        cr_assert(fabs(c.stats.abssum[i] - of_data.abssum[i]) <= TOL_ONE_PRODUCT * of_data.abssum[i]);
        for (int j = 0; j < K; j++) {
            const double size = sqrt((double)of_data.gram[i * K + i] * of_data.gram[j * K + j]);
            cr_assert(fabs((double)c.stats.gram[i * K + j] - of_data.gram[i * K + j]) <= TOL_GRAM * size);
        }
    }
    for (int i = 0; i < 16 * K; i++) cr_assert(c.stats.reservoir[i] == of_data.reservoir[i]);
    quant_case_free(&c);
}

/* Token t is the row (t, t): how often each is kept by 400 seeds. */
Test(stats, reservoir_is_uniform)
{
    enum { T = 60, KEPT = 12, SEEDS = 400 };
    int seen[T] = {0};
    float rows[T][2];
    for (int t = 0; t < T; t++) rows[t][0] = rows[t][1] = (float)t;
    const qz_tensor x = qz_tensor_2d(rows, QZ_F32, T, 2);
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        qz_stats s;
        qz_arena_reset(arena);
        check_ok(qz_stats_new(&s, 2, (qz_stats_wants){.reservoir = KEPT}, seed, 0, arena));
        check_ok(qz_stats_add(&s, qz_backend_best(), &x));
        cr_assert(s.reservoir_rows == KEPT);
        for (int r = 0; r < KEPT; r++) seen[(int)s.reservoir[2 * r]]++;
        for (int r = 0; r < KEPT; r++)
            for (int q = 0; q < r; q++) cr_assert(s.reservoir[2 * r] != s.reservoir[2 * q], "no row twice");
    }
    /* 80 expected, standard deviation 8: five of them */
    for (int t = 0; t < T; t++) cr_assert(abs(seen[t] - SEEDS * KEPT / T) <= 40, "token %d: %d", t, seen[t]);
    qz_arena_free(arena);
}

Test(stats, a_short_stream_fills_part_of_the_reservoir)
{
    quant_case c = quant_case_new(1, 8, 5, 3);
    cr_assert(c.stats.reservoir_rows == 5);
    cr_assert_arr_eq(c.stats.reservoir, c.x.data, 5 * 8 * sizeof(float));
    quant_case_free(&c);
}

Test(stats, what_is_not_finite_is_named)
{
    const float bad[] = {NAN, INFINITY, 1e25f};
    for (int i = 0; i < 3; i++) {
        quant_case c = quant_case_new(1, 8, 5, 4);
        qz_f32(&c.x)[2 * 8 + 6] = bad[i];
        check_ok(qz_stats_add(&c.stats, c.backend, &c.x));
        check_fails(QZ_NUMERIC, "channel 6", qz_stats_finish(&c.stats));
        quant_case_free(&c);
    }
}

Test(stats, bytes_are_those_taken)
{
    qz_arena *arena;
    qz_stats s;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_stats_new(&s, 256, (qz_stats_wants){.reservoir = 32}, 0, 0, arena));
    cr_assert(qz_arena_used(arena) == qz_stats_bytes(256, (qz_stats_wants){.reservoir = 32}));
    qz_arena_free(arena);
}

Test(stats, memory_running_out_is_told)
{
    int failed = 0;
    for (long n = 1; n <= 6; n++) {
        qz_arena *arena;
        qz_stats s;
        check_ok(qz_arena_new(&arena, "narrow"));
        qz_alloc_fail_at(n);
        const qz_status status = qz_stats_new(&s, 2048, (qz_stats_wants){.reservoir = 2048}, 0, 0, arena);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || (status == QZ_MEMORY && strstr(qz_error_message(), "narrow")));
        failed += status == QZ_MEMORY;
        qz_arena_free(arena);
    }
    cr_assert(failed >= 2 && failed < 6, "%d", failed);
}

/* ---- histogram and merging ---- */

enum { PART_K = 24, PART_T = 30, PART_ROWS = 12 };

static qz_stats part(quant_case *c, int64_t first, int64_t rows, uint64_t stream)
{
    qz_stats s;
    const qz_tensor x = qz_tensor_rows(&c->x, first, rows);
    check_ok(
        qz_stats_new(&s, PART_K, (qz_stats_wants){.reservoir = PART_ROWS, .histogram = true}, 3, stream, c->arena));
    check_ok(qz_stats_add(&s, c->backend, &x));
    return s;
}

static void same_record(const qz_stats *a, const qz_stats *b)
{
    cr_assert(a->tokens == b->tokens && a->reservoir_rows == b->reservoir_rows);
    cr_assert_arr_eq(a->histogram, b->histogram, QZ_HISTOGRAM_BINS * sizeof *a->histogram);
    cr_assert_arr_eq(a->absmax, b->absmax, PART_K * sizeof *a->absmax);
    for (int i = 0; i < PART_K; i++) {
        cr_assert(fabs(a->abssum[i] - b->abssum[i]) <= TOL_SAME_FP64 * b->abssum[i]);
        for (int j = 0; j <= i; j++) {
            const double size = sqrt((double)b->gram[i * PART_K + i] * b->gram[j * PART_K + j]);
            cr_assert(fabs((double)a->gram[i * PART_K + j] - b->gram[i * PART_K + j]) <= TOL_GRAM * size);
        }
    }
}

Test(stats, merging_is_associative)
{
    quant_case c = quant_case_new(1, PART_K, 3 * PART_T, 8);
    const qz_stats whole = part(&c, 0, 3 * PART_T, 0);
    qz_stats left[3], right[3];
    for (int i = 0; i < 3; i++) left[i] = part(&c, i * PART_T, PART_T, 1), right[i] = part(&c, i * PART_T, PART_T, 1);
    check_ok(qz_stats_merge(&left[0], &left[1], c.arena)); /* (a + b) + c */
    check_ok(qz_stats_merge(&left[0], &left[2], c.arena));
    check_ok(qz_stats_merge(&right[1], &right[2], c.arena)); /* a + (b + c) */
    check_ok(qz_stats_merge(&right[0], &right[1], c.arena));
    same_record(&left[0], &right[0]);
    same_record(&left[0], &whole);
    uint64_t total = 0;
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) total += whole.histogram[i];
    cr_assert(total == 3 * PART_T * PART_K);
    quant_case_free(&c);
}

/* Token t is the row (t): how often each is kept when a long and a short stream are merged. */
Test(stats, merged_reservoir_is_uniform)
{
    enum { LONG = 45, SHORT = 15, T = LONG + SHORT, KEPT = 12, SEEDS = 400 };
    int seen[T] = {0};
    float rows[T];
    for (int t = 0; t < T; t++) rows[t] = (float)t;
    const qz_tensor x = qz_tensor_2d(rows, QZ_F32, T, 1), first = qz_tensor_rows(&x, 0, LONG),
                    last = qz_tensor_rows(&x, LONG, SHORT);
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        qz_stats a, b;
        qz_arena_reset(arena);
        check_ok(qz_stats_new(&a, 1, (qz_stats_wants){.reservoir = KEPT}, seed, 0, arena));
        check_ok(qz_stats_new(&b, 1, (qz_stats_wants){.reservoir = KEPT}, seed, 1, arena));
        check_ok(qz_stats_add(&a, qz_backend_best(), &first));
        check_ok(qz_stats_add(&b, qz_backend_best(), &last));
        check_ok(qz_stats_merge(&a, &b, arena));
        cr_assert(a.reservoir_rows == KEPT);
        for (int r = 0; r < KEPT; r++) {
            seen[(int)a.reservoir[r]]++;
            for (int q = 0; q < r; q++) cr_assert(a.reservoir[r] != a.reservoir[q], "no row twice");
        }
    }
    /* 80 expected, standard deviation 8: five of them */
    for (int t = 0; t < T; t++) cr_assert(abs(seen[t] - SEEDS * KEPT / T) <= 40, "token %d: %d", t, seen[t]);
    qz_arena_free(arena);
}

Test(stats, what_does_not_merge)
{
    quant_case c = quant_case_new(1, PART_K, PART_T, 9);
    qz_stats a = part(&c, 0, 5, 0), b = part(&c, 5, 5, 0), plain;
    check_ok(qz_stats_new(&plain, PART_K, (qz_stats_wants){.reservoir = PART_ROWS}, 1, 1, c.arena));
    check_fails(QZ_ARG, "histogram", qz_stats_merge(&a, &plain, c.arena));
    check_ok(qz_stats_new(&plain, PART_K, (qz_stats_wants){.reservoir = 3, .histogram = true}, 1, 1, c.arena));
    check_fails(QZ_ARG, "(12, 3)", qz_stats_merge(&a, &plain, c.arena));
    check_ok(qz_stats_new(&plain, 7, (qz_stats_wants){0}, 1, 1, c.arena));
    check_fails(QZ_SHAPE, "24 and of 7 channels", qz_stats_merge(&a, &plain, c.arena));
    b.rescaled = true;
    check_fails(QZ_ARG, "merge before it", qz_stats_merge(&a, &b, c.arena));
    quant_case_free(&c);
}

Test(stats, without_a_gram_matrix)
{
    quant_case c = quant_case_new(1, PART_K, PART_T, 10);
    const qz_stats_wants wants = {.reservoir = PART_ROWS, .histogram = true, .no_gram = true};
    qz_stats s[3];
    float scale[PART_K];
    for (int i = 0; i < PART_K; i++) scale[i] = 2;
    for (int i = 0; i < 2; i++) {
        check_ok(qz_stats_new(&s[i], PART_K, wants, 3, 1, c.arena));
        check_ok(qz_stats_add(&s[i], c.backend, &c.x));
    }
    cr_assert(!s[0].gram && qz_stats_bytes(PART_K, wants) < QZ_HISTOGRAM_BINS * 8 + PART_ROWS * PART_K * 4 + 1000);
    check_fails(QZ_ARG, "Gram matrix", qz_stats_merge(&s[0], &c.stats, c.arena));
    check_ok(qz_stats_merge(&s[0], &s[1], c.arena));
    check_ok(qz_stats_finish(&s[0]));
    check_ok(qz_stats_copy(&s[2], &s[0], c.arena));
    qz_stats_rescale(&s[2], scale);
    cr_assert(!s[2].gram && s[0].tokens == 2 * PART_T);
    for (int i = 0; i < PART_K; i++) cr_assert(s[2].absmax[i] == c.stats.absmax[i] / 2);
    s[1].abssum[5] = NAN;
    check_fails(QZ_NUMERIC, "channel 5", qz_stats_finish(&s[1]));
    quant_case_free(&c);
}
