/* Ranges: minmax for every cut, clip against a search in double, its fold, its chunks, and what it refuses. */
#include "numeric/codebook.h"
#include "numeric/intgrid.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

static void check_minmax(qz_scheme s)
{
    quant_case c = quant_case_new(19, 70, 8, 11);
    const qz_qtensor q = quant_solved(&c, s, "minmax");
    const int64_t cols = qz_scheme_scale_cols(&s, 70), h = s.piece_rows ? s.piece_rows : 19,
                  w = s.piece_cols ? s.piece_cols : 70;
    for (int64_t p = 0; p < qz_scheme_scale_rows(&s, 19) * cols; p++) {
        float lo = 0, hi = 0;
        for (int64_t i = 0; i < 19 * 70; i++) {
            const float x = qz_f32(&c.w)[i];
            if (i / 70 / h != p / cols || i % 70 / w != p % cols) continue;
            lo = fminf(lo, x), hi = fmaxf(hi, x);
        }
        const qz_grid g = qz_grid_of(lo, hi, 4, s.symmetric, s.scale_type, s.zero_rule);
        cr_assert(q.scales[p] == g.scale && (!q.zeros || q.zeros[p] == g.zero), "piece %ld", (long)p);
    }
    quant_case_free(&c);
}

Test(ranges, minmax_of_tensor_channel_group_and_block)
{
    const int64_t cuts[][2] = {{0, 0}, {1, 0}, {1, 32}, {8, 32}, {1, 128}, {0, 32}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        check_minmax(quant_scheme(QZ_FORMAT_INT4, cuts[i][0], cuts[i][1], false));
        check_minmax(quant_scheme(QZ_FORMAT_INT4, cuts[i][0], cuts[i][1], true));
    }
}

Test(ranges, minmax_of_fp8_uses_the_largest_magnitude)
{
    quant_case c = quant_case_new(3, 8, 8, 11);
    for (int i = 0; i < 24; i++) qz_f32(&c.w)[i] = i == 13 ? -896 : 0.5f;
    const qz_qtensor q = quant_solved(&c, quant_scheme(QZ_FORMAT_FP8_E4M3, 0, 0, false), "minmax");
    cr_assert(q.scales[0] == 2 && q.codes[13] == 0xFE);
    quant_case_free(&c);
}

/* Runs of 32 of the 19 x 70 matrix read row by row; the last holds 18. */
Test(ranges, minmax_of_flat_pieces)
{
    quant_case c = quant_case_new(19, 70, 8, 11);
    qz_scheme s = quant_scheme(QZ_FORMAT_NF4, 0, 0, true);
    s.flat = 32;
    s.scale_type = QZ_F32;
    const qz_qtensor q = quant_solved(&c, s, "minmax");
    float most[42] = {0};
    for (int i = 0; i < 19 * 70; i++) most[i / 32] = fmaxf(most[i / 32], fabsf(qz_f32(&c.w)[i]));
    for (int p = 0; p < 42; p++) cr_assert(q.scales[p] == most[p], "%d", p);
    const float *value = quant_values(&c, &q);
    for (int i = 0; i < 19 * 70; i++)
        cr_assert(fabsf(value[i] - qz_f32(&c.w)[i]) <= 0.152f * most[i / 32], "%d: half of NF4's widest step", i);
    quant_case_free(&c);
}

/* As bitsandbytes does it: codes for the scales as they were, then the scales are quantized. */
Test(ranges, codes_do_not_see_that_scales_are_quantized)
{
    quant_case c = quant_case_new(19, 128, 8, 11);
    qz_scheme s = quant_scheme(QZ_FORMAT_FP4, 1, 64, true);
    s.scale_type = QZ_F32;
    const qz_qtensor once = quant_solved(&c, s, "minmax");
    s.double_quant = true;
    const qz_qtensor twice = quant_solved(&c, s, "minmax");
    cr_assert_arr_eq(once.codes, twice.codes, 19 * 128);
    for (int p = 0; p < 38; p++)
        cr_assert(twice.scales[p] == qz_double_decode(twice.scale_codes[p], *twice.second_scales, twice.scale_offset));
    cr_assert(qz_qtensor_compare(&once, &twice) == QZ_NUMERIC, "scales differ");
    quant_case_free(&c);
}

Test(ranges, narrow_codes_are_alike_on_both_sides)
{
    quant_case c = quant_case_new(5, 70, 8, 11);
    qz_scheme s = quant_scheme(QZ_FORMAT_INT8, 1, 0, true);
    s.scale_type = QZ_F32;
    s.narrow = true;
    for (int n = 0; n < 5; n++) qz_f32(&c.w)[n * 70 + n] = n % 2 ? 1 : -1;
    const qz_qtensor q = quant_solved(&c, s, "minmax"), shrunk = quant_solved(&c, s, "clip");
    for (int n = 0; n < 5; n++)
        cr_assert(q.scales[n] == 1 / 127.0f && q.codes[n * 70 + n] == (n % 2 ? 255 : 1), "%d", n);
    for (int i = 0; i < 5 * 70; i++) cr_assert(q.codes[i] >= 1 && shrunk.codes[i] >= 1, "%d", i);
    quant_case_free(&c);
}

/* The loss of a group's output when its range is shrunk by `step`, in double from the data. */
static double shrunk_loss(const quant_case *c, qz_scheme s, const float *divisor, int64_t n, int64_t left,
                          int64_t right, int step)
{
    const int64_t k = c->w.shape[1];
    const float *w = qz_f32(&c->w) + n * k;
    float lo, hi, value[256];
    qz_range_of(&lo, &hi, w + left, right - left);
    const float most = fmaxf(-lo, hi) * (1.0f - (float)step / 20.0f);
    if (qz_format_of(s.format)->kind == QZ_KIND_CODEBOOK) {
        const float scale = qz_codebook_scale(most, s.scale_type);
        for (int64_t j = left; j < right; j++)
            value[j] = qz_codebook_decode(qz_codebook_encode(w[j], scale, s.format), scale, s.format);
        return quant_row_loss(c, value - n * k, divisor, n, left, right);
    }
    const qz_grid g = qz_grid_of(fmaxf(lo, -most), fminf(hi, most), qz_format_of(s.format)->bits, s.symmetric,
                                 s.scale_type, s.zero_rule);
    for (int64_t j = left; j < right; j++) value[j] = qz_grid_decode(qz_grid_encode(w[j], g, s.zero_rule), g);
    return quant_row_loss(c, value - n * k, divisor, n, left, right);
}

static void check_clip(qz_scheme s, const float *divisor)
{
    enum { N = 6, K = 70 };
    quant_case c = quant_case_new(N, K, 50, 12);
    c.stats.divisor = divisor;
    const qz_qtensor q = quant_solved(&c, s, "clip");
    const float *value = quant_values(&c, &q);
    const int64_t width = s.piece_cols ? s.piece_cols : K;
    bool clipped = false;
    for (int64_t n = 0; n < N; n++)
        for (int64_t left = 0; left < K; left += width) {
            const int64_t right = left + width < K ? left + width : K;
            const double ours = quant_row_loss(&c, value, divisor, n, left, right);
            double best = INFINITY;
            for (int step = 0; step < 10; step++) best = fmin(best, shrunk_loss(&c, s, divisor, n, left, right, step));
            cr_assert(ours <= best * (1 + TOL_LOSS_F32), "row %ld from %ld: %.9g, best %.9g", (long)n, (long)left, ours,
                      best);
            clipped |= ours < shrunk_loss(&c, s, divisor, n, left, right, 0) * (1 - TOL_LOSS_F32);
        }
    cr_assert(clipped, "the case is one where clipping helps");
    quant_case_free(&c);
}

Test(ranges, clip_takes_the_least_error_of_each_group)
{
    check_clip(quant_scheme(QZ_FORMAT_INT4, 1, 32, false), NULL); /* the last group is 6 wide */
    check_clip(quant_scheme(QZ_FORMAT_INT3, 1, 0, true), NULL);
    check_clip(quant_scheme(QZ_FORMAT_INT4, 1, 128, false), NULL);
    check_clip(quant_scheme(QZ_FORMAT_NF4, 1, 32, true), NULL);
}

Test(ranges, clip_reads_the_statistics_through_their_divisor)
{
    float divisor[70];
    for (int j = 0; j < 70; j++) divisor[j] = j % 17 == 0 ? 6.0f : 0.3f + 0.05f * (float)(j % 7);
    check_clip(quant_scheme(QZ_FORMAT_INT4, 1, 32, false), divisor);
}

Test(ranges, clip_of_many_rows_and_wide_channels_is_cut_in_chunks)
{
    quant_case c = quant_case_new(1100, 48, 20, 13);
    const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, 1, 32, false);
    const qz_qtensor all = quant_solved(&c, s, "clip");
    const qz_tensor w = c.w;
    for (int64_t n = 0; n < 1100; n += 173) {
        c.w = qz_tensor_rows(&w, n, 1);
        const qz_qtensor one = quant_solved(&c, s, "clip");
        for (int g = 0; g < 2; g++)
            cr_assert(one.scales[g] == all.scales[2 * n + g] && one.zeros[g] == all.zeros[2 * n + g], "row %ld",
                      (long)n);
    }
    quant_case_free(&c);
}

Test(ranges, clip_of_fp8_and_of_zeros)
{
    quant_case c = quant_case_new(4, 64, 20, 13);
    memset(qz_f32(&c.w), 0, 64 * sizeof(float));
    const qz_qtensor q = quant_solved(&c, quant_scheme(QZ_FORMAT_FP8_E4M3, 1, 0, false), "clip");
    const qz_qtensor i = quant_solved(&c, quant_scheme(QZ_FORMAT_INT4, 1, 32, false), "clip");
    cr_assert(q.scales[0] == 0x1p-23f && q.codes[0] == 0 && q.scales[1] > 0);
    cr_assert(i.scales[0] == 0x1p-23f && i.codes[0] == i.zeros[0]);
    quant_case_free(&c);
}

Test(ranges, clip_refuses_pieces_of_several_rows)
{
    quant_case c = quant_case_new(16, 64, 20, 13);
    const qz_range *clip = quant_range("clip");
    const qz_options options = qz_options_default(clip->plugin.options);
    const int64_t heights[] = {0, 8};
    for (int i = 0; i < 2; i++) {
        const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, heights[i], 32, true);
        qz_qtensor q;
        check_ok(qz_qtensor_alloc(&q, &s, 16, 64, c.arena));
        check_fails(QZ_UNSUPPORTED, "minmax", clip->choose(&q, c.backend, &c.w, &c.stats, &options));
    }
    qz_scheme flat = quant_scheme(QZ_FORMAT_NF4, 0, 0, true);
    qz_qtensor q;
    flat.flat = 64;
    check_ok(qz_qtensor_alloc(&q, &flat, 16, 64, c.arena));
    check_fails(QZ_UNSUPPORTED, "minmax", clip->choose(&q, c.backend, &c.w, &c.stats, &options));
    cr_assert(clip->for_products == quant_range("minmax") && quant_range("minmax")->for_products == NULL);
    quant_case_free(&c);
}

Test(ranges, clip_tells_when_memory_runs_out)
{
    quant_case c = quant_case_new(64, 256, 20, 13);
    const qz_range *clip = quant_range("clip");
    const qz_options options = qz_options_default(clip->plugin.options);
    const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, 1, 128, true);
    qz_qtensor q;
    int failed = 0;
    check_ok(qz_qtensor_alloc(&q, &s, 64, 256, c.arena));
    for (long n = 1; n < 8; n++) {
        qz_alloc_fail_at(n);
        const qz_status status = clip->choose(&q, c.backend, &c.w, &c.stats, &options);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY);
        failed += status == QZ_MEMORY;
    }
    cr_assert(failed >= 2 && failed < 7, "%d", failed);
    quant_case_free(&c);
}
