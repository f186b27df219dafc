/* The quantized matrix: pieces of all granularities, a permutation, tails, and comparison. */
#include "numeric/minifloat.h"
#include "numeric/tensor.h"
#include "testing/testing.h"

static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(qtensor, .init = setup, .fini = teardown);

/* Code i of the matrix is i % 13, piece p has scale p + 1 and zero p % 5. */
static qz_qtensor filled(qz_scheme scheme, int64_t n, int64_t k)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &scheme, n, k, arena));
    const int64_t pieces = qz_scheme_scale_rows(&scheme, n) * qz_scheme_scale_cols(&scheme, k);
    for (int64_t i = 0; i < n * k; i++) q.codes[i] = (uint8_t)(i % 13);
    for (int64_t p = 0; p < pieces; p++) q.scales[p] = (float)(p + 1);
    for (int64_t p = 0; q.zeros && p < pieces; p++) q.zeros[p] = (uint8_t)(p % 5);
    return q;
}

static void check_values(const qz_qtensor *q, int64_t piece_rows, int64_t piece_cols, int64_t cols)
{
    float out[8 * 10];
    qz_qtensor_dequantize(out, q, 0, q->rows);
    for (int64_t i = 0; i < q->rows * q->cols; i++) {
        const int64_t piece = i / q->cols / piece_rows * cols + i % q->cols / piece_cols;
        const float zero = q->zeros ? (float)(piece % 5) : 8;
        cr_assert(out[i] == ((float)(i % 13) - zero) * (float)(piece + 1), "element %ld", (long)i);
    }
}

Test(qtensor, dequantizes_every_granularity)
{
    qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 4};
    qz_qtensor q = filled(s, 8, 10);
    check_values(&q, 1, 4, 3);
    s.piece_cols = 0;
    q = filled(s, 8, 10);
    check_values(&q, 1, 10, 1);
    s.piece_rows = 0;
    q = filled(s, 8, 10);
    check_values(&q, 8, 10, 1);
    s = (qz_scheme){.format = QZ_FORMAT_INT4, .piece_rows = 3, .piece_cols = 4, .symmetric = true};
    q = filled(s, 8, 10);
    cr_assert(q.zeros == NULL);
    check_values(&q, 3, 4, 3);
}

Test(qtensor, permutation_names_the_group)
{
    const qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 2, .symmetric = true};
    qz_qtensor q = filled(s, 1, 4);
    float out[4];
    q.permutation = (int32_t[]){1, 0, 1, 0};
    qz_qtensor_dequantize(out, &q, 0, 1);
    cr_assert(out[0] == -16 && out[1] == -7 && out[2] == -12 && out[3] == -5);
}

Test(qtensor, fp8)
{
    const qz_scheme s = {.format = QZ_FORMAT_FP8_E5M2, .piece_rows = 1};
    qz_qtensor q = filled(s, 1, 10);
    float out[10];
    cr_assert(q.zeros == NULL);
    q.scales[0] = 3.0f;
    qz_qtensor_dequantize(out, &q, 0, 1);
    for (int i = 0; i < 10; i++) cr_assert(out[i] == qz_e5m2_decode((uint8_t)i) * 3.0f);
}

Test(qtensor, plain_formats_have_no_codes)
{
    qz_qtensor q;
    check_fails(QZ_UNSUPPORTED, "bf16", qz_qtensor_alloc(&q, &(qz_scheme){.format = QZ_FORMAT_BF16}, 2, 2, arena));
}

Test(qtensor, compare_says_where)
{
    const qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 4};
    qz_scheme other = s;
    const qz_qtensor a = filled(s, 8, 10);
    qz_qtensor b = filled(s, 8, 10);
    check_ok(qz_qtensor_compare(&a, &b));
    b.codes[37]++;
    check_fails(QZ_NUMERIC, "code (3, 7)", qz_qtensor_compare(&a, &b));
    b.codes[37]--;
    b.zeros[4]++;
    check_fails(QZ_NUMERIC, "zero (1, 1)", qz_qtensor_compare(&a, &b));
    b.zeros[4]--;
    b.scales[23] = 0.5f;
    check_fails(QZ_NUMERIC, "scale (7, 2)", qz_qtensor_compare(&a, &b));
    b = filled(s, 8, 10);
    b.permutation = (int32_t[]){0, 0, 0, 0, 1, 1, 1, 1, 2, 2};
    check_ok(qz_qtensor_compare(&a, &b));
    b.permutation = (int32_t[]){0, 0, 0, 0, 1, 1, 2, 1, 2, 2};
    check_fails(QZ_NUMERIC, "group of input 6", qz_qtensor_compare(&a, &b));
    b = filled(s, 8, 9);
    check_fails(QZ_SHAPE, "8 x 9", qz_qtensor_compare(&a, &b));
    other.piece_cols = 5;
    b = filled(other, 8, 10);
    check_fails(QZ_FORMAT, "group 5", qz_qtensor_compare(&a, &b));
}

Test(qtensor, symmetric_equals_stored_zeros_of_eight)
{
    qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 4};
    qz_qtensor a = filled(s, 2, 8), b;
    memset(a.zeros, 8, 4);
    s.symmetric = true;
    b = filled(s, 2, 8);
    check_ok(qz_qtensor_compare(&a, &b));
}

Test(qtensor, memory_running_out_is_told)
{
    qz_qtensor q;
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "test", qz_qtensor_alloc(&q, &(qz_scheme){.format = QZ_FORMAT_INT8}, 4096, 4096, arena));
    qz_alloc_fail_at(0);
}
