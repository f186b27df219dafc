/* The rotation's parameters: both forms of config.json, defaults, refusals. */
#include <math.h>

#include "models/rope.h"
#include "testing/testing.h"

static qz_arena *arena; /* of the factors */
static qz_family family;

static void begin(void)
{
    check_ok(qz_arena_new(&arena, "test"));
    family = (qz_family){0};
}

static void tidy(void)
{
    qz_arena_free(arena);
}

TestSuite(config_rope, .init = begin, .fini = tidy);

static qz_status rope_of(qz_rope *r, const char *text)
{
    qz_json *doc;
    qz_model_config c = {.context = 2048, .head_dim = 8};
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    qz_status status = qz_config_rope(&c, qz_json_root(doc), &family, arena);
    *r = c.rope;
    qz_json_close(doc);
    return status;
}

Test(config_rope, theta_from_either_place)
{
    qz_rope r;
    check_ok(rope_of(&r, "{}"));
    cr_assert(r.kind == QZ_ROPE_DEFAULT && r.theta == 10000 && r.factor == 1 && r.attention_factor == 1);
    check_ok(rope_of(&r, "{\"rope_theta\": 5e5, \"rope_scaling\": null}"));
    cr_assert(r.theta == 5e5);
    check_ok(
        rope_of(&r, "{\"rope_theta\": 5e5, \"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"default\"}}"));
    cr_assert(r.theta == 1e6);
    check_ok(rope_of(&r, "{\"rope_theta\": 5e5, \"rope_parameters\": {\"rope_type\": \"default\"}}"));
    cr_assert(r.theta == 5e5);
}

Test(config_rope, linear_under_either_key)
{
    qz_rope r;
    check_ok(rope_of(&r, "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}}"));
    cr_assert(r.kind == QZ_ROPE_LINEAR && r.factor == 2);
    check_ok(rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"linear\", \"type\": \"ntk\", \"factor\": 4}}"));
    cr_assert(r.kind == QZ_ROPE_LINEAR && r.factor == 4);
}

Test(config_rope, llama3_needs_all_four)
{
    qz_rope r;
    check_ok(rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}}"));
    cr_assert(r.kind == QZ_ROPE_LLAMA3 && r.low_freq_factor == 1 && r.high_freq_factor == 4 &&
              r.original_context == 64);
    check_fails(QZ_FORMAT, "rope_scaling.low_freq_factor",
                rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}"));
    check_fails(QZ_FORMAT, "rope_scaling.high_freq_factor: found 1",
                rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                            "\"high_freq_factor\": 1, \"original_max_position_embeddings\": 64}}"));
}

Test(config_rope, yarn_defaults_and_scales)
{
    qz_rope r;
    check_ok(rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8}}"));
    cr_assert(r.original_context == 2048 && r.beta_fast == 32 && r.beta_slow == 1 && r.truncate);
    cr_assert_float_eq(r.attention_factor, 0.1 * log(8) + 1, 1e-12);
    check_ok(
        rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8, \"mscale\": 2, \"mscale_all_dim\": 1, "
                    "\"truncate\": false}}"));
    cr_assert_float_eq(r.attention_factor, (0.2 * log(8) + 1) / (0.1 * log(8) + 1), 1e-12);
    cr_assert(!r.truncate);
    check_fails(QZ_FORMAT, "rope_scaling.beta_fast: found 1",
                rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8, \"beta_fast\": 1}}"));
}

Test(config_rope, refusals_name_the_field)
{
    qz_rope r;
    check_fails(QZ_UNSUPPORTED,
                "rope_scaling.rope_type: found \"mrope\", known are default, linear, llama3, yarn, longrope",
                rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"mrope\"}}"));
    check_fails(QZ_UNSUPPORTED, "rope_scaling.type: found \"dynamic\"",
                rope_of(&r, "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}"));
    check_fails(QZ_FORMAT, "rope_scaling: found a number", rope_of(&r, "{\"rope_scaling\": 2}"));
    check_fails(QZ_FORMAT, "rope_scaling.type", rope_of(&r, "{\"rope_scaling\": {\"type\": 2}}"));
    check_fails(QZ_FORMAT, "rope_scaling.factor", rope_of(&r, "{\"rope_scaling\": {\"type\": \"linear\"}}"));
    check_fails(QZ_FORMAT, "rope_scaling.factor",
                rope_of(&r, "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}}"));
    check_fails(QZ_FORMAT, "rope_theta", rope_of(&r, "{\"rope_theta\": 0}"));
    check_fails(QZ_FORMAT, "rope_theta", rope_of(&r, "{\"rope_theta\": \"big\"}"));
    check_fails(QZ_UNSUPPORTED, "partial_rotary_factor: found 0.5", rope_of(&r, "{\"partial_rotary_factor\": 0.5}"));
    check_fails(QZ_UNSUPPORTED, "rope_parameters.full_attention: found an object",
                rope_of(&r, "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}"));
}

Test(config_rope, theta_of_the_family)
{
    qz_rope r;
    family.default_theta = 1e6;
    check_ok(rope_of(&r, "{}"));
    cr_assert(r.theta == 1e6 && r.dims == 8);
    check_ok(rope_of(&r, "{\"rope_theta\": 500.0}"));
    cr_assert(r.theta == 500);
}

Test(config_rope, a_part_of_each_head_where_the_family_does_that)
{
    qz_rope r;
    family.partial_rotation = true;
    check_ok(rope_of(&r, "{\"partial_rotary_factor\": 0.75}"));
    cr_assert(r.dims == 6);
    check_ok(rope_of(&r, "{\"rope_parameters\": {\"partial_rotary_factor\": 0.5}}"));
    cr_assert(r.dims == 4);
    check_fails(QZ_FORMAT, "partial_rotary_factor: found 0.4, which makes 3 channels of 8",
                rope_of(&r, "{\"partial_rotary_factor\": 0.4}"));
    check_fails(QZ_FORMAT, "which makes 0 channels", rope_of(&r, "{\"partial_rotary_factor\": 0}"));
}

#define SHORT "\"short_factor\": [1, 1.5, 2, 4]"
#define LONG "\"long_factor\": [1, 3, 9, 27]"

Test(config_rope, long_with_factors)
{
    qz_rope r;
    check_ok(rope_of(&r, "{\"original_max_position_embeddings\": 128, \"rope_scaling\": {\"type\": \"longrope\", " SHORT
                         ", " LONG "}}"));
    cr_assert(r.kind == QZ_ROPE_LONG && r.original_context == 128 && r.factor == 16);
    cr_assert(r.factors[1] == 1.5f && r.far_factors[3] == 27);
    cr_assert_float_eq(r.attention_factor, sqrt(1 + log(16) / log(128)), 1e-12);
    check_ok(rope_of(&r, "{\"rope_parameters\": {\"rope_type\": \"longrope\", \"attention_factor\": 1.25, " SHORT
                         ", " LONG ", \"original_max_position_embeddings\": 64}}"));
    cr_assert(r.original_context == 64 && r.attention_factor == 1.25);
    check_ok(rope_of(&r, "{\"rope_scaling\": {\"type\": \"su\", " SHORT ", " LONG "}}"));
    cr_assert(r.original_context == 2048 && r.attention_factor == 1);
}

Test(config_rope, long_needs_a_factor_for_each_frequency)
{
    qz_rope r;
    check_fails(QZ_FORMAT, "rope_scaling.long_factor: found null",
                rope_of(&r, "{\"rope_scaling\": {\"type\": \"longrope\", " SHORT "}}"));
    check_fails(QZ_FORMAT,
                "rope_scaling.short_factor: found an array of 1, expected an array with a number for each of 4",
                rope_of(&r, "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1]}}"));
    check_fails(QZ_FORMAT, "rope_scaling.short_factor",
                rope_of(&r, "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 0, 1]}}"));
}
