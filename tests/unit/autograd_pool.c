/* The pool hands out, takes back and counts; a dry one counts the same. */
#include "autograd/pool.h"

#include <stdint.h>

#include "base/arena.h"
#include "testing/testing.h"

static qz_pool *pool_new(bool dry)
{
    qz_pool *p;
    check_ok(qz_pool_new(&p, dry));
    return p;
}

static qz_buffer *get(qz_pool *p, size_t bytes)
{
    qz_buffer *b;
    check_ok(qz_pool_get(p, &b, bytes));
    cr_assert(b->uses == 1 && b->bytes >= bytes);
    return b;
}

Test(pool, buffers_are_used_again)
{
    qz_pool *p = pool_new(false);
    qz_buffer *a = get(p, 1000);
    cr_assert((uintptr_t)a->data % 64 == 0);
    memset(a->data, 1, 1000);
    qz_pool_put(p, a);
    cr_assert(get(p, 1000) == a);
    qz_pool_free(p); /* with one still out */
}

Test(pool, the_smallest_that_fits_without_waste)
{
    qz_pool *p = pool_new(false);
    qz_buffer *small = get(p, 1000), *large = get(p, 1200), *huge = get(p, 4000);
    qz_pool_put(p, large);
    qz_pool_put(p, huge);
    qz_pool_put(p, small);
    cr_assert(get(p, 990) == small);
    cr_assert(get(p, 990) == large); /* 21 % more */
    cr_assert(get(p, 990) != huge);
    cr_assert(qz_pool_peak(p) == 1000 + 1200 + 4000 + 990);
    cr_assert(qz_pool_used(p) == 1000 + 1200 + 990);
    qz_pool_free(p);
}

Test(pool, the_last_use_gives_back)
{
    qz_pool *p = pool_new(false);
    qz_buffer *a = get(p, 64);
    qz_buffer_use(a);
    qz_pool_put(p, a);
    cr_assert(qz_pool_used(p) == 64);
    qz_pool_put(p, a);
    cr_assert(qz_pool_used(p) == 0 && qz_pool_peak(p) == 64);
    qz_buffer_use(NULL);
    qz_pool_put(p, NULL);
    qz_pool_free(p);
    qz_pool_free(NULL);
}

/* Taken out of the front, the middle and the end of the list of those in use. */
Test(pool, all_come_back)
{
    qz_pool *p = pool_new(false);
    qz_buffer *b[5];
    for (int i = 0; i < 5; i++) b[i] = get(p, 100);
    qz_pool_put(p, b[2]);
    qz_pool_put(p, b[4]);
    qz_pool_put(p, b[0]);
    qz_buffer_use(b[1]);
    cr_assert(qz_pool_used(p) == 200);
    qz_pool_reclaim(p);
    cr_assert(qz_pool_used(p) == 0);
    for (int i = 0; i < 5; i++) get(p, 100);
    cr_assert(qz_pool_used(p) == 500 && qz_pool_peak(p) == 500);
    qz_pool_free(p);
}

/* The same requests, by a fixed generator, on both kinds. */
Test(pool, a_dry_pool_keeps_the_same_books)
{
    qz_pool *real = pool_new(false), *dry = pool_new(true);
    qz_buffer *a[32] = {NULL}, *b[32] = {NULL};
    uint32_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        seed = seed * 1664525u + 1013904223u;
        const int at = (int)(seed >> 27);
        qz_pool_put(real, a[at]);
        qz_pool_put(dry, b[at]);
        a[at] = get(real, 64 + (seed >> 8) % 1000);
        b[at] = get(dry, 64 + (seed >> 8) % 1000);
        cr_assert(b[at]->data == NULL && a[at]->bytes == b[at]->bytes);
        cr_assert(qz_pool_used(real) == qz_pool_used(dry) && qz_pool_peak(real) == qz_pool_peak(dry));
    }
    qz_pool_free(real);
    qz_pool_free(dry);
}

Test(pool, says_how_much_is_missing)
{
    qz_pool *p = pool_new(false);
    qz_buffer *b;
    get(p, 3 << 20);
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "needs 5 MB more than the 3 MB it has", qz_pool_get(p, &b, 5 << 20));
    check_ok(qz_pool_get(p, &b, 5 << 20));
    qz_pool_free(p);
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "buffers", qz_pool_new(&p, false));
}
