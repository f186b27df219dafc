/* Recipes of plug-ins that do not exist: reading one, with values set, and what holds for each that could be read. */
#ifndef QZ_TESTING_RECIPE_CASE_H
#define QZ_TESTING_RECIPE_CASE_H

#include <stdio.h>

#include "testing/fake_catalog.h"
#include "testing/testing.h"

static qz_arena *arena;

static inline void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static inline void teardown(void)
{
    qz_arena_free(arena);
}

static inline qz_status recipe_parse(qz_recipe **out, const char *text, const qz_override *o, int count)
{
    return qz_recipe_parse(out, text, strlen(text), "r.json", &fake_catalog, o, count, arena);
}

/* With values set: "path=value", NULL-terminated. */
static inline qz_status recipe_with(qz_recipe **out, const char *text, const char *const *sets)
{
    enum { MOST = 8 };
    qz_override o[MOST];
    char paths[MOST][64];
    int count = 0;
    for (; sets[count]; count++) {
        const char *equals = strchr(sets[count], '=');
        cr_assert(count < MOST && equals);
        snprintf(paths[count], sizeof paths[count], "%.*s", (int)(equals - sets[count]), sets[count]);
        o[count] = (qz_override){paths[count], equals + 1, "--set", false};
    }
    return recipe_parse(out, text, o, count);
}

/* What was read is written as a text that reads back the same. */
static inline void check_canonical(const qz_recipe *r)
{
    qz_recipe *again;
    check_ok(qz_recipe_parse(&again, r->text, strlen(r->text), "again", &fake_catalog, NULL, 0, arena));
    cr_assert_str_eq(again->text, r->text);
    cr_assert_str_eq(again->hash, r->hash);
    cr_assert_eq(again->output_count, r->output_count);
    for (int i = 0; i < r->output_count; i++) cr_assert_str_eq(again->outputs[i]->hash, r->outputs[i]->hash);
}

#endif
