/* The canonical text: one for all ways of writing the same recipe, and it reads back as itself. */
#include <stdio.h>

#include "testing/recipe_case.h"

TestSuite(canonical, .init = setup, .fini = teardown);

static qz_recipe *parse(const char *text)
{
    qz_recipe *r;
    check_ok(recipe_parse(&r, text, NULL, 0));
    return r;
}

Test(canonical, reads_back_as_itself)
{
    static const char *const recipes[] = {
        FAKE_RECIPE,
        "{\"version\":1,\"model\":\"a\",\"output\":\"b\",\"weights\":{\"format\":\"fp8_e5m2\"},"
        "\"export\":{\"container\":\"box\",\"dtype\":\"bfloat16\",\"shard_size\":\"1KiB\"}}",
        "{\"version\":1,\"model\":\"a\",\"output\":\"b\",\"weights\":{\"format\":\"int3\",\"symmetric\":true},"
        "\"transforms\":[\"turning\"],\"export\":{\"container\":\"box\",\"pass_through\":[\"x.*\",\"\\u00fc\\n\"]},"
        "\"evaluate\":{\"data\":\"d\"}}",
    };
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        qz_recipe *a = parse(recipes[i]), *b = parse(a->text);
        cr_assert_str_eq(a->text, b->text);
        cr_assert_str_eq(a->hash, b->hash);
        cr_assert_eq(strlen(a->hash), 32);
    }
}

Test(canonical, spelling_does_not_matter_and_values_do)
{
    static const char head[] =
        "{\"model\":\"a\",\"version\":1,\"output\":\"b\",\"export\":{\"container\":\"box\"},\"weights\":%s}";
    static const char *const same[] = {
        "{\"format\":\"int4\"}",
        "{\"group\":\"channel\",\"format\":\"int4\"}",
        ("{\"format\":\"int4\",\"range\":{\"method\":\"plain\"},\"solver\":\"nearest\",\"skip\":[\"lm_head\"],"
         "\"symmetric\":false}"),
    };
    char text[512];
    snprintf(text, sizeof text, head, same[0]);
    const qz_recipe *first = parse(text);
    for (size_t i = 1; i < 3; i++) {
        snprintf(text, sizeof text, head, same[i]);
        cr_assert_str_eq(parse(text)->hash, first->hash);
    }
    snprintf(text, sizeof text, head, "{\"format\":\"int4\",\"symmetric\":true}");
    cr_assert_str_neq(parse(text)->hash, first->hash);
}

Test(canonical, holds_every_option)
{
    const qz_recipe *r = parse(FAKE_RECIPE);
    cr_assert(strstr(r->text, "\"grid\":40") && strstr(r->text, "\"weight_means\":true"), "%s", r->text);
    cr_assert(strstr(r->text, "\"damp\":0.25") && strstr(r->text, "\"norm\":\"max\""), "%s", r->text);
    cr_assert(strstr(r->text, "\"shard_size\":5000000000"), "%s", r->text);
}
