/* The generated schema and reference mention what the table and the catalog hold. */
#include <stdio.h>

#include "base/json.h"
#include "testing/recipe_case.h"

TestSuite(schema, .init = setup, .fini = teardown);

/* Follows keys separated by '/'. */
static const qz_json_node *follow(const qz_json_node *node, const char *path)
{
    char part[64];
    while (node && *path) {
        size_t length = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        node = qz_json_get(node, part);
        path += length + (path[length] == '/');
    }
    return node;
}

Test(schema, is_json_and_says_what_the_table_says)
{
    char *text;
    qz_json *doc;
    check_ok(qz_recipe_schema(&text, &fake_catalog, arena));
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    const qz_json_node *root = qz_json_root(doc);
    const qz_json_node *group = follow(root, "properties/weights/properties/group");
    cr_assert(group && qz_json_is(qz_json_get(group, "oneOf"), QZ_JSON_ARRAY));
    cr_assert_str_eq(qz_json_text(qz_json_get(group, "default")), "channel");
    cr_assert_eq(qz_json_double(follow(root, "properties/calibration/properties/samples/default")), 128);
    cr_assert_str_eq(qz_json_text(follow(root, "properties/weights/properties/range/$ref")), "#/$defs/range");
    cr_assert_str_eq(qz_json_text(follow(root, "properties/weights/properties/range/default")), "plain");
    cr_assert_str_eq(qz_json_text(follow(root, "properties/transforms/items/$ref")), "#/$defs/transform");
    const qz_json_node *rows = follow(root, "$defs/transform/oneOf");
    cr_assert_eq(qz_json_count(rows), 3);
    const qz_json_node *scaling = qz_json_next(qz_json_first(rows));
    cr_assert_eq(qz_json_double(follow(scaling, "properties/grid/maximum")), 100);
    cr_assert_eq(qz_json_double(follow(scaling, "properties/damp/default")), 0.25);
    cr_assert_str_eq(qz_json_text(follow(scaling, "properties/norm/default")), "max");
    cr_assert_eq(qz_json_count(follow(root, "else/required")), 4);
    cr_assert_eq(qz_json_count(follow(root, "else/anyOf")), 2); /* weights or train */
    cr_assert_eq(qz_json_double(follow(root, "properties/train/properties/batch/default")), 8);
    cr_assert_eq(qz_json_count(follow(root, "then/required")), 1);
    cr_assert_not(qz_json_true(qz_json_get(root, "additionalProperties")));
    qz_json_close(doc);
}

/* What is laid over a recipe requires nothing but its folder, and null removes. */
Test(schema, entries_of_outputs_and_overrides)
{
    char *text;
    qz_json *doc;
    check_ok(qz_recipe_schema(&text, &fake_catalog, arena));
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    const qz_json_node *root = qz_json_root(doc);
    cr_assert_str_eq(qz_json_text(follow(root, "properties/outputs/items/$ref")), "#/$defs/output");
    cr_assert_str_eq(qz_json_text(follow(root, "properties/overrides/items/$ref")), "#/$defs/override");
    const qz_json_node *output = follow(root, "$defs/output"), *entry = follow(root, "$defs/override");
    cr_assert_eq(qz_json_count(qz_json_get(output, "required")), 1);
    cr_assert_null(follow(output, "properties/outputs"));
    const qz_json_node *weights = qz_json_first(follow(output, "properties/weights/anyOf"));
    cr_assert_str_eq(qz_json_text(qz_json_get(weights, "type")), "null");
    cr_assert_eq(qz_json_count(qz_json_get(qz_json_next(weights), "required")), 0);
    cr_assert_str_eq(qz_json_text(qz_json_first(qz_json_get(entry, "required"))), "match");
    cr_assert_not_null(
        follow(qz_json_next(qz_json_first(follow(entry, "properties/weights/anyOf"))), "properties/double_quant"));
    cr_assert_not_null(follow(root, "$defs/observer"));
    qz_json_close(doc);
}

Test(schema, plain_formats_are_not_offered)
{
    char *text;
    check_ok(qz_recipe_schema(&text, &fake_catalog, arena));
    cr_assert(strstr(text, "\"int4\"") && !strstr(text, "\"fp16\""));
}

Test(schema, reference_lists_keys_and_options)
{
    char *text;
    check_ok(qz_recipe_reference(&text, &fake_catalog, arena));
    cr_assert(
        strstr(text,
               "| `weights.group` | positive integer, `\"channel\"`, `\"tensor\"`, `\"block\"` | `\"channel\"` |"),
        "%s", text);
    cr_assert(strstr(text, "| `model` | text | required |"), "%s", text);
    cr_assert(strstr(text, "- `grid` (integer, 2 to 100, default 20): points of the search"), "%s", text);
    cr_assert(strstr(text, "`\"scaling\"`: moves scales (Someone 2023, eq. 4)"), "%s", text);
}

Test(schema, memory_may_be_short)
{
    char *text;
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "", qz_recipe_schema(&text, &fake_catalog, arena));
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "", qz_recipe_reference(&text, &fake_catalog, arena));
    qz_alloc_fail_at(0);
}
