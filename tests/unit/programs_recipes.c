/* Every recipe in recipes/ reads against the plug-ins that there are, and its canonical text reads back as itself. */
#include <stdio.h>

#include "base/file.h"
#include "programs/catalog.h"
#include "testing/testing.h"

static const char *const shipped[] = {"awq-llama",
                                      "gptq-w4",
                                      "gptq-w3",
                                      "smoothquant-w8a8-static",
                                      "int8-dynamic",
                                      "w4a8",
                                      "fp8-static",
                                      "fp8-dynamic",
                                      "fp8-block",
                                      "nf4",
                                      "kv-fp8",
                                      "export-many",
                                      "qat-w3",
                                      "qat-w2",
                                      "qlora",
                                      "pretrain-demo",
                                      NULL};

static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(programs_recipes, .init = setup, .fini = teardown);

static bool is_recipe(const char *file)
{
    size_t n = strlen(file);
    return n > 5 && strcmp(file + n - 5, ".json") == 0 && strcmp(file, "recipe.schema.json") != 0;
}

static void check_recipe(const char *path)
{
    qz_recipe_catalog catalog = qz_catalog();
    qz_recipe *recipe = NULL, *again = NULL;
    check_ok(qz_recipe_read(&recipe, path, &catalog, NULL, 0, arena));
    check_ok(qz_recipe_parse(&again, recipe->text, strlen(recipe->text), path, &catalog, NULL, 0, arena));
    cr_expect_str_eq(again->text, recipe->text, "%s", path);
    cr_expect(recipe->evaluate.accept_perplexity_ratio > 1, "%s accepts nothing", path);
}

Test(programs_recipes, all_in_the_folder_are_right)
{
    char **names;
    size_t count;
    check_ok(qz_folder_list(&names, &count, "recipes", arena));
    for (size_t i = 0; i < count; i++)
        if (is_recipe(names[i])) check_recipe(qz_path_join(arena, "recipes", names[i]));
}

Test(programs_recipes, those_that_the_documents_name_are_there)
{
    for (const char *const *name = shipped; *name; name++) {
        char path[128];
        snprintf(path, sizeof path, "recipes/%s.json", *name);
        cr_expect(qz_path_exists(path), "%s is missing", path);
    }
}

/* One value for a whole recipe with outputs, as `--set weights.group=64` is meant. */
Test(programs_recipes, a_group_that_is_set_reaches_the_outputs_that_have_one)
{
    qz_recipe_catalog catalog = qz_catalog();
    qz_recipe *recipe = NULL;
    qz_override group = {"weights.group", "64", "--set weights.group=64", false};
    check_ok(qz_recipe_read(&recipe, "recipes/export-many.json", &catalog, &group, 1, arena));
    int groups = 0;
    for (int i = 0; i < recipe->output_count; i++) groups += recipe->outputs[i]->weights.group == 64;
    cr_assert_eq(recipe->output_count, 4);
    cr_assert_eq(groups, 3);
}
