/* Text tables with aligned columns: the first column to the left, the others to the right unless asked otherwise. */
#ifndef QZ_PROGRAMS_TABLE_H
#define QZ_PROGRAMS_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"

enum { QZ_TABLE_COLUMNS = 8 };

typedef struct qz_table_row {
    struct qz_table_row *next;
    const char *cell[QZ_TABLE_COLUMNS];
} qz_table_row;

typedef struct qz_table {
    qz_arena *arena;
    int columns;
    bool left[QZ_TABLE_COLUMNS];
    qz_table_row *first, *last;
    bool failed;
} qz_table;

qz_table qz_table_new(qz_arena *arena, int columns);
/* A new row; cells of the rest are empty. Failing sticks and is told by qz_table_print. */
void qz_table_row_add(qz_table *t);
/* The text of a cell of the last row; copied. */
void qz_table_set(qz_table *t, int column, const char *format, ...) QZ_PRINTF(3, 4);
QZ_NODISCARD qz_status qz_table_print(const qz_table *t, FILE *out, const char *indent);

/* "8.4 MB" (powers of 1000), into a buffer. */
const char *qz_text_bytes(char out[32], uint64_t bytes);
/* "0.42 s", "3 min 20 s", "2 h 5 min". */
const char *qz_text_seconds(char out[32], double seconds);

#endif
