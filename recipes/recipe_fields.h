/* The recipe's shape as one table: a row a key. The reader, the canonical text, the JSON schema and the reference all
 * walk it, so they cannot disagree. A default is JSON text and is read by the same code as a given value. */
#ifndef QZ_RECIPES_RECIPE_FIELDS_H
#define QZ_RECIPES_RECIPE_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "recipes/recipes.h"

typedef enum qz_field_type {
    QZ_FIELD_OBJECT,     /* its members are the rows below it; the place is a bool "was given", when there is one */
    QZ_FIELD_PART,       /* the same; all zero when it is absent. The place is an enum that is 0 then */
    QZ_FIELD_VERSION,    /* int */
    QZ_FIELD_TEXT,       /* const char * */
    QZ_FIELD_INT,        /* int64_t; one without a default is absent when 0 */
    QZ_FIELD_NUMBER,     /* double; one without a default is absent when 0, if 0 is out of range */
    QZ_FIELD_BOOL,       /* bool */
    QZ_FIELD_NAME,       /* an enum, by one of the names in `names` */
    QZ_FIELD_FLAG,       /* bool, by one of two names */
    QZ_FIELD_GROUP,      /* int64_t: a positive integer, or one of the names */
    QZ_FIELD_BYTES,      /* uint64_t: an integer, or "5GB" */
    QZ_FIELD_BACKEND,    /* const char *: "auto" or a backend */
    QZ_FIELD_PLUGIN,     /* qz_choice */
    QZ_FIELD_OBSERVER,   /* qz_choice, or "auto" (index -1); no name: absent */
    QZ_FIELD_PLUGINS,    /* qz_choice [QZ_RECIPE_TRANSFORMS] */
    QZ_FIELD_PATTERNS,   /* qz_patterns */
    QZ_FIELD_EXCEPTIONS, /* "overrides": qz_recipe_exception [QZ_RECIPE_OVERRIDES], the rows below it are an entry's */
    QZ_FIELD_CHANGES,    /* in an entry: an object laid over the row of the same key; the place is that row's */
    QZ_FIELD_OUTPUTS,    /* "outputs": objects laid over the whole recipe */
    QZ_FIELD_TYPES
} qz_field_type;

typedef struct qz_field_name {
    const char *name;
    int value;
    bool hidden; /* known, but not for recipes */
} qz_field_name;

typedef struct qz_field {
    const char *path; /* "weights.group" */
    qz_field_type type;
    bool required;        /* when the object around it is given */
    size_t place;         /* offset in qz_recipe (rows of an override: in qz_recipe_exception), or QZ_NO_PLACE */
    const char *fallback; /* JSON text; NULL: none (a plug-in: the first of its list) */
    double low, high;
    const qz_field_name *names; /* ends with a NULL name */
    size_t plugins;             /* offset of the list in qz_recipe_catalog */
    const char *help;
} qz_field;

#define QZ_NO_PLACE ((size_t)-1)

extern const qz_field qz_recipe_fields[];
extern const size_t qz_recipe_field_count;

/* The last part of the path, and whether the row lies directly below `parent` ("" for the top). */
const char *qz_field_key(const qz_field *f);
bool qz_field_is_in(const qz_field *f, const char *parent);
/* The row of that path, which there is. */
const qz_field *qz_field_at(const char *path);
const qz_plugins *qz_field_plugins(const qz_field *f, const qz_recipe_catalog *catalog);

#endif
