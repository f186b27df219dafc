/* Files appear whole or not at all; folders are removed without following links. */
#include "base/file.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing/testing.h"

static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(file, .init = setup, .fini = teardown);

Test(file, writes_and_reads)
{
    char *text;
    size_t size;
    check_ok(qz_file_write(test_path("a"), "hello", 5));
    check_ok(qz_file_read(&text, &size, test_path("a"), 100, arena));
    cr_assert(size == 5);
    cr_assert_str_eq(text, "hello");
    cr_assert(!qz_path_exists(test_path("a.tmp")));
    check_fails(QZ_FORMAT, "at most 4", qz_file_read(&text, &size, test_path("a"), 4, arena));
    check_fails(QZ_IO, "cannot be opened", qz_file_read(&text, &size, test_path("none"), 4, arena));
    check_ok(qz_file_copy(test_path("b"), test_path("a")));
    uint64_t bytes;
    check_ok(qz_file_size(test_path("b"), &bytes));
    cr_assert(bytes == 5);
}

Test(file, refuses_folders_and_pipes)
{
    char *text;
    size_t size;
    cr_assert(mkfifo(test_path("pipe"), 0600) == 0);
    check_fails(QZ_IO, "not a regular file", qz_file_read(&text, &size, test_path("pipe"), 100, arena));
    check_fails(QZ_IO, "not a regular file", qz_file_read(&text, &size, test_folder(), 100, arena));
}

Test(file, spills)
{
    qz_map map;
    struct rlimit limit = {100, 100};
    check_ok(qz_map_spill(&map, "some bytes", 11, test_path("")));
    cr_assert(map.size == 11);
    cr_assert_str_eq((const char *)map.data, "some bytes");
    qz_map_close(&map);
    check_ok(qz_map_spill(&map, "", 0, test_path("")));
    cr_assert(map.size == 0);
    qz_map_close(&map);
    check_fails(QZ_IO, "none: cannot hold 11 bytes while the program runs",
                qz_map_spill(&map, "some bytes", 11, test_path("none")));
    static const char many[4096];
    signal(SIGXFSZ, SIG_IGN);
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    check_fails(QZ_IO, "cannot hold 4096 bytes", qz_map_spill(&map, many, sizeof many, test_path("")));
}

Test(file, a_spill_grows_and_its_map_stays)
{
    enum { MANY = 100000 };
    static int piece[1000];
    qz_spill *s;
    qz_map early, all;
    check_ok(qz_spill_open(&s, test_folder()));
    for (int i = 0; i < MANY; i++) check_ok(qz_spill_add(s, &i, sizeof i));
    check_ok(qz_spill_map(&early, s));
    for (int i = 0; i < 300; i++) check_ok(qz_spill_add(s, piece, sizeof piece)); /* more than is gathered */
    check_ok(qz_spill_map(&all, s));
    qz_spill_close(s);
    cr_assert(early.size == MANY * sizeof(int) && all.size == early.size + 300 * sizeof piece);
    for (int i = 0; i < MANY; i++) cr_assert(((const int *)(const void *)all.data)[i] == i);
    cr_assert(memcmp(all.data, early.data, early.size) == 0 && all.data[all.size - 1] == 0);
    qz_map_close(&early);
    qz_map_close(&all);
}

Test(file, a_spill_of_one_large_piece)
{
    static uint8_t large[1 << 19];
    qz_spill *s;
    qz_map map;
    large[0] = 7;
    check_ok(qz_spill_open(&s, test_folder()));
    check_ok(qz_spill_add(s, "a", 1));
    check_ok(qz_spill_add(s, large, sizeof large));
    check_ok(qz_spill_add(s, "b", 1));
    check_ok(qz_spill_map(&map, s));
    qz_spill_close(s);
    cr_assert(map.size == sizeof large + 2 && map.data[0] == 'a' && map.data[1] == 7 && map.data[map.size - 1] == 'b');
    qz_map_close(&map);
    check_fails(QZ_IO, "none: cannot hold data while the program runs", qz_spill_open(&s, test_path("none")));
}

Test(file, paged_room_keeps_what_it_holds)
{
    qz_paged *p;
    void *data;
    struct rlimit limit = {1 << 20, 1 << 20};
    check_ok(qz_paged_open(&p, test_folder()));
    check_ok(qz_paged_resize(p, 10, &data));
    memcpy(data, "some bytes", 10);
    check_ok(qz_paged_resize(p, 100000, &data));
    cr_assert(memcmp(data, "some bytes", 10) == 0 && ((char *)data)[99999] == 0);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    check_fails(QZ_IO, "cannot hold 2097152 bytes", qz_paged_resize(p, 2 << 20, &data));
    qz_paged_close(p);
    check_fails(QZ_IO, "none: cannot hold", qz_paged_open(&p, test_path("none")));
}

Test(file, maps)
{
    qz_map map;
    test_write_file(test_path("m"), "abc", 3);
    check_ok(qz_map_open(&map, test_path("m")));
    cr_assert(map.size == 3 && memcmp(map.data, "abc", 3) == 0);
    qz_map_close(&map);
    test_write_file(test_path("empty"), "", 0);
    check_ok(qz_map_open(&map, test_path("empty")));
    cr_assert(map.size == 0 && map.data != NULL);
    qz_map_close(&map);
}

Test(file, an_outfile_appears_when_closed)
{
    qz_outfile *f;
    check_ok(qz_outfile_open(&f, test_path("o"), 8));
    check_ok(qz_outfile_write(f, 4, "5678", 4));
    check_ok(qz_outfile_write(f, 0, "1234", 4));
    cr_assert(!qz_path_exists(test_path("o")));
    check_ok(qz_outfile_close(f));
    char *text;
    size_t size;
    check_ok(qz_file_read(&text, &size, test_path("o"), 100, arena));
    cr_assert_str_eq(text, "12345678");
}

Test(file, an_abandoned_outfile_leaves_nothing)
{
    qz_outfile *f;
    check_ok(qz_outfile_open(&f, test_path("gone"), 8));
    qz_outfile_abandon(f);
    cr_assert(!qz_path_exists(test_path("gone")) && !qz_path_exists(test_path("gone.tmp")));
}

Test(file, a_kept_outfile_is_adopted)
{
    qz_outfile *f;
    char got[9] = "";
    check_ok(qz_outfile_open(&f, test_path("k"), 8));
    check_ok(qz_outfile_write(f, 0, "1234", 4));
    qz_outfile_keep(f);
    check_ok(qz_outfile_sync(f));
    qz_outfile_abandon(f);
    cr_assert(!qz_path_exists(test_path("k")) && qz_path_exists(test_path("k.tmp")));
    check_fails(QZ_FORMAT, "k.tmp: has 8 bytes, expected 9", qz_outfile_adopt(&f, test_path("k"), 9));
    cr_assert_null(f);
    check_ok(qz_outfile_adopt(&f, test_path("k"), 8));
    check_ok(qz_outfile_write(f, 4, "5678", 4));
    check_ok(qz_outfile_read(f, 0, got, 8));
    cr_assert_str_eq(got, "12345678");
    check_ok(qz_outfile_close(f));
    cr_assert(qz_path_exists(test_path("k")) && !qz_path_exists(test_path("k.tmp")));
}

Test(file, a_finished_outfile_is_taken_back)
{
    qz_outfile *f;
    check_ok(qz_file_write(test_path("k"), "12345678", 8));
    check_ok(qz_outfile_adopt(&f, test_path("k"), 8));
    cr_assert(!qz_path_exists(test_path("k")) && qz_path_exists(test_path("k.tmp")));
    qz_outfile_abandon(f);
    cr_assert(qz_path_exists(test_path("k.tmp")));
    check_fails(QZ_IO, "none.tmp: cannot be opened", qz_outfile_adopt(&f, test_path("none"), 8));
    cr_assert(mkfifo(test_path("pipe.tmp"), 0600) == 0);
    check_fails(QZ_IO, "pipe.tmp: is not a regular file", qz_outfile_adopt(&f, test_path("pipe"), 0));
    cr_assert(symlink(test_path("k.tmp"), test_path("link.tmp")) == 0);
    check_fails(QZ_IO, "link.tmp", qz_outfile_adopt(&f, test_path("link"), 8));
}

Test(file, an_adopted_outfile_that_shrinks_is_noticed)
{
    qz_outfile *f;
    char got[8];
    check_ok(qz_file_write(test_path("k"), "12345678", 8));
    check_ok(qz_outfile_adopt(&f, test_path("k"), 8));
    cr_assert(truncate(test_path("k.tmp"), 3) == 0);
    check_fails(QZ_IO, "has shrunk", qz_outfile_read(f, 0, got, 8));
    qz_outfile_abandon(f);
}

Test(file, a_full_disk_is_an_error_and_leaves_nothing)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {4096, 4096};
    getrlimit(RLIMIT_FSIZE, &old);
    const char *path = test_path("large");
    setrlimit(RLIMIT_FSIZE, &small);
    qz_outfile *f;
    qz_status status = qz_outfile_open(&f, path, 100000);
    setrlimit(RLIMIT_FSIZE, &old);
    check_fails(QZ_IO, "100000 bytes are needed", status);
    cr_assert(!qz_path_exists(path) && !qz_path_exists(test_path("large.tmp")));
}

/* A disk that fills up while writing: the space could not be reserved, so a write is the first to hear of it. */
Test(file, a_failing_write_is_an_error)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {4096, 4096};
    char data[8192] = {0};
    qz_outfile *f;
    check_ok(qz_outfile_open(&f, test_path("late"), sizeof data));
    getrlimit(RLIMIT_FSIZE, &old);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){small.rlim_cur, old.rlim_max});
    qz_status status = qz_outfile_write(f, 0, data, sizeof data);
    setrlimit(RLIMIT_FSIZE, &old);
    check_fails(QZ_IO, "8192 bytes are needed", status);
    qz_outfile_abandon(f);
    cr_assert(!qz_path_exists(test_path("late.tmp")));
}

Test(file, an_old_file_stays_when_the_new_one_fails)
{
    char *text;
    size_t size;
    qz_outfile *f;
    check_ok(qz_file_write(test_path("kept"), "old", 3));
    check_ok(qz_outfile_open(&f, test_path("kept"), 3));
    check_ok(qz_outfile_write(f, 0, "new", 3));
    qz_outfile_abandon(f);
    check_ok(qz_file_read(&text, &size, test_path("kept"), 100, arena));
    cr_assert_str_eq(text, "old");
    check_fails(QZ_IO, "cannot be written: No such file", qz_file_write(test_path("no/such/folder"), "a", 1));
}

/* Someone may have put a link where the temporary file goes. */
Test(file, writes_through_no_link)
{
    char *text;
    size_t size;
    check_ok(qz_file_write(test_path("precious"), "old", 3));
    cr_assert(symlink(test_path("precious"), test_path("trap.tmp")) == 0);
    check_fails(QZ_IO, "trap", qz_file_write(test_path("trap"), "new", 3));
    check_ok(qz_file_read(&text, &size, test_path("precious"), 100, arena));
    cr_assert_str_eq(text, "old");
}

Test(file, every_failing_allocation_is_reported)
{
    long n = 1;
    qz_status status = QZ_MEMORY;
    for (; n < 20 && status != QZ_OK; n++) {
        qz_alloc_fail_at(n);
        status = qz_file_write(test_path("memory"), "a", 1);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY);
        cr_assert(status == QZ_OK || !qz_path_exists(test_path("memory.tmp")));
    }
    cr_assert(status == QZ_OK && n > 3);
}

Test(path, a_link_to_a_folder_is_not_removed)
{
    check_ok(qz_folder_make(test_path("real/inner/")));
    cr_assert(symlink(test_path("real"), test_path("link")) == 0);
    check_fails(QZ_IO, "cannot be removed", qz_folder_remove(test_path("link")));
    cr_assert(qz_path_is_folder(test_path("real/inner")) && qz_path_is_folder(test_path("link")));
}

Test(path, a_folder_is_renamed_but_never_onto_a_full_one)
{
    check_ok(qz_folder_make(test_path("from/x")));
    check_ok(qz_folder_make(test_path("full/y")));
    check_fails(QZ_IO, "cannot be renamed", qz_path_rename(test_path("from"), test_path("full")));
    check_ok(qz_path_rename(test_path("from"), test_path("to/")));
    cr_assert(qz_path_is_folder(test_path("to/x")) && !qz_path_exists(test_path("from")));
}

Test(path, joins_and_takes_apart)
{
    setup();
    cr_assert_str_eq(qz_path_join(arena, "a", "b"), "a/b");
    cr_assert_str_eq(qz_path_join(arena, "a/", "b"), "a/b");
    cr_assert_str_eq(qz_path_base("x/y.z"), "y.z");
    cr_assert_str_eq(qz_path_base("y.z"), "y.z");
    teardown();
}

Test(path, folders_are_made_listed_and_removed)
{
    setup();
    char **names;
    size_t count;
    char *outside = qz_path_join(arena, test_folder(), "outside"), *deep = qz_path_join(arena, test_folder(), "x/y/z");
    char *x = qz_path_join(arena, test_folder(), "x");
    check_ok(qz_folder_make(deep));
    check_ok(qz_folder_make(deep));
    check_ok(qz_folder_make(outside));
    test_write_file(qz_path_join(arena, outside, "keep"), "1", 1);
    test_write_file(qz_path_join(arena, deep, "b"), "1", 1);
    test_write_file(qz_path_join(arena, deep, "a"), "1", 1);
    cr_assert(symlink(outside, qz_path_join(arena, deep, "link")) == 0);
    check_ok(qz_folder_list(&names, &count, deep, arena));
    cr_assert(count == 3);
    cr_assert_str_eq(names[0], "a");
    cr_assert_str_eq(names[2], "link");
    check_ok(qz_folder_remove(x));
    cr_assert(!qz_path_exists(x));
    cr_assert(qz_path_exists(qz_path_join(arena, outside, "keep")));
    check_fails(QZ_IO, "cannot be removed", qz_folder_remove(x));
    check_fails(QZ_IO, "cannot be made", qz_folder_make(qz_path_join(arena, outside, "keep/below")));
    teardown();
}

Test(path, free_space_of_a_path_to_come)
{
    uint64_t bytes = 0;
    check_ok(qz_disk_free(test_path("not/there/yet"), &bytes));
    cr_assert(bytes > 0);
    check_ok(qz_disk_free("not-there", &bytes));
}
