/* The residual stream: batches of whole windows, embedded in order, kept in fp32 or rounded to bf16. */
#include "calib/stream.h"

#include "testing/calib_case.h"

Test(stream, fills_batches_with_whole_windows)
{
    calib_case c = case_open("llama", NULL);
    cr_assert(qz_stream_batch(c.model, 512) == 16 && qz_stream_batch(c.model, 100000) == 1);
    cr_assert(qz_stream_batch(c.model, 0) == 1, "no data");
    case_close(&c);
    qz_stream s = {.windows = 10, .length = 512, .batch = 4};
    cr_assert(qz_stream_batches(&s) == 3);
    cr_assert(qz_stream_shape(&s, 0).sequences == 4 && qz_stream_shape(&s, 2).sequences == 2);
    s.windows = 0;
    cr_assert(qz_stream_batches(&s) == 0);
}

/* More windows than a batch holds, so that the second batch begins at another window. */
static void check_embedding(const char *model, qz_dtype type)
{
    calib_case c = case_open(model, NULL);
    const int64_t width = qz_model_config_of(c.model)->hidden, windows = 346, length = 24, tokens = windows * length;
    qz_windows w = case_windows(c.arena, windows, length);
    qz_stream s;
    check_ok(qz_stream_new(&s, c.model, &w, NULL, type, QZ_F32, c.arena));
    cr_assert(qz_stream_batches(&s) == 2);
    float *expected = qz_arena_array(c.arena, float, (size_t)(tokens * width));
    float *found = qz_arena_array(c.arena, float, (size_t)(s.batch * length * width));
    uint16_t *half = qz_arena_array(c.arena, uint16_t, (size_t)(tokens * width));
    qz_tensor all = qz_tensor_2d(expected, QZ_F32, tokens, width);
    check_ok(qz_model_embed(c.model, w.ids, &all));
    if (type == QZ_BF16) {
        check_ok(qz_convert(half, QZ_BF16, expected, QZ_F32, tokens * width));
        check_ok(qz_convert(expected, QZ_F32, half, QZ_BF16, tokens * width));
    }
    for (int64_t i = 0; i < 2; i++) {
        int64_t count = qz_stream_shape(&s, i).sequences * length;
        qz_tensor batch = qz_tensor_2d(found, QZ_F32, count, width);
        check_ok(qz_stream_load(&s, i, &batch));
        cr_assert_arr_eq(found, expected + i * s.batch * length * width, (size_t)(count * width) * sizeof(float));
    }
    case_close(&c);
}

Test(stream, embeds_windows_in_order)
{
    check_embedding("llama", QZ_F32);
    check_embedding("llama", QZ_BF16);
}

Test(stream, gives_back_what_was_stored_in_its_place)
{
    calib_case c = case_open("llama", NULL);
    qz_windows w = case_windows(c.arena, 346, 24);
    qz_stream s;
    check_ok(qz_stream_new(&s, c.model, &w, NULL, QZ_F32, QZ_F32, c.arena));
    float *first = qz_arena_array(c.arena, float, 341 * 24 * 64), *last = qz_arena_array(c.arena, float, 5 * 24 * 64);
    for (int i = 0; i < 5 * 24 * 64; i++) last[i] = (float)i;
    qz_tensor a = qz_tensor_2d(first, QZ_F32, 341 * 24, 64), b = qz_tensor_2d(last, QZ_F32, 5 * 24, 64);
    check_ok(qz_stream_load(&s, 0, &a));
    float before = first[341 * 24 * 64 - 1];
    check_ok(qz_stream_store(&s, 1, &b));
    memset(last, 0, 5 * 24 * 64 * sizeof *last);
    check_ok(qz_stream_load(&s, 1, &b));
    check_ok(qz_stream_load(&s, 0, &a));
    cr_assert(last[0] == 0.0f && last[5 * 24 * 64 - 1] == 5 * 24 * 64 - 1 && first[341 * 24 * 64 - 1] == before);
    case_close(&c);
}

Test(stream, refuses_an_id_beyond_the_vocabulary)
{
    calib_case c = case_open("llama", NULL);
    qz_stream s;
    c.windows.ids[50] = CASE_VOCABULARY;
    check_fails(QZ_ARG, "id 160", qz_stream_new(&s, c.model, &c.windows, NULL, QZ_F32, QZ_F32, c.arena));
    case_close(&c);
}
