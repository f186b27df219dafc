/* What every row of a plug-in table begins with, and a list of such rows.
 * A table's struct has a qz_plugin as its first member, so lists of different plug-ins have one shape for the
 * recipe check, --help, `qcal list`, the JSON schema and the documentation. */
#ifndef QZ_BASE_PLUGIN_H
#define QZ_BASE_PLUGIN_H

#include <stddef.h>

#include "base/options.h"

typedef struct qz_plugin {
    const char *name;         /* as in recipes */
    const char *help;         /* one sentence */
    const char *source;       /* paper and equation, or specification; "" when it is ours */
    const qz_option *options; /* NULL: none */
} qz_plugin;

typedef struct qz_plugins {
    const char *kind; /* "transform", "range", "solver", "container", "family", "backend" */
    size_t count;
    const qz_plugin *const *rows;
} qz_plugins;

/* Index by name, -1 when there is none. */
int qz_plugins_find(const qz_plugins *list, const char *name);

#endif
