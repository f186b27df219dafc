/* The allocation hook, and arenas: a list of blocks, each at least as large as what was asked for.
 *
 * Released blocks are kept for the next one that fits, since fresh pages cost a fault and a clearing each; they are all
 * given back when they would make the arena hold more than its largest need and SPARE_LIMIT. Transparent huge pages are
 * asked for where a block is large enough to profit. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define QZ_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QZ_ASAN 1
#endif
#endif
#ifdef QZ_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define ALIGN ((size_t)64)
#define BLOCK ((size_t)256 << 10) /* the smallest block */
#define HUGE_PAGE ((size_t)2 << 20)
#define SPARE_LIMIT ((size_t)64 << 20)

static atomic_long fail_at;
static atomic_long count;

static int must_fail(void)
{
    atomic_fetch_add(&count, 1);
    long left = atomic_load(&fail_at);
    return left > 0 && atomic_fetch_sub(&fail_at, 1) == 1;
}

void *qz_malloc(size_t size)
{
    return must_fail() ? NULL : malloc(size ? size : 1);
}

void *qz_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *qz_realloc(void *old, size_t size)
{
    return must_fail() ? NULL : realloc(old, size ? size : 1);
}

void qz_free(void *p)
{
    free(p);
}

char *qz_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = qz_malloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

void qz_alloc_fail_at(long n)
{
    atomic_store(&fail_at, n);
}

long qz_alloc_count(void)
{
    return atomic_load(&count);
}

typedef struct block {
    struct block *below;
    size_t size, used; /* of the bytes after this header */
    size_t below_held; /* bytes held by the blocks below */
} block;

_Static_assert(sizeof(block) <= ALIGN, "a block's header must leave its data aligned");

struct qz_arena {
    block *top;
    block *spare;                /* released, linked by `below`; at hand for the next push */
    size_t peak, spared, wanted; /* bytes: held at most, in spares now, asked for last */
    char name[32];
};

static char *data_of(block *b)
{
    return (char *)b + ALIGN;
}

static size_t held(const qz_arena *a)
{
    return a->top ? a->top->below_held + a->top->size : 0;
}

qz_status qz_arena_new(qz_arena **out, const char *name)
{
    qz_arena *a = qz_calloc(1, sizeof *a);
    *out = a;
    if (!a) return QZ_FAIL(QZ_MEMORY, "out of memory: no room for the %s arena", name);
    snprintf(a->name, sizeof a->name, "%s", name);
    return QZ_OK;
}

static void unmap(block *b)
{
    UNPOISON(data_of(b), b->size);
    munmap(b, b->size + ALIGN);
}

static void pop(qz_arena *a)
{
    block *b = a->top;
    a->top = b->below;
    POISON(data_of(b), b->size);
    b->below = a->spare;
    a->spare = b;
    a->spared += b->size;
}

static void drop_spares(qz_arena *a)
{
    while (a->spare) {
        block *b = a->spare;
        a->spare = b->below;
        unmap(b);
    }
    a->spared = 0;
}

void qz_arena_free(qz_arena *a)
{
    if (!a) return;
    while (a->top) pop(a);
    drop_spares(a);
    qz_free(a);
}

/* The smallest spare that has room, unlinked; NULL when there is none. One more than twice as large is left for others,
 * unless the arena would hold more than ever. */
static block *take_spare(qz_arena *a, size_t room)
{
    const bool full = held(a) + a->spared + room > a->peak;
    block **best = NULL;
    for (block **b = &a->spare; *b; b = &(*b)->below)
        if ((*b)->size >= room && (full || (*b)->size / 2 <= room) && (!best || (*b)->size < (*best)->size)) best = b;
    block *taken = best ? *best : NULL;
    if (!taken) return NULL;
    *best = taken->below;
    a->spared -= taken->size;
    return taken;
}

static block *map_block(qz_arena *a, size_t room)
{
    if (held(a) + a->spared + room > a->peak + SPARE_LIMIT) drop_spares(a);
    block *b = mmap(NULL, room + ALIGN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED) return NULL;
    if (room >= 2 * HUGE_PAGE) (void)madvise(b, room + ALIGN, MADV_HUGEPAGE);
    b->size = room;
    POISON(data_of(b), room);
    return b;
}

static int push(qz_arena *a, size_t size)
{
    size_t room = size > BLOCK - ALIGN ? size : BLOCK - ALIGN;
    if (room > (size_t)PTRDIFF_MAX - ALIGN || must_fail()) return 0;
    block *b = take_spare(a, room);
    if (!b) b = map_block(a, room);
    if (!b) return 0;
    b->used = 0;
    b->below_held = held(a);
    b->below = a->top;
    a->top = b;
    if (held(a) > a->peak) a->peak = held(a);
    return 1;
}

void *qz_arena_alloc(qz_arena *a, size_t size)
{
    a->wanted = size;
    if (size > SIZE_MAX - ALIGN) return NULL;
    size_t rounded = (size + ALIGN - 1) & ~(ALIGN - 1);
    if (!rounded) rounded = ALIGN;
    if (!a->top || a->top->size - a->top->used < rounded)
        if (!push(a, rounded)) return NULL;
    char *p = data_of(a->top) + a->top->used;
    a->top->used += rounded;
    UNPOISON(p, size);
    return p;
}

void *qz_arena_calloc(qz_arena *a, size_t size)
{
    void *p = qz_arena_alloc(a, size);
    return p ? memset(p, 0, size) : NULL;
}

char *qz_arena_strdup(qz_arena *a, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = qz_arena_alloc(a, n);
    return copy ? memcpy(copy, text, n) : NULL;
}

char *qz_arena_printf(qz_arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : qz_arena_alloc(a, (size_t)n + 1);
    if (!text) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

qz_status qz_arena_failed(const qz_arena *a)
{
    return QZ_FAIL(QZ_MEMORY, "out of memory: the %s arena holds %zu MiB and could not get %zu bytes more", a->name,
                   held(a) >> 20, a->wanted);
}

size_t qz_array_bytes(size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? SIZE_MAX : bytes;
}

qz_arena_mark qz_arena_save(const qz_arena *a)
{
    return (qz_arena_mark){a->top, a->top ? a->top->used : 0};
}

void qz_arena_restore(qz_arena *a, qz_arena_mark mark)
{
    while (a->top && a->top != mark.block) pop(a);
    if (!a->top) return;
    POISON(data_of(a->top) + mark.used, a->top->used - mark.used);
    a->top->used = mark.used;
}

void qz_arena_reset(qz_arena *a)
{
    qz_arena_restore(a, (qz_arena_mark){NULL, 0});
}

size_t qz_arena_used(const qz_arena *a)
{
    size_t sum = 0;
    for (const block *b = a->top; b; b = b->below) sum += b->used;
    return sum;
}

size_t qz_arena_peak(const qz_arena *a)
{
    return a->peak;
}
