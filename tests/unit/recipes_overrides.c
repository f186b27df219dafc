/* "overrides": an entry's members on top of the recipe's, which entry holds for a module, and mistakes with paths. */
#include "testing/recipe_case.h"

TestSuite(overrides, .init = setup, .fini = teardown);

/* FAKE_RECIPE with these overrides, and perhaps one more value set. */
static qz_status with(qz_recipe **out, const char *overrides, const char *path, const char *value)
{
    qz_override o[] = {{"overrides", overrides, "--set o", false}, {path, value, "--set x", false}};
    return recipe_parse(out, FAKE_RECIPE, o, path ? 2 : 1);
}

static qz_status parse(qz_recipe **out, const char *overrides)
{
    return with(out, overrides, NULL, NULL);
}

Test(overrides, own_members_on_top_of_the_recipes)
{
    qz_recipe *r;
    check_ok(parse(&r, "[{\"match\": [\"*.down_proj\", \"*.o_proj\"], \"weights\": {\"group\": 32}}]"));
    cr_assert_eq(r->overrides, 1);
    const qz_recipe_exception *e = &r->override[0];
    cr_assert_eq(e->match.count, 2);
    cr_assert_str_eq(e->match.pattern[1], "*.o_proj");
    cr_assert_eq(e->weights.group, 32);
    cr_assert_eq(e->weights.format, QZ_FORMAT_INT4);
    cr_assert_str_eq(e->weights.range.name, "shrink");
    cr_assert_eq(e->activations.mode, QZ_ACT_NONE);
    cr_assert_eq(r->weights.group, 128);
    check_canonical(r);
}

Test(overrides, the_last_match_holds)
{
    qz_recipe *r;
    const qz_recipe_weights *w;
    const qz_recipe_activations *a;
    check_ok(with(&r,
                  "[{\"match\": [\"*.mlp.*\"], \"weights\": {\"group\": 64}, \"activations\": null},"
                  " {\"match\": [\"down_proj\"], \"weights\": {\"format\": \"int8\"}},"
                  " {\"match\": [\"*.layers.0.*\"], \"skip\": true}]",
                  "activations", "{\"format\": \"int8\"}"));
    cr_assert(qz_recipe_module(r, "model.layers.1.mlp.up_proj", &w, &a));
    cr_assert(w->group == 64 && a->mode == QZ_ACT_NONE);
    cr_assert(qz_recipe_module(r, "model.layers.1.mlp.down_proj", &w, &a));
    cr_assert(w->group == 128 && w->format == QZ_FORMAT_INT8 && a->mode == QZ_ACT_TOKEN);
    cr_assert(qz_recipe_module(r, "model.layers.1.self_attn.q_proj", &w, &a));
    cr_assert(w == &r->weights && a == &r->activations);
    cr_assert_not(qz_recipe_module(r, "model.layers.0.mlp.down_proj", &w, &a));
    cr_assert_not(qz_recipe_module(r, "lm_head", &w, &a));
    check_canonical(r);
}

Test(overrides, skip_false_takes_back_what_the_recipe_skips)
{
    qz_recipe *r;
    const qz_recipe_weights *w;
    const qz_recipe_activations *a;
    check_ok(parse(&r, "[{\"match\": [\"lm_head\"], \"weights\": {\"format\": \"int8\"}}]"));
    cr_assert_not(qz_recipe_module(r, "lm_head", &w, &a));
    check_canonical(r);
    check_ok(parse(&r, "[{\"match\": [\"lm_head\"], \"skip\": false, \"weights\": {\"format\": \"int8\"}}]"));
    cr_assert(qz_recipe_module(r, "lm_head", &w, &a));
    cr_assert_eq(w->format, QZ_FORMAT_INT8);
    check_canonical(r);
}

Test(overrides, a_method_replaces_the_one_before_with_its_options)
{
    qz_recipe *r;
    const char *base =
        "{\"format\": \"int8\", \"mode\": \"static\", \"observer\": {\"method\": \"tail\", \"share\": 0.7}}";
    check_ok(with(&r, "[{\"match\": [\"a\"], \"activations\": {\"observer\": {\"method\": \"extremes\"}}}]",
                  "activations", base));
    cr_assert_str_eq(r->override[0].activations.observer.name, "extremes");
    cr_assert_eq(qz_options_number(&r->activations.observer.options, "share"), 0.7);
    check_canonical(r);
    check_ok(with(&r, "[{\"match\": [\"a\"], \"activations\": {\"mode\": \"dynamic\", \"observer\": null}}]",
                  "activations", base));
    cr_assert_eq(r->override[0].activations.mode, QZ_ACT_TOKEN);
    check_canonical(r);
}

/* What the warning of static scales proposes: the base's observer has nothing to say to a dynamic scale. */
Test(overrides, dynamic_inputs_on_a_static_base)
{
    qz_recipe *r;
    const char *base = "{\"format\": \"int8\", \"mode\": \"static\", \"observer\": \"tail\"}";
    check_ok(with(&r, "[{\"match\": [\"a\"], \"activations\": {\"mode\": \"dynamic\"}}]", "activations", base));
    cr_assert(r->override[0].activations.mode == QZ_ACT_TOKEN && !r->override[0].activations.observer.name);
    cr_assert(r->activations.mode == QZ_ACT_TENSOR);
    check_canonical(r);
    check_fails(QZ_ARG, "overrides.0.activations.observer: dynamic scales are not observed",
                with(&r, "[{\"match\": [\"a\"], \"activations\": {\"mode\": \"dynamic\", \"observer\": \"tail\"}}]",
                     "activations", base));
}

Test(overrides, mistakes_carry_the_entrys_path)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "r.json: overrides.0.weights.groop: unknown key; did you mean \"group\"? (from --set o)",
                parse(&r, "[{\"match\": [\"a\"], \"weights\": {\"groop\": 3}}]"));
    check_fails(QZ_ARG, "r.json: overrides.1.matsch: unknown key; did you mean \"match\"?",
                parse(&r, "[{\"match\": [\"a\"]}, {\"matsch\": [\"a\"]}]"));
    check_fails(QZ_ARG, "overrides.0.match: missing: linears that the entry is about", parse(&r, "[{}]"));
    check_fails(QZ_ARG, "overrides.0.match: found no pattern", parse(&r, "[{\"match\": []}]"));
    check_fails(QZ_ARG, "overrides.0.match.1: found 2, expected a string", parse(&r, "[{\"match\": [\"a\", 2]}]"));
    check_fails(QZ_ARG, "overrides.0.skip: found 1, expected true or false",
                parse(&r, "[{\"match\": [\"a\"], \"skip\": 1}]"));
    check_fails(QZ_ARG, "overrides.0.weights: found 3, expected an object",
                parse(&r, "[{\"match\": [\"a\"], \"weights\": 3}]"));
    check_fails(QZ_ARG, "overrides.0.weights.group: found \"block\", but int4 takes",
                parse(&r, "[{\"match\": [\"a\"], \"weights\": {\"group\": \"block\"}}]"));
    check_fails(QZ_ARG, "overrides.0.weights.solver: unknown solver \"x\"",
                parse(&r, "[{\"match\": [\"a\"], \"weights\": {\"solver\": \"x\"}}]"));
    check_fails(QZ_ARG, "overrides.0.activations.format: missing",
                parse(&r, "[{\"match\": [\"a\"], \"activations\": {\"mode\": \"static\"}}]"));
    check_fails(QZ_ARG, "r.json: overrides.0: found 1, expected an object", parse(&r, "[1]"));
    check_fails(QZ_ARG, "overrides: found an object of 0 members, expected an array of at most 32", parse(&r, "{}"));
}

Test(overrides, an_inherited_mistake_names_where_it_came_from)
{
    static const char text[] =
        "{\"version\": 1, \"model\": \"a\", \"output\": \"b\", \"export\": {\"container\": \"box\"},"
        "\"weights\": {\"format\": \"int4\"},"
        "\"overrides\": [{\"match\": [\"a\"], \"weights\": {\"format\": \"fp8_e4m3\"}}]}";
    qz_recipe *r;
    qz_override o = {"weights.group", "64", "--set x", false};
    check_ok(recipe_parse(&r, text, NULL, 0));
    check_fails(QZ_ARG,
                "overrides.0.weights.group: found 64, but fp8_e4m3 takes \"channel\", \"tensor\" or \"block\" "
                "(from --set x)",
                recipe_parse(&r, text, &o, 1));
    check_fails(QZ_ARG, "r.json: weights.range: unknown range \"64\"",
                recipe_parse(&r, text, &(qz_override){"weights.range", "\"64\"", "--set x", false}, 1));
}

Test(overrides, can_be_set)
{
    qz_recipe *r;
    check_ok(with(&r, "[{\"match\": [\"a\"], \"weights\": {\"group\": 32}}]", "overrides.0.skip", "true"));
    cr_assert(r->override[0].skip);
    check_ok(with(&r, "[{\"match\": [\"a\"], \"weights\": {\"group\": 32}}]", "overrides.0.weights.group", "16"));
    cr_assert_eq(r->override[0].weights.group, 16);
    check_ok(with(&r, "null", "overrides.0.match.0", "down_proj"));
    cr_assert_eq(r->overrides, 1);
    cr_assert_str_eq(r->override[0].match.pattern[0], "down_proj");
}
