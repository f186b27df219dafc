/* Codebooks and double quantization: tables, midpoints, ties, corners, flat pieces, the dynamic map. */
#include <math.h>

#include "numeric/codebook.h"
#include "numeric/tensor.h"
#include "testing/testing.h"

static const qz_format formats[] = {QZ_FORMAT_NF4, QZ_FORMAT_FP4};

static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(codebook, .init = setup, .fini = teardown);

/* The table's values in rising order, each once; returns how many. */
static int sorted(float out[16], qz_format f)
{
    int n = 0;
    for (int c = 0; c < 16; c++) {
        const float v = qz_codebook_value(c, f);
        int at = 0;
        while (at < n && out[at] < v) at++;
        if (at < n && out[at] == v) continue;
        for (int i = n++; i > at; i--) out[i] = out[i - 1];
        out[at] = v;
    }
    return n;
}

Test(codebook, encode_is_nearest_and_a_tie_goes_down)
{
    for (int f = 0; f < 2; f++) {
        float v[16];
        const int n = sorted(v, formats[f]);
        cr_assert(n == (formats[f] == QZ_FORMAT_NF4 ? 16 : 15) && v[0] == -1 && v[n - 1] == 1);
        for (int i = 0; i + 1 < n; i++) {
            const float middle = (v[i] + v[i + 1]) / 2;
            const uint8_t below = qz_codebook_encode(middle, 1, formats[f]),
                          above = qz_codebook_encode(nextafterf(middle, 2), 1, formats[f]);
            cr_assert(qz_codebook_value(below, formats[f]) == v[i], "%.9g", (double)middle);
            cr_assert(qz_codebook_value(above, formats[f]) == v[i + 1], "%.9g", (double)middle);
        }
    }
}

Test(codebook, decode_then_encode_is_the_identity)
{
    const float scale[] = {1, 0.3f, 7e-5f, 1e-38f, 3e38f};
    for (int f = 0; f < 2; f++)
        for (int s = 0; s < 5; s++)
            for (int c = 0; c < 16; c++) {
                const uint8_t want = formats[f] == QZ_FORMAT_FP4 && c == 8 ? 0 : (uint8_t)c;
                cr_assert(qz_codebook_encode(qz_codebook_decode((uint8_t)c, scale[s], formats[f]), scale[s],
                                             formats[f]) == want,
                          "code %d, scale %g", c, (double)scale[s]);
            }
}

Test(codebook, worked_block_of_the_format_description)
{
    const float w[] = {0.5f, -1, 0, 0.25f};
    const uint8_t code[] = {12, 0, 7, 10};
    for (int i = 0; i < 4; i++) cr_assert(qz_codebook_encode(w[i], 1, QZ_FORMAT_NF4) == code[i]);
}

Test(codebook, a_piece_of_zeros_has_scale_zero)
{
    cr_assert(qz_codebook_scale(0, QZ_F32) == 0 && qz_codebook_scale(0.7f, QZ_F32) == 0.7f);
    cr_assert(qz_codebook_scale(1e-42f, QZ_F32) == 1e-42f, "a subnormal stays");
    cr_assert(qz_codebook_scale(0.1f, QZ_F16) == 0x1.998p-4f);
    cr_assert(qz_codebook_encode(0, 0, QZ_FORMAT_NF4) == 7 && qz_codebook_encode(-0.0f, 0, QZ_FORMAT_FP4) == 0);
    cr_assert(qz_codebook_decode(7, 0, QZ_FORMAT_NF4) == 0);
}

Test(codebook, dynamic_map_rises_and_is_nearly_odd)
{
    for (int c = 1; c < 256; c++) cr_assert(qz_dynamic_decode(c) > qz_dynamic_decode(c - 1), "%d", c);
    for (int p = 1; p < 128; p++) cr_assert(qz_dynamic_decode(127 - p) == -qz_dynamic_decode(127 + p), "%d", p);
    cr_assert(qz_dynamic_decode(127) == 0 && qz_dynamic_decode(255) == 1);
    cr_assert(fabsf(qz_dynamic_decode(0) + 0.99296875f) < 1e-7f && fabsf(qz_dynamic_decode(128) - 5.5e-7f) < 1e-13f);
    cr_assert(qz_dynamic_encode(-1) == 0 && qz_dynamic_encode(2) == 255 && qz_dynamic_encode(0) == 127);
    for (int c = 0; c < 256; c++) cr_assert(qz_dynamic_encode(qz_dynamic_decode(c)) == c, "%d", c);
    for (int c = 0; c < 255; c++) {
        const float middle = (qz_dynamic_decode(c) + qz_dynamic_decode(c + 1)) / 2;
        cr_assert(qz_dynamic_encode(middle) == c && qz_dynamic_encode(nextafterf(middle, 2)) == c + 1, "%d", c);
    }
}

/* ---- whole matrices ---- */

static qz_scheme flat(int64_t width, bool twice)
{
    return (qz_scheme){.format = QZ_FORMAT_NF4, .flat = width, .symmetric = true, .double_quant = twice};
}

Test(codebook, flat_pieces_run_across_rows)
{
    enum { N = 3, K = 10 };
    const qz_scheme s = flat(4, false);
    qz_qtensor q;
    cr_assert(qz_scheme_pieces(&s, N, K) == 8);
    check_ok(qz_qtensor_alloc(&q, &s, N, K, arena));
    cr_assert(q.zeros == NULL && q.scale_codes == NULL);
    for (int i = 0; i < N * K; i++) q.codes[i] = (uint8_t)(i % 16);
    for (int p = 0; p < 8; p++) q.scales[p] = (float)(p + 1);
    float out[N * K];
    qz_qtensor_dequantize(out, &q, 0, 1);
    qz_qtensor_dequantize(out + K, &q, 1, 2);
    for (int i = 0; i < N * K; i++)
        cr_assert(out[i] == qz_codebook_value(i % 16, QZ_FORMAT_NF4) * (float)(i / 4 + 1), "%d", i);
    qz_qtensor other;
    check_ok(qz_qtensor_alloc(&other, &s, N, K, arena));
    memcpy(other.codes, q.codes, N * K);
    memcpy(other.scales, q.scales, 8 * sizeof(float));
    check_ok(qz_qtensor_compare(&q, &other));
    other.scales[7] = 3;
    check_fails(QZ_NUMERIC, "scale (0, 7)", qz_qtensor_compare(&q, &other));
    other.scheme.flat = 8;
    check_fails(QZ_FORMAT, "nf4 blocks of 4 and nf4 blocks of 8", qz_qtensor_compare(&q, &other));
}

Test(codebook, scales_are_quantized_about_their_mean)
{
    enum { N = 16, K = 2432 }; /* 608 scales: two whole blocks of 256 and a short one */
    const qz_scheme s = flat(64, true);
    const int64_t pieces = N * K / 64;
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &s, N, K, arena));
    float before[N * K / 64], most[3] = {0};
    double sum = 0;
    for (int i = 0; i < pieces; i++) {
        before[i] = q.scales[i] = 0.05f + 0.001f * (float)((i * 37) % 101);
        sum += (double)before[i];
    }
    qz_qtensor_quantize_scales(&q);
    cr_assert(q.scale_offset == (float)(sum / (double)pieces));
    for (int i = 0; i < pieces; i++) most[i / 256] = fmaxf(most[i / 256], fabsf(before[i] - q.scale_offset));
    for (int b = 0; b < 3; b++) cr_assert(q.second_scales[b] == most[b], "%d", b);
    for (int i = 0; i < pieces; i++) {
        cr_assert(q.scales[i] == qz_double_decode(q.scale_codes[i], most[i / 256], q.scale_offset));
        /* the map's widest step, 0.9 / 64 up to 0.993 and then to 1, of the block's largest */
        cr_assert(fabsf(q.scales[i] - before[i]) <= 0.0071f * most[i / 256], "%d", i);
    }
}

Test(codebook, equal_scales_have_no_rest)
{
    const qz_scheme s = flat(64, true);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &s, 1, 128, arena));
    q.scales[0] = q.scales[1] = 0.25f;
    qz_qtensor_quantize_scales(&q);
    cr_assert(q.second_scales[0] == 0 && q.scale_codes[0] == 127 && q.scales[0] == 0.25f && q.scales[1] == 0.25f);
}

Test(codebook, bits_and_descriptions)
{
    char text[96];
    const qz_scheme once = {.format = QZ_FORMAT_NF4, .piece_rows = 1, .piece_cols = 64, .scale_type = QZ_F32};
    qz_scheme twice = flat(64, true);
    cr_assert(qz_scheme_bits_per_weight(&once, 64, 1024) == 4.5);
    cr_assert(qz_scheme_bits_per_weight(&twice, 64, 1024) == 4 + (1024 * 8 + 5 * 32) / 65536.0);
    qz_scheme_describe(&once, text, sizeof text);
    cr_assert_str_eq(text, "nf4 group 64");
    qz_scheme_describe(&twice, text, sizeof text);
    cr_assert_str_eq(text, "nf4 blocks of 64, scales quantized");
}
