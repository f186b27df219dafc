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
    char *base;   /* a row's value lies at base + (place - from); NULL: in the recipe */
    size_t from;  /* `place` of what base points to */
    bool relaxed; /* nothing but the version is required: what outputs are laid over */
    /* Inside an entry of "overrides" or "outputs": */
    const char *prefix;        /* of every path in messages, "outputs.1."; NULL: none */
    size_t cut;                /* what the prefix replaces at the front of a row's path */
    const qz_json_node *entry; /* its own members; what it lacks comes from what `outer` reads */
    const struct qz_recipe_reader *outer;
} qz_recipe_reader;

enum { QZ_RECIPE_PATH = 256 };

/* QZ_ARG with "<file>: <path>: <sentence>", and the override that the value came from, if it came from one. */
qz_status qz_recipe_fail(const qz_recipe_reader *r, const char *path, const char *format, ...) QZ_PRINTF(3, 4);
/* "<what> expected, found <value>". */
qz_status qz_recipe_fail_type(const qz_recipe_reader *r, const char *path, const qz_json_node *found,
                              const char *expected);
/* "unknown <kind> ...; did you mean ...? Known: ..."; the list ends with NULL. */
qz_status qz_recipe_fail_name(const qz_recipe_reader *r, const char *path, const char *kind, const char *found,
                              const char *const *known);
/* The override that set the value at `path`, or NULL. */
const qz_override *qz_recipe_origin(const qz_recipe_reader *r, const char *path);

/* recipe_override.c: the text with the overrides applied, parsed again. `*doc` is replaced. */
QZ_NODISCARD qz_status qz_recipe_override(qz_json **doc, const qz_recipe_reader *r);
/* recipe_merge.c */
void qz_recipe_put_node(qz_json_writer *w, const char *key, const qz_json_node *node);
/* `change` laid over `base`, which may be NULL; NULL or null: nothing is written. */
void qz_recipe_put_merged(qz_json_writer *w, const char *key, const qz_json_node *base, const qz_json_node *change);
/* The text that the writer holds as a document; frees the writer. */
QZ_NODISCARD qz_status qz_recipe_writer_parse(qz_json **out, qz_json_writer *w);
/* recipe_read.c: checks keys and types and fills reader->recipe. */
QZ_NODISCARD qz_status qz_recipe_fill(const qz_recipe_reader *r, const qz_json_node *root);
/* The rows below `path`, or one row, from the members of `object`. */
QZ_NODISCARD qz_status qz_recipe_read_object(const qz_recipe_reader *r, const char *path, const qz_json_node *object);
QZ_NODISCARD qz_status qz_recipe_read_field(const qz_recipe_reader *r, const qz_field *f, const qz_json_node *object);
/* recipe_choice.c: a plug-in by name or object. */
QZ_NODISCARD qz_status qz_recipe_read_choice(const qz_recipe_reader *r, const char *path, const qz_plugins *list,
                                             const qz_json_node *node, qz_choice *out);
/* recipe_exceptions.c: recipe->override, once the rest is filled. */
QZ_NODISCARD qz_status qz_recipe_read_exceptions(const qz_recipe_reader *r, const qz_json_node *root);
/* recipe_outputs.c: recipe->outputs and the rest, from a root that has "outputs". */
QZ_NODISCARD qz_status qz_recipe_read_outputs(const qz_recipe_reader *r, const qz_json_node *root);
/* recipe.c: a root without "outputs": fill, rules, exceptions, canonical text. */
QZ_NODISCARD qz_status qz_recipe_read_single(const qz_recipe_reader *r, const qz_json_node *root);
/* recipe_rules.c: combinations that cannot be. */
QZ_NODISCARD qz_status qz_recipe_check_rules(const qz_recipe_reader *r, const qz_json_node *root);
/* No figure is accepted that is not evaluated; before the rows are read. */
QZ_NODISCARD qz_status qz_recipe_check_figures(const qz_recipe_reader *r, const qz_json_node *root);
QZ_NODISCARD qz_status qz_recipe_check_weights(const qz_recipe_reader *r, const qz_json_node *root,
                                               qz_recipe_weights *w);
/* What format, group, symmetry and double quantization allow each other, of the object `part` at `path`. */
QZ_NODISCARD qz_status qz_recipe_check_scheme(const qz_recipe_reader *r, const char *path, const qz_json_node *part,
                                              qz_recipe_weights *w);
/* recipe_train.c: what depends on the mode of training is filled in, and what contradicts it refused. */
QZ_NODISCARD qz_status qz_recipe_check_train(const qz_recipe_reader *r, const qz_json_node *root);
/* Weights, the recipe's or an override's, that are rounded while training. */
QZ_NODISCARD qz_status qz_recipe_check_trained(const qz_recipe_reader *r, const qz_recipe_weights *w);
/* recipe_effect.c: keys of training that have no effect; once the exceptions are read. */
QZ_NODISCARD qz_status qz_recipe_check_effects(const qz_recipe_reader *r);
bool qz_recipe_learns_scales(const qz_recipe_train *t); /* of weights or activations */
bool qz_recipe_learns_offsets(const qz_recipe_train *t);
QZ_NODISCARD qz_status qz_recipe_check_activations(const qz_recipe_reader *r, const qz_json_node *root,
                                                   qz_recipe_activations *a);
/* recipe_canonical.c: sets recipe->text and recipe->hash. */
QZ_NODISCARD qz_status qz_recipe_canonize(const qz_recipe_reader *r);
/* The canonical text of one row of `recipe`, in the arena; "{}" when it is absent. */
QZ_NODISCARD qz_status qz_recipe_row_text(const char **out, const qz_recipe *recipe, const qz_field *f,
                                          qz_arena *arena);

/* Names of a list's rows, NULL-terminated, in the arena; NULL when memory is short. */
const char **qz_plugin_names(const qz_plugins *list, qz_arena *arena);

#endif
