/* "outputs": each entry laid over the rest, what must be the same in all, and mistakes with paths. */
#include <stdio.h>

#include "testing/recipe_case.h"

TestSuite(outputs, .init = setup, .fini = teardown);

#define COMMON                                                                                                         \
    "\"version\": 1, \"model\": \"in\", \"calibration\": {\"data\": \"a.txt\"}, \"evaluate\": {\"data\": \"b.txt\"},"  \
    "\"weights\": {\"format\": \"int4\", \"group\": 128}, \"export\": {\"container\": \"box\"}"

/* COMMON with outputs, and perhaps one value set. */
static qz_status with(qz_recipe **out, const char *outputs, const char *path, const char *value)
{
    char text[2048];
    qz_override o = {path, value, "--set x", false};
    int length = snprintf(text, sizeof text, "{" COMMON ", \"outputs\": %s}", outputs);
    cr_assert(length > 0 && (size_t)length < sizeof text);
    return recipe_parse(out, text, &o, path != NULL);
}

static qz_status parse(qz_recipe **out, const char *outputs)
{
    return with(out, outputs, NULL, NULL);
}

static const char two[] = "[{\"output\": \"x\"}, {\"output\": \"y\", \"weights\": {\"group\": 64, \"solver\": "
                          "\"careful\"}, \"evaluate\": {\"accept\": {\"kl\": 0.5}}}]";

Test(outputs, each_is_a_recipe_of_its_own)
{
    qz_recipe *r;
    check_ok(parse(&r, two));
    cr_assert_eq(r->output_count, 2);
    const qz_recipe *a = r->outputs[0], *b = r->outputs[1];
    cr_assert(a->output_count == 0 && b->output_count == 0);
    cr_assert_str_eq(a->output, "x");
    cr_assert_str_eq(b->output, "y");
    cr_assert(a->weights.group == 128 && b->weights.group == 64);
    cr_assert_str_eq(b->weights.solver.name, "careful");
    cr_assert_eq(b->weights.format, QZ_FORMAT_INT4);
    cr_assert_eq(b->evaluate.accept_kl, 0.5);
    cr_assert_str_eq(b->evaluate.data, "b.txt");
    cr_assert_str_neq(a->hash, b->hash);
    cr_assert_str_eq(r->model, "in");
    cr_assert_str_eq(r->calibration.data, "a.txt");
    check_canonical(r);
}

Test(outputs, a_recipe_without_outputs_is_one)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "output: missing", with(&r, "[]", "outputs", "null"));
    check_ok(recipe_parse(&r, FAKE_RECIPE, NULL, 0));
    cr_assert_eq(r->output_count, 0);
}

Test(outputs, lists_are_replaced_and_null_removes)
{
    qz_recipe *r;
    check_ok(parse(&r, "[{\"output\": \"x\", \"transforms\": [\"scaling\"], \"overrides\": [{\"match\": [\"a\"], "
                       "\"weights\": {\"group\": 32}}]}, {\"output\": \"y\", \"weights\": {\"group\": null}}]"));
    cr_assert(r->outputs[0]->transforms == 1 && r->outputs[1]->transforms == 0);
    cr_assert_eq(r->outputs[0]->override[0].weights.group, 32);
    cr_assert_eq(r->outputs[1]->overrides, 0);
    cr_assert_eq(r->outputs[1]->weights.group, QZ_GROUP_CHANNEL);
    check_canonical(r);
}

Test(outputs, set_reaches_those_that_do_not_say_otherwise)
{
    qz_recipe *r;
    check_ok(with(&r, two, "weights.group", "32"));
    cr_assert(r->outputs[0]->weights.group == 32 && r->outputs[1]->weights.group == 64);
    check_ok(with(&r, two, "outputs.1.weights.group", "16"));
    cr_assert(r->outputs[0]->weights.group == 128 && r->outputs[1]->weights.group == 16);
    check_ok(with(&r, two, "calibration.data", "c.txt"));
    cr_assert_str_eq(r->outputs[1]->calibration.data, "c.txt");
    check_ok(with(&r, two, "outputs.2", "{\"output\": \"z\", \"weights\": {\"format\": \"int8\"}}"));
    cr_assert_eq(r->output_count, 3);
}

Test(outputs, mistakes_carry_the_entrys_path)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "r.json: outputs.1.weights.group: found -1, expected a positive integer",
                parse(&r, "[{\"output\": \"x\"}, {\"output\": \"y\", \"weights\": {\"group\": -1}}]"));
    check_fails(QZ_ARG, "r.json: outputs.0.weights.groop: unknown key; did you mean \"group\"?",
                parse(&r, "[{\"output\": \"x\", \"weights\": {\"groop\": 1}}]"));
    check_fails(QZ_ARG, "outputs.0.overrides.1.weights.group: found \"block\"",
                parse(&r, "[{\"output\": \"x\", \"overrides\": [{\"match\": [\"a\"]}, {\"match\": [\"b\"], "
                          "\"weights\": {\"group\": \"block\"}}]}]"));
    check_fails(QZ_ARG, "outputs.1.output: missing: each of \"outputs\" names a folder of its own",
                parse(&r, "[{\"output\": \"x\"}, {}]"));
    check_fails(QZ_ARG, "r.json: outputs.1: found 3, expected an object", parse(&r, "[{\"output\": \"x\"}, 3]"));
    check_fails(QZ_ARG, "outputs: found an array of 0 elements, expected an array of 1 to 16", parse(&r, "[]"));
    check_fails(QZ_ARG, "outputs.0.outputs: an output has no outputs",
                parse(&r, "[{\"output\": \"x\", \"outputs\": []}]"));
    check_fails(QZ_ARG, "outputs.0.output: found \"in\", which is the model", parse(&r, "[{\"output\": \"in\"}]"));
    cr_assert_null(r);
}

Test(outputs, mistakes_outside_are_reported_there)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "r.json: weights.groop: unknown key", with(&r, two, "weights.groop", "1"));
    check_fails(QZ_ARG, "r.json: weights.group: found 0", with(&r, two, "weights.group", "0"));
    check_fails(QZ_ARG,
                "outputs.0.weights.group: found \"block\", but int4 takes a number of inputs, \"channel\" or "
                "\"tensor\"; blocks are for fp8 (from --set x)",
                with(&r, two, "weights.group", "block"));
    check_fails(QZ_ARG, "r.json: version: found 2", with(&r, two, "version", "2"));
    check_fails(QZ_ARG, "outputs.0.model: missing", with(&r, two, "model", "null"));
}

Test(outputs, share_one_pass)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "outputs.1.model: differs from that of outputs.0, but all outputs come from one pass",
                with(&r, two, "outputs.1.model", "other"));
    check_fails(QZ_ARG, "outputs.1.calibration.samples: differs", with(&r, two, "outputs.1.calibration.samples", "3"));
    check_fails(QZ_ARG, "outputs.1.evaluate.data: differs", with(&r, two, "outputs.1.evaluate.data", "c.txt"));
    check_fails(QZ_ARG, "outputs.1.evaluate.windows: differs", with(&r, two, "outputs.0.evaluate.windows", "3"));
    check_ok(with(&r, two, "outputs.1.calibration.data", "a.txt"));
}

Test(outputs, have_folders_of_their_own)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "outputs.1.output: found \"x\", which is also the folder of outputs.0",
                parse(&r, "[{\"output\": \"x\"}, {\"output\": \"x\"}]"));
    check_fails(QZ_ARG, "outputs.1.output: found \"./x/\", which is also the folder of outputs.0",
                parse(&r, "[{\"output\": \"x\"}, {\"output\": \"./x/\"}]"));
    check_fails(QZ_ARG, "outputs.0.output: found \"x/b\", which lies inside outputs.1",
                parse(&r, "[{\"output\": \"x/b\"}, {\"output\": \"x\"}]"));
    check_ok(parse(&r, "[{\"output\": \"x\"}, {\"output\": \"xy\"}]"));
    check_fails(QZ_ARG, "output: the recipe has \"outputs\", and each names its own folder",
                with(&r, two, "output", "o"));
}

Test(outputs, quantized_propagation_needs_one_scheme)
{
    qz_recipe *r;
    check_fails(QZ_ARG,
                "calibration.propagate: found \"quantized\", but outputs.0 and outputs.1 differ in weights.group",
                with(&r, two, "calibration.propagate", "quantized"));
    check_ok(with(&r, "[{\"output\": \"x\"}, {\"output\": \"y\", \"export\": {\"dtype\": \"float16\"}}]",
                  "calibration.propagate", "quantized"));
    check_ok(with(&r, two, "calibration.propagate", "original"));
    check_fails(QZ_ARG, "differ in activations",
                with(&r, "[{\"output\": \"x\"}, {\"output\": \"y\", \"activations\": {\"format\": \"int8\"}}]",
                     "calibration.propagate", "quantized"));
}

/* Every allocation may fail; the answer is then QZ_MEMORY and no recipe. */
Test(outputs, memory_may_be_short)
{
    qz_recipe *r;
    long n = 1;
    for (; n < 100000; n++) {
        qz_alloc_fail_at(n);
        qz_status status = with(&r, two, "overrides", "[{\"match\": [\"a\"], \"skip\": true}]");
        qz_alloc_fail_at(0);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
        cr_assert_null(r);
    }
    cr_assert(n > 3 && n < 100000);
}
