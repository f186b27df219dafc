/* Free buffers wait in one list; the smallest that fits without wasting more than a quarter is taken. Every buffer is a
 * piece of its own of the system's memory, so that a change of shapes can give all of them back. */
#include "autograd/pool.h"

#include <assert.h>
#include <stdint.h>

#include "base/arena.h"

struct qz_pool {
    bool dry;
    size_t used, held, peak;
    qz_buffer *free, *out; /* out: in use */
};

enum { ALIGNMENT = 64 };

qz_status qz_pool_new(qz_pool **out, bool dry)
{
    *out = qz_calloc(1, sizeof **out);
    if (!*out) return QZ_FAIL(QZ_MEMORY, "no memory for the buffers of a training step");
    (*out)->dry = dry;
    return QZ_OK;
}

/* ---- lists ---- */

static void link_first(qz_buffer **list, qz_buffer *b)
{
    b->previous = NULL;
    b->next = *list;
    if (*list) (*list)->previous = b;
    *list = b;
}

static void take_out(qz_buffer **list, qz_buffer *b)
{
    if (b->previous)
        b->previous->next = b->next;
    else
        *list = b->next;
    if (b->next) b->next->previous = b->previous;
}

/* ---- buffers ---- */

static void destroy(qz_pool *pool, qz_buffer *b)
{
    pool->held -= b->bytes;
    qz_free(b);
}

void qz_pool_free(qz_pool *pool)
{
    if (!pool) return;
    qz_pool_reclaim(pool);
    while (pool->free) {
        qz_buffer *b = pool->free;
        take_out(&pool->free, b);
        destroy(pool, b);
    }
    qz_free(pool);
}

/* The best free one, taken out of the list; NULL: none fits. */
static qz_buffer *take_free(qz_pool *pool, size_t bytes)
{
    qz_buffer *best = NULL;
    for (qz_buffer *b = pool->free; b; b = b->next) {
        const bool fits = b->bytes >= bytes && b->bytes <= bytes + bytes / 4;
        if (fits && (!best || b->bytes < best->bytes)) best = b;
    }
    if (best) take_out(&pool->free, best);
    return best;
}

/* Header and data in one allocation. */
static qz_buffer *create(qz_pool *pool, size_t bytes)
{
    qz_buffer *b = qz_malloc(sizeof *b + (pool->dry ? 0 : bytes + ALIGNMENT));
    if (!b) return NULL;
    const uintptr_t start = (uintptr_t)(b + 1);
    b->data = pool->dry ? NULL : (void *)((start + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    b->bytes = bytes;
    pool->held += bytes;
    if (pool->held > pool->peak) pool->peak = pool->held;
    return b;
}

qz_status qz_pool_get(qz_pool *pool, qz_buffer **out, size_t bytes)
{
    qz_buffer *b = take_free(pool, bytes);
    if (!b) b = create(pool, bytes);
    if (!b)
        return QZ_FAIL(QZ_MEMORY,
                       "a training step needs %zu MB more than the %zu MB it has: smaller train.micro_batch, or "
                       "train.recompute true",
                       bytes >> 20, pool->held >> 20);
    b->uses = 1;
    link_first(&pool->out, b);
    pool->used += b->bytes;
    *out = b;
    return QZ_OK;
}

static void give_back(qz_pool *pool, qz_buffer *b)
{
    b->uses = 0;
    pool->used -= b->bytes;
    take_out(&pool->out, b);
    link_first(&pool->free, b);
}

void qz_pool_put(qz_pool *pool, qz_buffer *b)
{
    if (!b) return;
    assert(b->uses > 0);
    if (--b->uses == 0) give_back(pool, b);
}

void qz_pool_reclaim(qz_pool *pool)
{
    while (pool->out) give_back(pool, pool->out);
}

size_t qz_pool_used(const qz_pool *pool)
{
    return pool->used;
}

size_t qz_pool_peak(const qz_pool *pool)
{
    return pool->peak;
}
