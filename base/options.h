/* Options as a table: one row says name, type, default, range and help, and the recipe check, --help, the JSON
 * schema and the documentation are generated from it. Every plug-in describes its own options this way.
 *
 *     static const qz_option options[] = {
 *         QZ_OPTION_INT("grid", 20, 2, 100, "points of the search over the exponent"),
 *         QZ_OPTION_BOOL("weight_means", true, "also try the variant divided by the weight means"),
 *         QZ_OPTION_END,
 *     };
 *     int grid = (int)qz_options_int(values, "grid");
 */
#ifndef QZ_BASE_OPTIONS_H
#define QZ_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum qz_option_type { QZ_OPT_END, QZ_OPT_BOOL, QZ_OPT_INT, QZ_OPT_NUMBER, QZ_OPT_CHOICE } qz_option_type;

typedef struct qz_option {
    const char *name;
    qz_option_type type;
    double fallback;            /* the default; for a choice the index into `choices` */
    double low, high;           /* inclusive; for int and number */
    const char *const *choices; /* NULL-terminated */
    const char *help;
} qz_option;

/* clang-format off */
#define QZ_OPTION_BOOL(n, d, h) {(n), QZ_OPT_BOOL, (d), 0, 1, NULL, (h)}
#define QZ_OPTION_INT(n, d, lo, hi, h) {(n), QZ_OPT_INT, (d), (lo), (hi), NULL, (h)}
#define QZ_OPTION_NUMBER(n, d, lo, hi, h) {(n), QZ_OPT_NUMBER, (d), (lo), (hi), NULL, (h)}
#define QZ_OPTION_CHOICE(n, d, c, h) {(n), QZ_OPT_CHOICE, (d), 0, 0, (c), (h)}
#define QZ_OPTION_END {NULL, QZ_OPT_END, 0, 0, 0, NULL, NULL}
/* clang-format on */

enum { QZ_OPTIONS_MAX = 16 };

/* The values of one table's options: value[i] belongs to table[i]. A plain value, free to copy. */
typedef struct qz_options {
    const qz_option *table; /* NULL: no options */
    double value[QZ_OPTIONS_MAX];
} qz_options;

/* All defaults. */
qz_options qz_options_default(const qz_option *table);
/* Index of an option, -1 when the table has none of that name. */
int qz_options_index(const qz_option *table, const char *name);
/* Values by name; the name must be in the table (asserted). */
int64_t qz_options_int(const qz_options *o, const char *name);
double qz_options_number(const qz_options *o, const char *name);
bool qz_options_bool(const qz_options *o, const char *name);
const char *qz_options_choice(const qz_options *o, const char *name);

/* The name in the NULL-terminated list nearest to `name` by edit distance, or NULL when none is near; for messages. */
const char *qz_nearest_name(const char *name, const char *const *list);

#endif
