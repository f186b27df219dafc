/* String -> integer, built once and then only read: for names of tensors, tokens, keys. Open addressing. */
#ifndef QZ_BASE_MAP_H
#define QZ_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qz_strmap qz_strmap;
QZ_NODISCARD qz_status qz_strmap_new(qz_strmap **out, size_t expected);
void qz_strmap_free(qz_strmap *m);
/* Keys may hold any bytes; they are not copied and must outlive the map. An existing key keeps its value and sets
 * *was_there (may be NULL). */
QZ_NODISCARD qz_status qz_strmap_add(qz_strmap *m, const char *key, size_t length, int64_t value, bool *was_there);
/* -1 when absent. Safe from several threads. */
int64_t qz_strmap_get(const qz_strmap *m, const char *key, size_t length);
size_t qz_strmap_count(const qz_strmap *m);

#endif
