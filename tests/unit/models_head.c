/* Both ends: embedding rows, logits, and log probabilities put together from tiles of the vocabulary. */
#include <math.h>

#include "model_folder.h"

/* demo/model has 4096 entries: four tiles. */
#define DEMO "demo/model"

Test(head, embedding_rows)
{
    opened o = open_model(golden_path("models/llama"));
    const qz_stored *table = qz_ckpt_find(o.ckpt, "model.embed_tokens.weight");
    int32_t ids[] = {0, 159, 7, 7};
    qz_tensor x = matrix(o.arena, 4, 64);
    check_ok(qz_model_embed(o.model, ids, &x));
    for (int t = 0; t < 4; t++)
        cr_assert(memcmp(qz_f32(&x) + t * 64, (const char *)table->view.data + ids[t] * 256, 256) == 0);
    close_model(&o);
}

Test(head, ids_beyond_the_vocabulary)
{
    opened o = open_model(golden_path("models/llama"));
    qz_tensor x = matrix(o.arena, 2, 64), lp = qz_tensor_1d(qz_arena_calloc(o.arena, 16), QZ_F64, 2);
    check_fails(QZ_ARG, "token 1: id 160, but vocab_size of the model is 160",
                qz_model_embed(o.model, (int32_t[]){3, 160}, &x));
    check_fails(QZ_ARG, "token 0: id -1", qz_model_embed(o.model, (int32_t[]){-1, 3}, &x));
    check_fails(QZ_ARG, "target 1: id 160", qz_model_log_prob(o.model, &x, (int32_t[]){3, 160}, &lp, o.arena));
    check_fails(QZ_SHAPE, "logits must be", qz_model_logits(o.model, &x, &x, o.arena));
    check_fails(QZ_SHAPE, "log probabilities", qz_model_log_prob(o.model, &x, (int32_t[]){3, 3}, &x, o.arena));
    close_model(&o);
}

/* Any run of entries, also across the blocks in which the table is widened, is the same as in the whole. */
Test(head, a_part_of_the_logits)
{
    enum { T = 3 };
    opened o = open_model(DEMO);
    const int64_t vocabulary = qz_model_config_of(o.model)->vocabulary, c = qz_model_config_of(o.model)->hidden;
    qz_tensor hidden = matrix(o.arena, T, c), whole = matrix(o.arena, T, vocabulary), part = matrix(o.arena, T, 1500);
    for (int64_t i = 0; i < T * c; i++) qz_f32(&hidden)[i] = (float)sin((double)(i * i % 1013));
    check_ok(qz_model_logits(o.model, &hidden, &whole, o.arena));
    check_ok(qz_model_logits_part(o.model, &hidden, 700, &part, o.arena));
    for (int64_t i = 0; i < T * 1500; i++) {
        const float wanted = qz_f32(&whole)[i / 1500 * vocabulary + 700 + i % 1500];
        cr_assert_float_eq(qz_f32(&part)[i], wanted, 1e-5 * (1 + fabsf(wanted)));
    }
    check_fails(QZ_SHAPE, "logits from entry 3000 on must be (tokens, at most 1096)",
                qz_model_logits_part(o.model, &hidden, 3000, &part, o.arena));
    close_model(&o);
}

/* Every entry is seen once, in order. */
static qz_status see(void *context, int64_t first, const qz_tensor *logits)
{
    int64_t *seen = context;
    cr_assert(first == *seen && logits->shape[0] == 2);
    *seen += logits->shape[1];
    return *seen > 2000 ? QZ_FAIL(QZ_INTERRUPTED, "enough") : QZ_OK;
}

Test(head, a_tap_sees_the_logits_and_may_stop)
{
    opened o = open_model(golden_path("models/llama")), demo = open_model(DEMO);
    qz_tensor x = matrix(o.arena, 2, 64), y = matrix(o.arena, 2, 256);
    qz_tensor lp = qz_tensor_1d(qz_arena_calloc(o.arena, 16), QZ_F64, 2);
    int64_t seen = 0;
    check_ok(qz_model_log_prob_tapped(o.model, &x, (int32_t[]){3, 4}, &lp, (qz_logits_tap){see, &seen}, o.arena));
    cr_assert_eq(seen, 160);
    seen = 0;
    check_fails(QZ_INTERRUPTED, "enough",
                qz_model_log_prob_tapped(demo.model, &y, (int32_t[]){3, 4}, &lp, (qz_logits_tap){see, &seen}, o.arena));
    close_model(&o);
    close_model(&demo);
}

static void check_against_logits(const opened *o, double spread)
{
    enum { T = 9 };
    const int64_t vocabulary = qz_model_config_of(o->model)->vocabulary, c = qz_model_config_of(o->model)->hidden;
    const int32_t targets[T] = {0, 1023, 1024, 1025, 2047, 2048, 4095, -1, 17};
    qz_tensor hidden = matrix(o->arena, T, c), logits = matrix(o->arena, T, vocabulary);
    qz_tensor lp = qz_tensor_1d(qz_arena_calloc(o->arena, T * 8), QZ_F64, T);
    for (int64_t i = 0; i < T * c; i++) qz_f32(&hidden)[i] = (float)(spread * sin((double)(i * i % 1013)));
    check_ok(qz_model_logits(o->model, &hidden, &logits, o->arena));
    check_ok(qz_model_log_prob(o->model, &hidden, targets, &lp, o->arena));
    for (int t = 0; t < T; t++) {
        const float *row = qz_f32(&logits) + t * vocabulary;
        double high = -INFINITY, sum = 0;
        for (int64_t v = 0; v < vocabulary; v++) high = fmax(high, row[v]);
        for (int64_t v = 0; v < vocabulary; v++) sum += exp(row[v] - high);
        double expected = targets[t] < 0 ? 0 : row[targets[t]] - high - log(sum);
        cr_assert_float_eq(((double *)lp.data)[t], expected, 1e-9 * (1 + fabs(expected)), "%d: %.12g, expected %.12g",
                           t, ((double *)lp.data)[t], expected);
    }
}

Test(head, log_prob_over_several_tiles)
{
    opened o = open_model(DEMO);
    check_against_logits(&o, 1);
    check_against_logits(&o, 100);
    close_model(&o);
}

Test(head, scratch_is_given_back_and_foretold)
{
    enum { T = 700 };
    opened o = open_model(DEMO);
    static int32_t targets[T];
    qz_arena *scratch;
    qz_tensor hidden = matrix(o.arena, T, 256), lp = qz_tensor_1d(qz_arena_calloc(o.arena, T * 8), QZ_F64, T);
    check_ok(qz_arena_new(&scratch, "scratch"));
    check_ok(qz_model_log_prob(o.model, &hidden, targets, &lp, scratch));
    cr_assert(qz_arena_used(scratch) == 0);
    cr_assert(qz_arena_peak(scratch) <= qz_model_head_bytes(o.model, T) + (1 << 20));
    cr_assert_float_eq(((double *)lp.data)[5], -log(4096), 1e-9);
    qz_arena_free(scratch);
    close_model(&o);
}

Test(head, nan_in_a_table_is_named)
{
    opened o = open_model(changed_model(golden_path("models/llama"), "e",
                                        (change){.kind = SPOIL, .tensor = "model.embed_tokens.weight"}));
    qz_tensor x = matrix(o.arena, 1, 64), logits = matrix(o.arena, 1, 160);
    check_fails(QZ_NUMERIC, "model.embed_tokens.weight: NaN or infinity at [0, 6]",
                qz_model_embed(o.model, (int32_t[]){0}, &x));
    check_ok(qz_model_embed(o.model, (int32_t[]){1}, &x));
    close_model(&o);
    o = open_model(
        changed_model(golden_path("models/llama"), "h", (change){.kind = SPOIL, .tensor = "lm_head.weight"}));
    logits = matrix(o.arena, 1, 160);
    x = matrix(o.arena, 1, 64);
    check_fails(QZ_NUMERIC, "lm_head.weight: NaN or infinity at [0, 6]",
                qz_model_logits(o.model, &x, &logits, o.arena));
    close_model(&o);
}

Test(head, tied_and_bf16_tables)
{
    opened o = open_model(golden_path("models/llama_tied_rope3"));
    qz_tensor x = matrix(o.arena, 1, 64), logits = matrix(o.arena, 1, 160), again = matrix(o.arena, 1, 64);
    int32_t id = 11;
    check_ok(qz_model_embed(o.model, &id, &x));
    check_ok(qz_model_logits(o.model, &x, &logits, o.arena));
    for (id = 0; id < 160; id++) {
        double sum = 0;
        check_ok(qz_model_embed(o.model, &id, &again));
        for (int c = 0; c < 64; c++) sum += (double)qz_f32(&x)[c] * qz_f32(&again)[c];
        cr_assert_float_eq(qz_f32(&logits)[id], sum, 1e-4 * (1 + fabs(sum)));
    }
    close_model(&o);
}
