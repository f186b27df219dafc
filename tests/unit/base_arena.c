/* Arenas: alignment, marks, failing allocations. */
#include "base/arena.h"

#include <stdint.h>

#include "testing/testing.h"

Test(arena, aligned_and_separate)
{
    qz_arena *a;
    check_ok(qz_arena_new(&a, "test"));
    char *p = qz_arena_alloc(a, 3), *q = qz_arena_alloc(a, 5000000);
    cr_assert((uintptr_t)p % 64 == 0 && (uintptr_t)q % 64 == 0);
    memset(p, 1, 3);
    memset(q, 2, 5000000);
    cr_assert(p[2] == 1);
    qz_arena_free(a);
}

Test(arena, marks_release_in_order)
{
    qz_arena *a;
    check_ok(qz_arena_new(&a, "test"));
    qz_arena_alloc(a, 100);
    size_t before = qz_arena_used(a);
    qz_arena_mark m = qz_arena_save(a);
    for (int i = 0; i < 100; i++) cr_assert(qz_arena_alloc(a, 100000) != NULL);
    qz_arena_restore(a, m);
    cr_assert(qz_arena_used(a) == before);
    cr_assert(qz_arena_peak(a) >= 10000000);
    qz_arena_free(a);
}

/* Instead of more than was ever held. */
Test(arena, small_needs_are_met_from_a_large_block_that_was_released)
{
    enum { LARGE = 40 << 20, SMALL = 3 << 20 };
    qz_arena *a;
    check_ok(qz_arena_new(&a, "test"));
    const char *large = qz_arena_alloc(a, LARGE);
    qz_arena_reset(a);
    for (int i = 0; i < LARGE / SMALL; i++) {
        const char *p = qz_arena_alloc(a, SMALL);
        cr_assert(p >= large && p + SMALL <= large + LARGE);
    }
    cr_assert(qz_arena_peak(a) == LARGE);
    qz_arena_free(a);
}

Test(arena, failure_names_the_arena)
{
    qz_arena *a;
    check_ok(qz_arena_new(&a, "layer"));
    qz_alloc_fail_at(1);
    cr_assert(qz_arena_alloc(a, 10) == NULL);
    check_fails(QZ_MEMORY, "layer", qz_arena_failed(a));
    cr_assert(qz_arena_alloc(a, SIZE_MAX) == NULL);
    cr_assert(qz_arena_alloc(a, 10) != NULL);
    qz_arena_free(a);
}

Test(status, context_goes_in_front)
{
    cr_assert(qz_error_set(QZ_IO, "%s", "inner") == QZ_IO);
    cr_assert(qz_error_context(QZ_IO, "reading %s", "file") == QZ_IO);
    cr_assert_str_eq(qz_error_message(), "reading file: inner");
}
