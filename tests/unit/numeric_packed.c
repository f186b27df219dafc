/* Packed matrices: bytes, odd widths, permutations, memory that runs out. That rows dequantize to the right bits for
 * every format is tested in property/kernels_fake_quant.c. */
#include "numeric/packed.h"

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

TestSuite(packed, .init = setup, .fini = teardown);

/* Code i is i modulo the number of codes, piece p has scale p + 1 and zero p % 3. */
static qz_qtensor filled(const qz_scheme *s, int64_t n, int64_t k)
{
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, s, n, k, arena));
    for (int64_t i = 0; i < n * k; i++) q.codes[i] = (uint8_t)(i % (1 << qz_format_of(s->format)->bits));
    for (int64_t p = 0; p < qz_scheme_pieces(s, n, k); p++) {
        q.scales[p] = (float)(p + 1);
        if (q.zeros) q.zeros[p] = (uint8_t)(p % 3);
    }
    return q;
}

Test(packed, first_code_in_the_low_bits_and_a_row_begins_a_byte)
{
    qz_packed p;
    uint8_t codes[5];
    qz_qtensor q = filled(&(qz_scheme){.format = QZ_FORMAT_INT2, .symmetric = true}, 2, 5);
    check_ok(qz_packed_from(&p, &q, arena));
    cr_assert(p.words[0] == 0xE4 && p.words[1] == 0 && p.words[2] == 0x39 && p.words[3] == 1);
    q = filled(&(qz_scheme){.format = QZ_FORMAT_INT3, .symmetric = true}, 2, 3);
    check_ok(qz_packed_from(&p, &q, arena));
    cr_assert(p.words[0] == 0x10 && p.words[1] == 0x02 && p.words[2] == 0x43 && p.words[3] == 0x05);
    qz_packed_codes(codes, &p, 1, 2, 1);
    cr_assert(codes[0] == 5);
    q = filled(&(qz_scheme){.format = QZ_FORMAT_INT5, .symmetric = true}, 1, 3);
    check_ok(qz_packed_from(&p, &q, arena));
    cr_assert(p.words[0] == 0 && p.words[2] == 2 && p.q.codes == NULL);
}

/* NF4, blocks of 64, double quantization: 4.127 bits a weight. */
Test(packed, bytes)
{
    const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .double_quant = true};
    const uint64_t count = 1024 * 4096;
    cr_assert(qz_packed_bytes(&nf4, 1024, 4096) == count / 2 + count / 64 + count / 64 / 256 * 4);
    cr_assert(qz_packed_bytes(&(qz_scheme){.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32}, 3, 65) ==
              3 * 33 + 9 * 5);
    cr_assert(qz_packed_bytes(&(qz_scheme){.format = QZ_FORMAT_INT8, .symmetric = true}, 3, 65) == 3 * 65 + 4);
}

Test(packed, keeps_nothing_of_what_it_came_from)
{
    const qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 4};
    int32_t permutation[10] = {2, 0, 0, 1, 2, 1, 1, 0, 2, 2};
    float want[60], got[60];
    qz_packed p;
    qz_qtensor q = filled(&s, 6, 10);
    q.permutation = permutation;
    qz_qtensor_dequantize(want, &q, 0, 6);
    check_ok(qz_packed_from(&p, &q, arena));
    memset(q.codes, 0, 60);
    memset(q.scales, 0, 18 * sizeof(float));
    memset(q.zeros, 0, 18);
    memset(permutation, 0, sizeof permutation);
    qz_packed_rows(got, &p, 0, 6);
    cr_assert_arr_eq(got, want, sizeof want);
}

Test(packed, of_double_quantization_only_codes_of_scales_stay)
{
    const qz_scheme s = {.format = QZ_FORMAT_NF4, .flat = 8, .double_quant = true};
    float want[60], got[60];
    qz_packed p;
    qz_qtensor q = filled(&s, 6, 10);
    qz_qtensor_quantize_scales(&q);
    qz_qtensor_dequantize(want, &q, 0, 6);
    check_ok(qz_packed_from(&p, &q, arena));
    cr_assert(p.q.scales == NULL && p.q.scale_codes != NULL);
    qz_packed_rows(got, &p, 0, 6);
    cr_assert_arr_eq(got, want, sizeof want);
}

Test(packed, memory_that_is_not_there)
{
    const qz_scheme s = {.format = QZ_FORMAT_INT8};
    qz_arena *tight;
    qz_packed p;
    const qz_qtensor q = filled(&s, 300, 3000);
    check_ok(qz_arena_new(&tight, "tight"));
    qz_alloc_fail_at(2);
    cr_assert(qz_packed_from(&p, &q, tight) == QZ_MEMORY);
    qz_arena_free(tight);
}
