/* The plan: tiers add up, grow with what they are of, and a job that does not fit is refused, saying what to change. */
#include <math.h>

#include "testing/calib_case.h"

static qz_status make_plan(qz_plan *out, const calib_case *c, double gflops)
{
    const qz_calib_output output = case_output(c, NULL);
    return qz_calib_plan(out, &(qz_calib_args){.model = c->model, .output = &output, .outputs = 1}, gflops);
}

static qz_plan plan_of(calib_case *c)
{
    qz_plan p;
    case_plan(c);
    check_ok(make_plan(&p, c, 10.0));
    return p;
}

static uint64_t tier(const qz_plan *p, const char *part)
{
    for (int i = 0; i < p->rows; i++)
        if (strstr(p->memory[i].tier, part)) return p->memory[i].bytes;
    cr_assert_fail("no tier named %s", part);
    return 0;
}

Test(plan, adds_up_its_tiers)
{
    calib_case c = case_open("llama", NULL);
    qz_plan p = plan_of(&c);
    uint64_t sum = 0;
    for (int i = 0; i < p.rows; i++) sum += p.memory[i].bytes;
    cr_assert(p.rows > 3 && sum == p.memory_bytes && sum > 0);
    /* q, o (64, 64); k, v (32, 64); gate, up (128, 64); down (64, 128) as fp32, and two norms */
    cr_assert(tier(&p, "weights") >= 4 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128 + 2 * 64));
    cr_assert(tier(&p, "residual") == 128ull * 512 * 64 * 4);
    case_close(&c);
}

Test(plan, halves_the_stream_in_bf16)
{
    calib_case a = case_open("llama", NULL),
               b = case_open("llama", (const char *[]){"calibration.activations=bf16", NULL});
    qz_plan p = plan_of(&a), q = plan_of(&b);
    cr_assert(tier(&p, "residual") == 2 * tier(&q, "residual"));
    case_close(&a);
    case_close(&b);
}

Test(plan, counts_bits_and_disk)
{
    calib_case c = case_open("llama", NULL);
    qz_plan p = plan_of(&c);
    cr_assert_float_eq(p.bits_per_weight, 4.0 + (16.0 + 4.0) / 32, 1e-9); /* code; scale and zero of 32 */
    double linear = 2.0 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128), plain = 2.0 * 160 * 64 + 5 * 64;
    double expected = (linear * p.bits_per_weight + plain * 16) / 8;
    cr_assert(fabs((double)p.disk_bytes - expected) < 8, "%llu, expected %g", (unsigned long long)p.disk_bytes,
              expected);
    cr_assert(p.source_bytes == qz_ckpt_bytes(c.ckpt) && p.disk_free > 0);
    case_close(&c);
}

Test(plan, estimates_more_time_for_more_samples)
{
    calib_case a = case_open("llama", NULL), b = case_open("llama", (const char *[]){"calibration.samples=256", NULL});
    qz_plan p = plan_of(&a), q = plan_of(&b);
    cr_assert(p.seconds > 0 && isfinite(p.seconds) && q.seconds > 1.5 * p.seconds);
    cr_assert_float_eq(p.seconds * 10e9, p.flops, 1e-6 * p.flops);
    case_close(&a);
    case_close(&b);
}

/* No text: nothing is streamed, and the figures stay numbers. */
Test(plan, holds_without_text)
{
    calib_case c = case_open("llama", (const char *[]){"calibration=null", "transforms=[]", "weights.range=minmax",
                                                       "evaluate.data=b.txt", NULL});
    qz_plan p = plan_of(&c);
    cr_assert(tier(&p, "residual") == 0);
    cr_assert(isfinite(p.flops) && p.flops > 0);
    case_close(&c);
}

static bool has_tier(const qz_plan *p, const char *part)
{
    bool found = false;
    for (int i = 0; i < p->rows; i++) found |= strstr(p->memory[i].tier, part) != NULL;
    return found;
}

/* GPTQ keeps a factor of the widest input, 128 channels of down. */
Test(plan, counts_what_a_solver_keeps_of_an_input)
{
    calib_case a = case_open("llama", NULL),
               b = case_open("llama", (const char *[]){"weights.solver=gptq", "weights.range=minmax", NULL});
    qz_plan p = plan_of(&a), q = plan_of(&b);
    cr_assert(!has_tier(&p, "factor") && tier(&q, "factor") >= 8 * 128 * 128 && tier(&q, "factor") < 9 * 128 * 128);
    cr_assert(q.bound_bytes > p.bound_bytes);
    case_close(&a);
    case_close(&b);
}

Test(plan, counts_the_pool_of_the_experts)
{
    calib_case a = case_open("mixtral", NULL), b = case_open("mixtral", (const char *[]){"transforms=[]", NULL});
    qz_plan p = plan_of(&a), q = plan_of(&b);
    cr_assert(tier(&p, "experts") >= 4 * 64 * 64 && !has_tier(&q, "experts"));
    case_close(&a);
    case_close(&b);
}

/* This one is less. */
Test(plan, a_small_head_counts_as_a_layer)
{
    calib_case c = case_open("llama", (const char *[]){"weights.skip=[]", NULL});
    qz_plan p = plan_of(&c);
    cr_assert(has_tier(&p, "one layer's weights") && !has_tier(&p, "head"));
    case_close(&c);
}

Test(plan, refuses_more_than_the_memory_and_says_what_to_change)
{
    calib_case c = case_open(
        "llama", (const char *[]){"calibration.samples=1000000", "calibration.sequence_length=1000000", NULL});
    qz_plan p;
    case_plan(&c);
    check_fails(QZ_MEMORY, "calibration.samples", make_plan(&p, &c, 10.0));
    cr_assert(strstr(qz_error_message(), "sequence_length") && strstr(qz_error_message(), "are available"), "%s",
              qz_error_message());
    cr_assert(p.memory_bytes > p.memory_available && p.memory_available > 0 && p.rows > 3, "the plan is not filled in");
    case_close(&c);
}

/* One linear of 2^46 weights with a scale for each: more than any disk. */
Test(plan, refuses_a_disk_without_room)
{
    calib_case c = case_open("llama", NULL);
    qz_plan p;
    case_plan(&c);
    qz_export_linear big = c.plan.linear[0];
    big.n = (int64_t)1 << 40;
    big.scheme.piece_cols = 1;
    c.plan.linear = &big;
    c.plan.linears = 1;
    check_fails(QZ_IO, "choose another output", make_plan(&p, &c, 0));
    cr_assert(p.disk_bytes > p.disk_free && p.seconds == 0);
    case_close(&c);
}
