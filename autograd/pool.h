/* Buffers of a training step: handed out by size, given back one at a time, used again by the next of that size.
 *
 * The shapes of a step repeat from layer to layer, so few sizes exist and nothing is returned to the system between
 * steps. A pool can also only count (`dry`): then it hands out no memory but keeps the same books, which makes the
 * printed plan of memory exact. Shared by the files of autograd/, and nothing outside includes it. */
#ifndef QZ_AUTOGRAD_POOL_H
#define QZ_AUTOGRAD_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct qz_pool qz_pool;

/* A buffer and how many still need it. */
typedef struct qz_buffer {
    void *data; /* 64-byte aligned, uninitialised; NULL in a dry pool */
    size_t bytes;
    int uses;
    struct qz_buffer *next, *previous; /* in the pool's list of free ones, or of those in use */
} qz_buffer;

QZ_NODISCARD qz_status qz_pool_new(qz_pool **out, bool dry);
void qz_pool_free(qz_pool *pool);
/* With one use. */
QZ_NODISCARD qz_status qz_pool_get(qz_pool *pool, qz_buffer **out, size_t bytes);
static inline void qz_buffer_use(qz_buffer *b)
{
    if (b) b->uses++;
}
/* One use less; the last one puts it back. NULL: nothing happens. */
void qz_pool_put(qz_pool *pool, qz_buffer *b);
/* All that are in use come back, whatever their uses: nobody needs them any more. */
void qz_pool_reclaim(qz_pool *pool);
/* Bytes handed out now, and the most ever held, free ones included. */
size_t qz_pool_used(const qz_pool *pool);
size_t qz_pool_peak(const qz_pool *pool);

#endif
