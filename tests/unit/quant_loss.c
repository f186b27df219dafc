/* The exact loss against sums in double: tiles and their tail, strided rows, no quantized matrix. */
#include "testing/quant_case.h"
#include "testing/tolerances.h"

static void check_loss(int64_t n, int64_t k)
{
    quant_case c = quant_case_new(n, k, 40, 8);
    const qz_qtensor q = quant_solved(&c, quant_scheme(QZ_FORMAT_INT3, 1, 32, false), "minmax");
    const float *value = quant_values(&c, &q);
    float *nothing = qz_arena_calloc(c.arena, (size_t)(n * k) * sizeof(float));
    double loss, energy, want_loss = 0, want_energy = 0;
    for (int64_t i = 0; i < n; i++) {
        want_loss += quant_row_loss(&c, value, NULL, i, 0, k);
        want_energy += quant_row_loss(&c, nothing, NULL, i, 0, k);
    }
    const size_t used = qz_arena_used(c.arena);
    check_ok(qz_output_loss(&loss, &energy, c.backend, &c.w, &q, &c.stats, c.arena));
    cr_assert(qz_arena_used(c.arena) == used, "scratch is given back");
    cr_assert(fabs(loss - want_loss) <= TOL_LOSS_F32 * want_loss, "%.9g, expected %.9g", loss, want_loss);
    cr_assert(fabs(energy - want_energy) <= TOL_LOSS_F32 * want_energy, "%.9g, expected %.9g", energy, want_energy);
    check_ok(qz_output_loss(&loss, &energy, c.backend, &c.w, NULL, &c.stats, c.arena));
    cr_assert(loss == 0 && fabs(energy - want_energy) <= TOL_LOSS_F32 * want_energy);
    quant_case_free(&c);
}

Test(loss, is_the_sum_over_tokens)
{
    check_loss(5, 40);
    check_loss(700, 33); /* two tiles */
}

Test(loss, memory_running_out_is_told)
{
    quant_case c = quant_case_new(600, 600, 4, 8);
    double loss, energy;
    qz_arena *scratch;
    for (long n = 1; n <= 2; n++) {
        check_ok(qz_arena_new(&scratch, "scratch"));
        qz_alloc_fail_at(n);
        check_fails(QZ_MEMORY, "scratch", qz_output_loss(&loss, &energy, c.backend, &c.w, NULL, &c.stats, scratch));
        qz_alloc_fail_at(0);
        qz_arena_free(scratch);
    }
    quant_case_free(&c);
}
