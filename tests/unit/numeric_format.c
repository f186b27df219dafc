/* Names, sizes and the arithmetic of pieces. */
#include "numeric/format.h"

#include "testing/testing.h"

Test(format, dtypes_are_found_by_name)
{
    for (int t = 0; t < QZ_DTYPE_COUNT; t++) cr_assert(qz_dtype_find(qz_dtype_name((qz_dtype)t)) == (qz_dtype)t);
    cr_assert(qz_dtype_find("BF17") == QZ_DTYPE_COUNT);
    cr_assert(qz_dtype_bits(QZ_F6_E2M3) == 6 && qz_dtype_class_of(QZ_U8) == QZ_DTYPE_INTEGER);
    cr_assert(qz_dtype_is_plain(QZ_BF16) && !qz_dtype_is_plain(QZ_F64));
}

Test(format, bytes)
{
    uint64_t bytes;
    check_ok(qz_dtype_bytes(QZ_BF16, 7, &bytes));
    cr_assert(bytes == 14);
    check_ok(qz_dtype_bytes(QZ_F4, 6, &bytes));
    cr_assert(bytes == 3);
    check_ok(qz_dtype_bytes(QZ_F32, 0, &bytes));
    cr_assert(bytes == 0);
    check_fails(QZ_SHAPE, "whole number of bytes", qz_dtype_bytes(QZ_F4, 7, &bytes));
    check_fails(QZ_SHAPE, "do not fit", qz_dtype_bytes(QZ_F32, UINT64_MAX / 16, &bytes));
}

Test(format, formats_are_found_by_name)
{
    for (int f = 0; f < QZ_FORMAT_COUNT; f++)
        cr_assert(qz_format_find(qz_format_of((qz_format)f)->name) == (qz_format)f);
    cr_assert(qz_format_find("int9") == QZ_FORMAT_COUNT);
}

Test(format, pieces)
{
    const qz_scheme group = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 128};
    const qz_scheme block = {.format = QZ_FORMAT_FP8_E4M3, .piece_rows = 128, .piece_cols = 128};
    const qz_scheme tensor = {.format = QZ_FORMAT_INT8};
    cr_assert(qz_scheme_scale_rows(&group, 300) == 300 && qz_scheme_scale_cols(&group, 300) == 3);
    cr_assert(qz_scheme_scale_rows(&block, 300) == 3 && qz_scheme_scale_cols(&block, 128) == 1);
    cr_assert(qz_scheme_scale_rows(&tensor, 300) == 1 && qz_scheme_scale_cols(&tensor, 300) == 1);
}

Test(format, same_schemes)
{
    const qz_scheme a = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 128, .scale_type = QZ_F16};
    qz_scheme b = a;
    b.zero_rule = QZ_ROUND_SUM;
    cr_assert(qz_scheme_same(&a, &b));
    b.scale_type = QZ_BF16;
    cr_assert(qz_scheme_alike(&a, &b) && !qz_scheme_same(&a, &b));
    b.piece_cols = 64;
    cr_assert(!qz_scheme_alike(&a, &b));
}

Test(format, same_schemes_of_inputs)
{
    const qz_act_scheme none = {.mode = QZ_ACT_NONE}, token = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8};
    qz_act_scheme other = token;
    other.divisor = 127;
    cr_assert(qz_act_scheme_same(&token, &other) && !qz_act_scheme_same(&token, &none));
    other.symmetric = true;
    cr_assert(!qz_act_scheme_same(&token, &other));
    qz_act_scheme fp8 = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_FP8_E4M3};
    other = fp8;
    other.symmetric = true; /* says nothing of a float */
    cr_assert(qz_act_scheme_same(&fp8, &other));
    other.mode = fp8.mode = QZ_ACT_NONE;
    other.format = QZ_FORMAT_INT8;
    cr_assert(qz_act_scheme_same(&fp8, &other));
}

Test(format, bits_per_weight)
{
    const qz_scheme awq = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 128, .scale_type = QZ_F16};
    qz_scheme sym = awq;
    sym.symmetric = true;
    cr_assert(qz_scheme_bits_per_weight(&awq, 64, 1024) == 4 + 20.0 / 128);
    cr_assert(qz_scheme_bits_per_weight(&sym, 64, 1024) == 4 + 16.0 / 128);
    cr_assert(qz_scheme_bits_per_weight(&(qz_scheme){.format = QZ_FORMAT_BF16}, 3, 5) == 16);
}

Test(format, descriptions)
{
    char text[96];
    qz_scheme s = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 128};
    qz_scheme_describe(&s, text, sizeof text);
    cr_assert_str_eq(text, "int4 group 128 asymmetric");
    s = (qz_scheme){.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true};
    qz_scheme_describe(&s, text, sizeof text);
    cr_assert_str_eq(text, "int8 per channel symmetric");
    s = (qz_scheme){.format = QZ_FORMAT_FP8_E4M3, .piece_rows = 128, .piece_cols = 128};
    qz_scheme_describe(&s, text, sizeof text);
    cr_assert_str_eq(text, "fp8_e4m3 block 128x128");
    qz_scheme_describe(&(qz_scheme){.format = QZ_FORMAT_BF16}, text, sizeof text);
    cr_assert_str_eq(text, "bf16");
}
