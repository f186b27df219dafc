/* What the experts' inputs have in common, by hand and against all tokens at once. */
#include "calib/expert_pool.h"

#include <math.h>

#include "testing/testing.h"
#include "testing/tolerances.h"

enum { K = 5, EXPERTS = 3, TOKENS = 90, ROWS = 16 };

static void new_stats(qz_stats *s, qz_arena *arena)
{
    check_ok(qz_stats_new(s, K, (qz_stats_wants){.reservoir = ROWS, .histogram = true}, 3, 0, arena));
}

/* Expert 0 gets 60 tokens, expert 1 none, expert 2 the other 30; `all` gets every one. */
static void fill(qz_stats *stats, qz_stats *all, qz_arena *arena)
{
    static const int64_t first[EXPERTS + 1] = {0, 60, 60, TOKENS};
    qz_rng rng;
    float *x = qz_arena_array(arena, float, TOKENS *K);
    qz_rng_seed(&rng, 1, 0);
    for (int i = 0; i < TOKENS * K; i++) x[i] = (float)qz_rng_normal(&rng);
    const qz_tensor whole = qz_tensor_2d(x, QZ_F32, TOKENS, K);
    new_stats(all, arena);
    check_ok(qz_stats_add(all, qz_backend_at(0), &whole));
    check_ok(qz_stats_finish(all));
    for (int e = 0; e < EXPERTS; e++) {
        qz_stats *s = &stats[qz_input_of(QZ_STAGE_GATE_UP, e)];
        const qz_tensor part = qz_tensor_rows(&whole, first[e], first[e + 1] - first[e]);
        new_stats(s, arena);
        if (part.shape[0]) check_ok(qz_stats_add(s, qz_backend_at(0), &part));
        check_ok(qz_stats_finish(s));
    }
}

Test(expert_pool, is_the_record_of_all_tokens)
{
    qz_arena *arena;
    qz_layer layer = {.experts = EXPERTS};
    qz_stats stats[2 + 2 * EXPERTS] = {0}, all, pool;
    check_ok(qz_arena_new(&arena, "test"));
    fill(stats, &all, arena);
    check_ok(qz_expert_pool(&pool, &(qz_transform_args){.layer = &layer, .stats = stats}, QZ_STAGE_GATE_UP, arena));
    cr_assert(pool.tokens == TOKENS && pool.k == K && pool.reservoir_rows == ROWS);
    for (int i = 0; i < K * K; i++)
        cr_assert_float_eq(pool.gram[i], all.gram[i], TOL_GRAM * all.gram[i / K * K + i / K] + TOL_GRAM);
    for (int k = 0; k < K; k++) {
        cr_assert(pool.absmax[k] == all.absmax[k]);
        cr_assert_float_eq(pool.abssum[k], all.abssum[k], TOL_GRAM * all.abssum[k]);
    }
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) cr_assert(pool.histogram[i] == all.histogram[i]);
    qz_arena_free(arena);
}

Test(expert_pool, one_input_is_itself)
{
    qz_arena *arena;
    qz_layer layer = {.experts = 1};
    qz_stats stats[2 + 2 * EXPERTS] = {0}, all, pool;
    check_ok(qz_arena_new(&arena, "test"));
    fill(stats, &all, arena);
    const qz_transform_args args = {.layer = &layer, .stats = stats};
    check_ok(qz_expert_pool(&pool, &args, QZ_STAGE_GATE_UP, arena));
    cr_assert(pool.gram == stats[QZ_STAGE_GATE_UP].gram);
    layer.experts = EXPERTS;
    check_ok(qz_expert_pool(&pool, &args, QZ_STAGE_QKV, arena));
    cr_assert(pool.gram == stats[QZ_STAGE_QKV].gram && qz_expert_inputs(&layer, QZ_STAGE_O) == 1);
    cr_assert(qz_expert_inputs(&layer, QZ_STAGE_DOWN) == EXPERTS);
    qz_arena_free(arena);
}

Test(expert_pool, rescales_every_expert)
{
    qz_arena *arena;
    qz_layer layer = {.experts = EXPERTS};
    qz_stats stats[2 + 2 * EXPERTS] = {0}, all;
    const float scale[K] = {2, 2, 2, 2, 2};
    check_ok(qz_arena_new(&arena, "test"));
    fill(stats, &all, arena);
    const float before = stats[qz_input_of(QZ_STAGE_GATE_UP, 2)].absmax[1];
    qz_expert_rescale(&(qz_transform_args){.layer = &layer, .stats = stats}, QZ_STAGE_GATE_UP, scale);
    cr_assert(stats[qz_input_of(QZ_STAGE_GATE_UP, 2)].absmax[1] == before / 2);
    cr_assert(stats[qz_input_of(QZ_STAGE_GATE_UP, 0)].rescaled);
    qz_stats pool; /* of a second transform */
    check_ok(qz_expert_pool(&pool, &(qz_transform_args){.layer = &layer, .stats = stats}, QZ_STAGE_GATE_UP, arena));
    cr_assert(pool.rescaled && pool.absmax[1] == all.absmax[1] / 2);
    qz_arena_free(arena);
}
