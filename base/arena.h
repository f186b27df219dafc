/* Memory: one hook that every allocation of ours passes, and arenas with one lifetime each.
 *
 * Four lifetimes, four arenas: run, layer (or training step), scratch, weights (mapped files). An arena grows by
 * blocks, hands out 64-byte aligned pieces and frees all at once; qz_arena_mark/qz_arena_reset give a stack
 * discipline inside it. Under AddressSanitizer released memory is poisoned.
 *
 *     qz_arena *layer;
 *     QZ_TRY(qz_arena_new(&layer, "layer"));
 *     float *w = qz_arena_array(layer, float, n);   // NULL: qz_arena_failed() gives the status
 *     if (!w) return qz_arena_failed(layer);
 */
#ifndef QZ_BASE_ARENA_H
#define QZ_BASE_ARENA_H

#include <stddef.h>

#include "base/status.h"

/* The hook. Sizes of 0 give a valid pointer. NULL on failure, without a message. */
void *qz_malloc(size_t size);
void *qz_calloc(size_t count, size_t size);
void *qz_realloc(void *old, size_t size);
void qz_free(void *p);
char *qz_strdup(const char *text);

/* For tests: the n-th allocation from now on fails (1 = the next); 0 switches it off. */
void qz_alloc_fail_at(long n);
/* For tests: allocations passed through the hook since the start. */
long qz_alloc_count(void);

typedef struct qz_arena qz_arena;

typedef struct qz_arena_mark {
    void *block;
    size_t used;
} qz_arena_mark;

QZ_NODISCARD qz_status qz_arena_new(qz_arena **out, const char *name);
void qz_arena_free(qz_arena *arena);

/* 64-byte aligned, uninitialised; NULL when memory is short. `name` of the arena appears in the message. */
void *qz_arena_alloc(qz_arena *arena, size_t size);
void *qz_arena_calloc(qz_arena *arena, size_t size);
char *qz_arena_strdup(qz_arena *arena, const char *text);
char *qz_arena_printf(qz_arena *arena, const char *format, ...) QZ_PRINTF(2, 3);
/* QZ_MEMORY with a message saying which arena wanted how much. */
qz_status qz_arena_failed(const qz_arena *arena);

#define qz_arena_array(arena, type, count) ((type *)qz_arena_alloc((arena), qz_array_bytes((count), sizeof(type))))
/* count * size, or SIZE_MAX when that overflows (which then fails to allocate). */
size_t qz_array_bytes(size_t count, size_t size);

qz_arena_mark qz_arena_save(const qz_arena *arena);
/* Releases everything allocated since `mark`. */
void qz_arena_restore(qz_arena *arena, qz_arena_mark mark);
void qz_arena_reset(qz_arena *arena);

/* Bytes handed out now, and the most ever held in blocks. */
size_t qz_arena_used(const qz_arena *arena);
size_t qz_arena_peak(const qz_arena *arena);

#endif
