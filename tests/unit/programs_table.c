/* Aligned tables, and bytes and seconds as text. */
#include "programs/table.h"

#include <stdio.h>
#include <stdlib.h>

#include "testing/testing.h"

Test(table, columns_are_aligned)
{
    qz_arena *arena;
    char *text;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    qz_table t = qz_table_new(arena, 3);
    t.left[2] = true;
    static const char *const cells[3][3] = {{"name", "1", "x"}, {"a longer name", "1234", ""}, {"\xc3\xbc", "22", "y"}};
    for (int r = 0; r < 3; r++) {
        qz_table_row_add(&t);
        for (int c = 0; c < 3; c++) qz_table_set(&t, c, "%s", cells[r][c]);
    }
    FILE *f = open_memstream(&text, &size);
    check_ok(qz_table_print(&t, f, "> "));
    fclose(f);
    cr_assert_str_eq(text, "> name              1  x\n> a longer name  1234\n> \xc3\xbc                22  y\n");
    free(text);
    qz_arena_free(arena);
}

Test(table, short_memory_is_told)
{
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    qz_table t = qz_table_new(arena, 2);
    qz_alloc_fail_at(1);
    qz_table_row_add(&t);
    qz_alloc_fail_at(0);
    qz_table_set(&t, 0, "x");
    check_fails(QZ_MEMORY, "memory", qz_table_print(&t, stdout, ""));
    qz_arena_free(arena);
}

Test(table, bytes)
{
    char text[32];
    cr_assert_str_eq(qz_text_bytes(text, 0), "0 B");
    cr_assert_str_eq(qz_text_bytes(text, 999), "999 B");
    cr_assert_str_eq(qz_text_bytes(text, 1000), "1.0 KB");
    cr_assert_str_eq(qz_text_bytes(text, 8407280), "8.4 MB");
    cr_assert_str_eq(qz_text_bytes(text, 250000000), "250 MB");
    cr_assert_str_eq(qz_text_bytes(text, 999999999), "1.0 GB");
}

Test(table, seconds)
{
    char text[32];
    cr_assert_str_eq(qz_text_seconds(text, 0.123), "0.12 s");
    cr_assert_str_eq(qz_text_seconds(text, 12.34), "12.3 s");
    cr_assert_str_eq(qz_text_seconds(text, 200), "3 min 20 s");
    cr_assert_str_eq(qz_text_seconds(text, 7500), "2 h 5 min");
}
