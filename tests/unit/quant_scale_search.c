/* The scale search: what it measures, several weights, sampling of large problems, and what it refuses. */
#include "testing/quant_case.h"
#include "testing/tolerances.h"

static qz_search_args arguments(quant_case *c, qz_search_weight *weight, const char *range)
{
    const qz_range *r = quant_range(range);
    *weight = (qz_search_weight){c->w, r, qz_options_default(r->plugin.options)};
    return (qz_search_args){.backend = c->backend,
                            .weight = weight,
                            .weights = 1,
                            .stats = &c->stats,
                            .scheme = quant_scheme(QZ_FORMAT_INT4, 1, 32, false),
                            .grid = 20,
                            .weight_means = true};
}

static qz_search_result searched(quant_case *c, const qz_search_args *args)
{
    qz_search_result r = {.scale = qz_arena_array(c->arena, float, (size_t)c->stats.k)};
    check_ok(qz_scale_search(&r, args, c->arena));
    return r;
}

/* The loss of Q(W s) / s in double, by the solver on W s and on the statistics of x / s. */
static double folded_loss(quant_case *c, const float *scale, const char *range)
{
    const int64_t n = c->w.shape[0], k = c->w.shape[1];
    quant_case folded = *c;
    float *w = qz_arena_array(c->arena, float, (size_t)(n * k));
    double sum = 0;
    for (int64_t i = 0; i < n * k; i++) w[i] = qz_f32(&c->w)[i] * scale[i % k];
    folded.w = qz_tensor_2d(w, QZ_F32, n, k);
    folded.stats.divisor = scale;
    const qz_qtensor q = quant_solved(&folded, quant_scheme(QZ_FORMAT_INT4, 1, 32, false), range);
    float *value = quant_values(c, &q);
    for (int64_t i = 0; i < n * k; i++) value[i] /= scale[i % k];
    for (int64_t i = 0; i < n; i++) sum += quant_row_loss(c, value, NULL, i, 0, k);
    return sum;
}

static void check_losses(const char *range)
{
    quant_case c = quant_case_new(24, 70, 60, 21);
    qz_search_weight weight;
    const qz_search_args args = arguments(&c, &weight, range);
    const qz_search_result r = searched(&c, &args);
    float ones[70];
    for (int i = 0; i < 70; i++) ones[i] = 1;
    const double identity = folded_loss(&c, ones, range), found = folded_loss(&c, r.scale, range);
    cr_assert(fabs(r.identity_loss - identity) <= TOL_LOSS_F32 * identity, "%g %g", r.identity_loss, identity);
    cr_assert(fabs(r.loss - found) <= TOL_LOSS_F32 * found, "%g, expected %g", r.loss, found);
    cr_assert(!r.kept_identity && r.loss < 0.8 * r.identity_loss, "outlier channels are what the search is for");
    quant_case_free(&c);
}

Test(scale_search, says_the_loss_of_what_it_found)
{
    check_losses("minmax");
    check_losses("clip");
}

Test(scale_search, scales_are_centred_powers_of_the_means)
{
    quant_case c = quant_case_new(24, 64, 60, 22);
    qz_search_weight weight;
    qz_search_args args = arguments(&c, &weight, "minmax");
    args.weight_means = false;
    const qz_search_result r = searched(&c, &args);
    float least = INFINITY, most = 0;
    for (int i = 0; i < 64; i++) least = fminf(least, r.scale[i]), most = fmaxf(most, r.scale[i]);
    cr_assert(fabs(sqrt((double)least * most) - 1) < 1e-6 && !r.used_weight_means);
    for (int i = 4; i < 64; i++) {
        const double ratio = pow(c.stats.abssum[i] / c.stats.abssum[0], r.exponent);
        cr_assert(fabs(r.scale[i] / r.scale[0] - ratio) <= 1e-5 * ratio, "channel %d", i);
    }
    quant_case_free(&c);
}

/* One weight of 24 rows or the same rows as three weights. */
Test(scale_search, weights_are_searched_together)
{
    quant_case c = quant_case_new(24, 64, 60, 23);
    qz_search_weight weight, parts[3];
    qz_search_args args = arguments(&c, &weight, "minmax");
    const qz_search_result whole = searched(&c, &args);
    for (int i = 0; i < 3; i++) parts[i] = weight, parts[i].weight = qz_tensor_rows(&c.w, 8 * i, 8);
    args.weight = parts, args.weights = 3;
    const qz_search_result cut = searched(&c, &args);
    cr_assert_arr_eq(cut.scale, whole.scale, 64 * sizeof(float));
    cr_assert(fabs(cut.loss - whole.loss) <= TOL_SAME_FP64 * whole.loss);
    quant_case_free(&c);
}

Test(scale_search, exact_work_gives_the_same_for_every_seed)
{
    quant_case c = quant_case_new(24, 64, 60, 23);
    qz_search_weight weight;
    qz_search_args args = arguments(&c, &weight, "minmax");
    const qz_search_result a = searched(&c, &args);
    args.seed = 99;
    const qz_search_result b = searched(&c, &args);
    cr_assert_arr_eq(a.scale, b.scale, 64 * sizeof(float));
    quant_case_free(&c);
}

/* 1200 x 1024 with 20 points is sampled; the losses told are those of all rows all the same. */
Test(scale_search, large_problems_are_sampled_and_scored_exactly)
{
    quant_case c = quant_case_new(1200, 1024, 64, 24);
    qz_search_weight weight;
    qz_search_args args = arguments(&c, &weight, "minmax");
    args.weight_means = false;
    const size_t used = qz_arena_used(c.arena);
    qz_search_result r = {.scale = qz_arena_array(c.arena, float, 1024)};
    check_ok(qz_scale_search(&r, &args, c.arena));
    cr_assert(qz_arena_used(c.arena) == used + 1024 * sizeof(float), "scratch is given back");
    double loss, energy;
    const qz_qtensor q = quant_solved(&c, args.scheme, "minmax");
    check_ok(qz_output_loss(&loss, &energy, c.backend, &c.w, &q, &c.stats, c.arena));
    cr_assert(fabs(r.identity_loss - loss) <= TOL_LOSS_F32 * loss && r.loss < loss);
    quant_case_free(&c);
}

Test(scale_search, refuses_pieces_of_several_rows)
{
    quant_case c = quant_case_new(24, 64, 60, 23);
    qz_search_weight weight;
    qz_search_args args = arguments(&c, &weight, "minmax");
    args.scheme.piece_rows = 8;
    qz_search_result r = {.scale = qz_arena_array(c.arena, float, 64)};
    check_fails(QZ_UNSUPPORTED, "within rows", qz_scale_search(&r, &args, c.arena));
    quant_case_free(&c);
}

Test(scale_search, memory_running_out_is_told)
{
    quant_case c = quant_case_new(300, 512, 60, 23);
    qz_search_weight weight;
    qz_search_args args = arguments(&c, &weight, "clip");
    float scale[512];
    int failed = 0;
    args.grid = 2;
    for (long n = 1; n < 40; n++) {
        qz_search_result r = {.scale = scale};
        qz_arena *scratch;
        check_ok(qz_arena_new(&scratch, "scratch"));
        qz_alloc_fail_at(n);
        const qz_status status = qz_scale_search(&r, &args, scratch);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY);
        failed += status == QZ_MEMORY;
        qz_arena_free(scratch);
    }
    cr_assert(failed >= 4 && failed < 39, "%d", failed);
    quant_case_free(&c);
}
