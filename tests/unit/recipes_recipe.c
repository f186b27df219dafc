/* Reading: values, defaults, and each kind of mistake with its JSON path. */
#include <stdio.h>

#include "testing/recipe_case.h"

TestSuite(recipe, .init = setup, .fini = teardown);

static qz_status parse(qz_recipe **out, const char *text)
{
    return recipe_parse(out, text, NULL, 0);
}

/* FAKE_RECIPE with one value set. */
static qz_status with(qz_recipe **out, const char *path, const char *value)
{
    qz_override o = {path, value, "--set", false};
    return recipe_parse(out, FAKE_RECIPE, &o, 1);
}

Test(recipe, values_and_defaults)
{
    qz_recipe *r;
    check_ok(parse(&r, FAKE_RECIPE));
    cr_assert_eq(r->version, 1);
    cr_assert_str_eq(r->model, "in");
    cr_assert_str_eq(r->output, "out");
    cr_assert_str_eq(r->backend, "auto");
    cr_assert_str_eq(r->calibration.data, "a.txt");
    cr_assert_str_eq(r->calibration.field, "text");
    cr_assert_eq(r->calibration.samples, 16);
    cr_assert_eq(r->calibration.sequence_length, 512);
    cr_assert_eq(r->calibration.seed, 0);
    cr_assert_not(r->calibration.shuffle);
    cr_assert_eq(r->calibration.activations, QZ_F32);
    cr_assert_eq(r->transforms, 1);
    cr_assert_str_eq(r->transform[0].name, "scaling");
    cr_assert_eq(qz_options_int(&r->transform[0].options, "grid"), 40);
    cr_assert(qz_options_bool(&r->transform[0].options, "weight_means"));
    cr_assert_eq(r->weights.format, QZ_FORMAT_INT4);
    cr_assert_eq(r->weights.group, 128);
    cr_assert_not(r->weights.symmetric);
    cr_assert_eq(r->weights.range.index, 1);
    cr_assert_str_eq(r->weights.solver.name, "nearest");
    cr_assert_eq(r->weights.skip.count, 1);
    cr_assert_str_eq(r->output_as.container.name, "box");
    cr_assert_eq(r->output_as.dtype, QZ_DTYPE_COUNT);
    cr_assert_eq(r->output_as.shard_bytes, 5000000000u);
    cr_assert_eq(r->output_as.pass_through.count, 0);
    cr_assert(r->evaluate.wanted);
    cr_assert_str_eq(r->evaluate.data, "b.txt");
    cr_assert_eq(r->evaluate.windows, 0);
    cr_assert_eq(r->evaluate.accept_perplexity_ratio, 1.05);
}

Test(recipe, smallest)
{
    qz_recipe *r;
    check_ok(parse(&r, "{\"$schema\": \"recipe.schema.json\", \"version\": 1, \"model\": \"a\", \"output\": \"b\","
                       "\"weights\": {\"format\": \"int8\"}, \"export\": {\"container\": {\"method\": \"box\"}}}"));
    cr_assert_eq(r->weights.group, 0);
    cr_assert_null(r->calibration.data);
    cr_assert_not(r->evaluate.wanted);
    cr_assert_str_eq(r->weights.range.name, "plain");
    qz_scheme s = qz_weights_scheme(&r->weights, QZ_F16);
    cr_assert(s.format == QZ_FORMAT_INT8 && s.piece_rows == 1 && s.piece_cols == 0 && s.scale_type == QZ_F16);
}

Test(recipe, options_of_every_type)
{
    qz_recipe *r;
    check_ok(with(&r, "transforms.0",
                  "{\"method\": \"scaling\", \"weight_means\": false, \"damp\": 0.5, "
                  "\"norm\": \"mean\"}"));
    const qz_options *o = &r->transform[0].options;
    cr_assert_eq(qz_options_int(o, "grid"), 20);
    cr_assert_not(qz_options_bool(o, "weight_means"));
    cr_assert_eq(qz_options_number(o, "damp"), 0.5);
    cr_assert_str_eq(qz_options_choice(o, "norm"), "mean");
}

Test(recipe, malformed_json_says_where)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "r.json: line 2, column", parse(&r, "{ \"version\": 1,\n  \"model\" \"x\" }"));
    check_fails(QZ_ARG, "r.json: line", parse(&r, "{ \"version\": 1, \"model\": \"x\""));
    check_fails(QZ_ARG, "r.json: line 1", parse(&r, ""));
    check_fails(QZ_ARG, "expected an object", parse(&r, "[]"));
    cr_assert_null(r);
}

Test(recipe, version_comes_first)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "version: found 2; this program", parse(&r, "{ \"version\": 2, \"wieghts\": {} }"));
    check_fails(QZ_ARG, "reads recipes of version 1", with(&r, "version", "\"1\""));
    check_fails(QZ_ARG, "version: missing", parse(&r, "{ \"model\": \"a\" }"));
}

Test(recipe, unknown_key_names_the_nearest)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "weights.groop: unknown key; did you mean \"group\"?", with(&r, "weights.groop", "64"));
    check_fails(QZ_ARG, "r.json: calibraton: unknown key; did you mean \"calibration\"?", with(&r, "calibraton", "{}"));
    check_fails(QZ_ARG, "evaluate.accept.ppl: unknown key", with(&r, "evaluate.accept.ppl", "1"));
    check_fails(QZ_ARG, "perplexity_ratio", with(&r, "evaluate.accept.zzz", "1"));
    check_fails(QZ_ARG, "weights.$schema: unknown key", with(&r, "weights.$schema", "1"));
}

Test(recipe, missing_key)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "model: missing", with(&r, "model", "null"));
    check_fails(QZ_ARG, "weights: missing", with(&r, "weights", "null"));
    check_fails(QZ_ARG, "weights.format: missing", with(&r, "weights.format", "null"));
    check_fails(QZ_ARG, "export.container: missing", with(&r, "export.container", "null"));
    check_fails(QZ_ARG, "evaluate.data: missing", with(&r, "evaluate.data", "null"));
    check_fails(QZ_ARG, "transforms.0.method: missing", with(&r, "transforms.0.method", "null"));
}

Test(recipe, wrong_type)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "model: found 3, expected a string", with(&r, "model", "3"));
    check_fails(QZ_ARG, "model: found \"\", expected", with(&r, "model", ""));
    check_fails(QZ_ARG, "weights: found an array of 0 elements, expected an object", with(&r, "weights", "[]"));
    check_fails(QZ_ARG, "calibration.samples: found \"many\", expected an integer",
                with(&r, "calibration.samples", "many"));
    check_fails(QZ_ARG, "calibration.samples: found 1.5, expected an integer", with(&r, "calibration.samples", "1.5"));
    check_fails(QZ_ARG, "calibration.shuffle: found 1, expected true or false", with(&r, "calibration.shuffle", "1"));
    check_fails(QZ_ARG, "weights.format: found 4, expected a name", with(&r, "weights.format", "4"));
    check_fails(QZ_ARG, "weights.skip: found \"x\", expected an array", with(&r, "weights.skip", "x"));
    check_fails(QZ_ARG, "weights.skip.0: found 1, expected a string", with(&r, "weights.skip", "[1]"));
    check_fails(QZ_ARG, "transforms: found an object of 0 members, expected an array", with(&r, "transforms", "{}"));
    check_fails(QZ_ARG, "transforms.0: found 1, expected a name, or an object", with(&r, "transforms", "[1]"));
    check_fails(QZ_ARG, "weights.range.method: found 1, expected a name", with(&r, "weights.range", "{\"method\":1}"));
    check_fails(QZ_ARG, "perplexity_ratio: found \"x\"", with(&r, "evaluate.accept.perplexity_ratio", "x"));
    check_fails(QZ_ARG, "export.shard_size: found \"5 apples\"", with(&r, "export.shard_size", "5 apples"));
}

Test(recipe, out_of_range)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "from 0 to 1000000", with(&r, "calibration.samples", "-1"));
    check_fails(QZ_ARG, "from 2 to 1000000", with(&r, "calibration.sequence_length", "1"));
    check_fails(QZ_ARG, "calibration.seed: found", with(&r, "calibration.seed", "1e30"));
    check_fails(QZ_ARG, "weights.group: found 0, expected a positive integer, \"channel\"",
                with(&r, "weights.group", "0"));
    check_fails(QZ_ARG, "weights.group: found \"row\"", with(&r, "weights.group", "row"));
    check_fails(QZ_ARG, "transforms.0.grid: found 1, expected an integer from 2 to 100",
                with(&r, "transforms.0.grid", "1"));
    check_fails(QZ_ARG, "transforms.0.grid: found 2.5", with(&r, "transforms.0.grid", "2.5"));
    check_fails(QZ_ARG, "transforms.0.damp: found 2, expected a number from 0 to 1",
                with(&r, "transforms.0.damp", "2"));
    check_fails(QZ_ARG, "from 0.5 to 1000", with(&r, "evaluate.accept.perplexity_ratio", "0"));
    check_fails(QZ_ARG, "export.shard_size: found 0", with(&r, "export.shard_size", "0"));
    check_fails(QZ_ARG, "at most 8", with(&r, "transforms", "[1,1,1,1,1,1,1,1,1]"));
}

Test(recipe, unknown_plugin_lists_those_that_exist)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "weights.range: unknown range \"shrinck\"; did you mean \"shrink\"? There are: plain, shrink",
                with(&r, "weights.range", "shrinck"));
    check_fails(QZ_ARG, "transforms.0.method: unknown transform", with(&r, "transforms.0.method", "rotate"));
    check_fails(QZ_ARG, "unknown solver", with(&r, "weights.solver", "{\"method\": \"x\"}"));
    check_fails(QZ_ARG, "There are: box", with(&r, "export.container", "boxes"));
    check_fails(QZ_ARG, "backend: unknown backend \"gpu\"", with(&r, "backend", "gpu"));
    check_fails(QZ_ARG, "weights.format: unknown format \"int44\"; did you mean \"int4\"?",
                with(&r, "weights.format", "int44"));
    check_fails(QZ_ARG, "unknown format \"bf16\"", with(&r, "weights.format", "bf16"));
    check_ok(with(&r, "backend", "here"));
}

Test(recipe, unknown_option)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "transforms.0.gird: unknown option of \"scaling\" \"gird\"; did you mean \"grid\"?",
                with(&r, "transforms.0.gird", "4"));
    check_fails(QZ_ARG, "weights.range.grid: unknown option of \"plain\"",
                with(&r, "weights.range", "{\"method\": \"plain\", \"grid\": 3}"));
    check_fails(QZ_ARG, "unknown norm \"men\"; did you mean \"mean\"", with(&r, "transforms.0.norm", "men"));
    check_fails(QZ_ARG, "transforms.0.weight_means: found 1, expected true or false",
                with(&r, "transforms.0.weight_means", "1"));
}

Test(recipe, impossible_combinations)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "transforms.0: the transform \"scaling\" needs statistics", with(&r, "calibration", "null"));
    check_fails(QZ_ARG, "calibration.samples is 0", with(&r, "calibration.samples", "0"));
    check_fails(QZ_ARG, "output: found \"in\", which is the model", with(&r, "output", "in"));
    static const char text[] =
        "{\"version\": 1, \"model\": \"a\", \"output\": \"b\", \"export\": {\"container\": \"box\"},"
        "\"weights\": {\"format\": \"fp8_e4m3\" %s}}";
    char full[512];
    snprintf(full, sizeof full, text, ", \"symmetric\": false");
    check_fails(QZ_ARG, "weights.symmetric: found false, but fp8_e4m3 has no zero points", parse(&r, full));
    snprintf(full, sizeof full, text, ", \"group\": 128");
    check_fails(QZ_ARG, "weights.group: found 128, but fp8_e4m3 takes \"channel\"", parse(&r, full));
    snprintf(full, sizeof full, text, ", \"range\": \"shrink\"");
    check_fails(QZ_ARG, "weights.range: the range \"shrink\" needs statistics", parse(&r, full));
    snprintf(full, sizeof full, text, ", \"solver\": \"careful\"");
    check_fails(QZ_ARG, "calibration.data is missing", parse(&r, full));
    snprintf(full, sizeof full, text, "");
    check_ok(parse(&r, full));
    cr_assert(r->weights.symmetric);
}

Test(recipe, sizes)
{
    qz_recipe *r;
    check_ok(with(&r, "export.shard_size", "300"));
    cr_assert_eq(r->output_as.shard_bytes, 300);
    check_ok(with(&r, "export.shard_size", "2GiB"));
    cr_assert_eq(r->output_as.shard_bytes, 2147483648u);
    check_ok(with(&r, "export.shard_size", "7 MB"));
    cr_assert_eq(r->output_as.shard_bytes, 7000000);
    check_fails(QZ_ARG, "export.shard_size", with(&r, "export.shard_size", "99999999999999999999GB"));
}

Test(recipe, file)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "no/such.json", qz_recipe_read(&r, "no/such.json", &fake_catalog, NULL, 0, arena));
    const char *path = test_path("r.json");
    test_write_file(path, FAKE_RECIPE, strlen(FAKE_RECIPE));
    check_ok(qz_recipe_read(&r, path, &fake_catalog, NULL, 0, arena));
    cr_assert_eq(r->weights.group, 128);
}

/* Every allocation may fail; the answer is then QZ_MEMORY and no recipe. */
Test(recipe, memory_may_be_short)
{
    qz_recipe *r;
    long n = 1;
    for (; n < 10000; n++) {
        qz_alloc_fail_at(n);
        qz_status status = parse(&r, FAKE_RECIPE);
        qz_alloc_fail_at(0);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
        cr_assert_null(r);
    }
    cr_assert(n > 3 && n < 10000);
}
