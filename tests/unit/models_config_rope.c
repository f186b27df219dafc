/* The rotation's parameters: both forms of config.json, defaults, refusals. */
#include <math.h>

#include "models/rope.h"
#include "testing/testing.h"

static qz_status rope_of(qz_rope *r, const char *text)
{
    qz_json *doc;
    qz_model_config c = {.context = 2048};
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    qz_status status = qz_config_rope(&c, qz_json_root(doc));
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
    check_fails(QZ_UNSUPPORTED, "rope_scaling.rope_type: found \"longrope\", known are default, linear, llama3, yarn",
                rope_of(&r, "{\"rope_scaling\": {\"rope_type\": \"longrope\"}}"));
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
