/* What reading a recipe needs at every step, and how it fails. Inside recipes/ only. */
#ifndef QZ_RECIPES_RECIPE_READER_H
#define QZ_RECIPES_RECIPE_READER_H

#include "base/json.h"
#include "recipes/recipe_fields.h"

typedef struct qz_recipe_reader {
    qz_recipe *recipe;
    const char *name; /* of the file, for messages */
    const qz_recipe_catalog *catalog;
    const qz_override *overrides;
    int count;
    qz_arena *arena;
} qz_recipe_reader;

/* QZ_ARG with "<file>: <path>: <sentence>", and the override that the value came from, if it came from one. */
qz_status qz_recipe_fail(const qz_recipe_reader *r, const char *path, const char *format, ...) QZ_PRINTF(3, 4);
/* "<what> expected, found <value>". */
qz_status qz_recipe_fail_type(const qz_recipe_reader *r, const char *path, const qz_json_node *found,
                              const char *expected);
/* "unknown <kind> ...; did you mean ...? Known: ..."; the list ends with NULL. */
qz_status qz_recipe_fail_name(const qz_recipe_reader *r, const char *path, const char *kind, const char *found,
                              const char *const *known);

/* recipe_override.c: the text with the overrides applied, parsed again. `*doc` is replaced. */
QZ_NODISCARD qz_status qz_recipe_override(qz_json **doc, const qz_recipe_reader *r);
/* recipe_read.c: checks keys and types and fills reader->recipe. */
QZ_NODISCARD qz_status qz_recipe_fill(const qz_recipe_reader *r, const qz_json_node *root);
/* recipe_choice.c: a plug-in by name or object. */
QZ_NODISCARD qz_status qz_recipe_read_choice(const qz_recipe_reader *r, const char *path, const qz_plugins *list,
                                             const qz_json_node *node, qz_choice *out);
/* recipe_rules.c: combinations that cannot be. */
QZ_NODISCARD qz_status qz_recipe_check_rules(const qz_recipe_reader *r, const qz_json_node *root);
/* recipe_canonical.c: sets recipe->text and recipe->hash. */
QZ_NODISCARD qz_status qz_recipe_canonize(const qz_recipe_reader *r);

/* Names of a list's rows, NULL-terminated, in the arena; NULL when memory is short. */
const char **qz_plugin_names(const qz_plugins *list, qz_arena *arena);

#endif
