/* Patterns of module names. */
#include "recipes/recipes.h"
#include "testing/testing.h"

static bool one(const char *pattern, const char *module)
{
    qz_patterns p = {.pattern = {pattern}, .count = 1};
    return qz_patterns_match(&p, module);
}

Test(patterns, whole_name_and_last_part)
{
    cr_assert(one("lm_head", "lm_head"));
    cr_assert(one("down_proj", "model.layers.0.mlp.down_proj"));
    cr_assert(one("model.layers.0.mlp.down_proj", "model.layers.0.mlp.down_proj"));
    cr_assert_not(one("mlp", "model.layers.0.mlp.down_proj"));
    cr_assert_not(one("down", "model.layers.0.mlp.down_proj"));
    cr_assert_not(one("", "lm_head"));
}

Test(patterns, stars)
{
    cr_assert(one("*", "anything.at.all"));
    cr_assert(one("model.layers.0.*", "model.layers.0.mlp.down_proj"));
    cr_assert_not(one("model.layers.0.*", "model.layers.10.mlp.down_proj"));
    cr_assert(one("*.self_attn.*_proj", "model.layers.3.self_attn.q_proj"));
    cr_assert(one("q*", "model.layers.3.self_attn.q_proj"));
    cr_assert(one("a*b*c", "a1b2b3c"));
    cr_assert_not(one("a*b*c", "a1c2b"));
    cr_assert(one("**", "x"));
}

Test(patterns, any_of_the_list)
{
    qz_patterns p = {.pattern = {"lm_head", "*.0.*"}, .count = 2};
    cr_assert(qz_patterns_match(&p, "model.layers.0.mlp.up_proj"));
    cr_assert_not(qz_patterns_match(&p, "model.layers.1.mlp.up_proj"));
    p.count = 0;
    cr_assert_not(qz_patterns_match(&p, "lm_head"));
}
