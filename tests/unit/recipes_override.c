/* --set: dotted paths, members that are made, indices, strings and JSON, removal. */
#include "testing/recipe_case.h"

TestSuite(override, .init = setup, .fini = teardown);

static qz_status with(qz_recipe **out, const qz_override *o, int count)
{
    return recipe_parse(out, FAKE_RECIPE, o, count);
}

static qz_status set(qz_recipe **out, const char *path, const char *value)
{
    qz_override o = {path, value, "--set x", false};
    return with(out, &o, 1);
}

Test(override, replaces_and_makes)
{
    qz_recipe *r;
    qz_override o[] = {{"weights.group", "64", "--set", false},      {"calibration.shuffle", "true", "--set", false},
                       {"export.shard_size", "1GB", "--set", false}, {"transforms.0.grid", "7", "--set", false},
                       {"transforms.1", "turning", "--set", false},  {"weights.group", "32", "--set", false}};
    check_ok(with(&r, o, 6));
    cr_assert_eq(r->weights.group, 32);
    cr_assert(r->calibration.shuffle);
    cr_assert_eq(r->output_as.shard_bytes, 1000000000u);
    cr_assert_eq(qz_options_int(&r->transform[0].options, "grid"), 7);
    cr_assert_eq(r->transforms, 2);
    cr_assert_str_eq(r->transform[1].name, "turning");
    cr_assert_eq(r->calibration.samples, 16);
}

Test(override, makes_objects_on_the_way)
{
    qz_recipe *r;
    qz_override o[] = {{"evaluate", "null", "--set", false}, {"evaluate.data", "c.txt", "--set", false}};
    check_ok(with(&r, o, 1));
    cr_assert_not(r->evaluate.wanted);
    check_ok(with(&r, o, 2));
    cr_assert_str_eq(r->evaluate.data, "c.txt");
    cr_assert_eq(r->evaluate.accept_perplexity_ratio, 0);
}

Test(override, literal_is_a_string_whatever_it_looks_like)
{
    qz_recipe *r;
    qz_override o = {"model", "123", "--model", true};
    check_ok(with(&r, &o, 1));
    cr_assert_str_eq(r->model, "123");
    o.value = "{\"a\\\"";
    check_ok(with(&r, &o, 1));
    cr_assert_str_eq(r->model, "{\"a\\\"");
    o.literal = false;
    check_fails(QZ_ARG, "--model: line 1", with(&r, &o, 1));
}

Test(override, removes_from_arrays)
{
    qz_recipe *r;
    check_ok(set(&r, "weights.skip.0", "null"));
    cr_assert_eq(r->weights.skip.count, 0);
    check_ok(set(&r, "weights.skip.1", "*.mlp.*"));
    cr_assert_str_eq(r->weights.skip.pattern[1], "*.mlp.*");
    check_fails(QZ_ARG, "--set x: \"2\" is no index of an array with 1 elements", set(&r, "weights.skip.2", "a"));
    check_fails(QZ_ARG, "\"first\" is no index", set(&r, "weights.skip.first", "a"));
}

Test(override, bad_paths)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "empty part", set(&r, "", "1"));
    check_fails(QZ_ARG, "empty part", set(&r, "weights..group", "1"));
    check_fails(QZ_ARG, "empty part", set(&r, "weights.", "1"));
    check_fails(QZ_ARG, "too long", set(&r, "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a", "1"));
    check_fails(QZ_ARG, "--set x: \"model\" is a string (\"in\"), which has no members", set(&r, "model.x", "1"));
}

Test(override, the_message_names_the_option)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "(from --set x)", set(&r, "weights.group", "-3"));
    check_fails(QZ_ARG, "(from --set x)", set(&r, "weights", "{\"format\": \"int4\", \"group\": -3}"));
    qz_override o[] = {{"weights.groop", "1", "--set b", false}, {"weights.skip", "[]", "--set c", false}};
    check_fails(QZ_ARG, "(from --set b)", with(&r, o, 2));
}
