/* Writing shards: layout, alignment, determinism, misuse, threads. */
#include <stdatomic.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/parallel.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

static uint8_t bytes[4096];

static void fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + 3);
}

TestSuite(shards, .init = fill);

static void declare(qz_shards *s, const char *unit, const char *name, qz_dtype t, int64_t n)
{
    check_ok(qz_shards_declare(s, unit, name, t, 1, &n));
}

/* One file with tensors of 1, 2 and 4 bytes an element; written backwards when asked. */
static void write_mixed(const char *folder, bool backwards)
{
    static const char *const name[] = {"z.codes", "a.scale", "b.scale", "a.codes", "empty"};
    static const size_t size[] = {5, 6, 10, 8, 0};
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    declare(s, "z", name[0], QZ_U8, 5);
    declare(s, "a", name[1], QZ_F16, 3);
    declare(s, "b", name[2], QZ_BF16, 5);
    declare(s, "a", name[3], QZ_I32, 2);
    declare(s, "e", name[4], QZ_F32, 0);
    check_ok(qz_shards_begin(s));
    for (int i = 0; i < 5; i++) {
        int at = backwards ? 4 - i : i;
        check_ok(qz_shards_write(s, name[at], bytes + 10 * at, size[at]));
    }
    uint64_t announced = qz_shards_bytes(s), real;
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    check_ok(qz_file_size(fixture_in(folder, "model.safetensors"), &real));
    cr_assert(announced == real);
}

Test(shards, wide_types_first_and_aligned)
{
    const char *folder = fixture_folder("m");
    write_mixed(folder, false);
    cr_assert(!qz_path_exists(fixture_in(folder, "model.safetensors.index.json")));
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, fixture_in(folder, "model.safetensors")));
    static const char *const order[] = {"a.codes", "empty", "a.scale", "b.scale", "z.codes"};
    cr_assert(qz_safetensors_count(st) == 5);
    cr_assert_str_eq(qz_safetensors_metadata(st, "format"), "pt");
    for (size_t i = 0; i < 5; i++) {
        const qz_stored *t = qz_safetensors_at(st, i);
        cr_assert(t->offset % (uint64_t)(qz_dtype_bits(t->view.dtype) / 8) == 0, "%s", t->name);
        cr_assert_str_eq(t->name, order[i]);
    }
    cr_assert(qz_safetensors_at(st, 0)->offset % 8 == 0);
    cr_assert(memcmp(qz_safetensors_find(st, "z.codes")->view.data, bytes, 5) == 0);
    cr_assert(memcmp(qz_safetensors_find(st, "a.codes")->view.data, bytes + 30, 8) == 0);
    qz_safetensors_close(st);
}

static void check_same_file(const char *a, const char *b, const char *name)
{
    qz_map x, y;
    check_ok(qz_map_open(&x, fixture_in(a, name)));
    check_ok(qz_map_open(&y, fixture_in(b, name)));
    cr_assert(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, "%s", name);
    qz_map_close(&x);
    qz_map_close(&y);
}

Test(shards, order_of_writing_does_not_matter)
{
    const char *a = fixture_folder("a"), *b = fixture_folder("b");
    write_mixed(a, false);
    write_mixed(b, true);
    check_same_file(a, b, "model.safetensors");
}

/* Units of 12, 30 (in two tensors, the second declared last) and 8 bytes with a limit of 20. */
static void write_three(const char *folder)
{
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 20));
    declare(s, "one", "one", QZ_U8, 12);
    declare(s, "big", "big.a", QZ_U8, 10);
    declare(s, "three", "three", QZ_U8, 8);
    declare(s, "big", "big.b", QZ_U8, 20);
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write(s, "three", bytes, 8));
    check_ok(qz_shards_write(s, "big.b", bytes, 20));
    check_ok(qz_shards_write(s, "big.a", bytes, 10));
    check_ok(qz_shards_write(s, "one", bytes, 12));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
}

Test(shards, limit_units_and_index)
{
    const char *folder = fixture_folder("m");
    write_three(folder);
    fixture_text(folder, "config.json", "{}");
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_count(c) == 4 && qz_ckpt_bytes(c) == 50);
    cr_assert_str_eq(qz_ckpt_find(c, "one")->file, "model-00001-of-00003.safetensors");
    cr_assert_str_eq(qz_ckpt_find(c, "big.a")->file, "model-00002-of-00003.safetensors");
    cr_assert_str_eq(qz_ckpt_find(c, "big.b")->file, "model-00002-of-00003.safetensors");
    cr_assert_str_eq(qz_ckpt_find(c, "three")->file, "model-00003-of-00003.safetensors");
    qz_ckpt_close(c);
    qz_arena *a;
    char *text;
    size_t size;
    check_ok(qz_arena_new(&a, "t"));
    check_ok(qz_file_read(&text, &size, fixture_in(folder, "model.safetensors.index.json"), 10000, a));
    cr_assert(strstr(text, "\"total_size\": 50") != NULL, "%s", text);
    cr_assert(strstr(text, "\"big.a\"") < strstr(text, "\"big.b\"") &&
              strstr(text, "\"one\"") < strstr(text, "\"three\""));
    qz_arena_free(a);
}

Test(shards, misuse_is_named)
{
    qz_shards *s;
    check_ok(qz_shards_new(&s, fixture_folder("m"), 0));
    declare(s, "a", "a", QZ_F32, 2);
    declare(s, "b", "b", QZ_F32, 2);
    check_fails(QZ_ARG, "\"a\" is declared twice", qz_shards_declare(s, "x", "a", QZ_F32, 1, (int64_t[]){2}));
    check_fails(QZ_SHAPE, "\"c\"", qz_shards_declare(s, "c", "c", QZ_F32, 1, (int64_t[]){-1}));
    check_fails(QZ_SHAPE, "\"d\"", qz_shards_declare(s, "d", "d", QZ_F32, 2, (int64_t[]){INT64_MAX, 3}));
    check_fails(QZ_ARG, "\"e\": 9 dimensions", qz_shards_declare(s, "e", "e", QZ_F32, 9, (int64_t[9]){0}));
    check_fails(QZ_ARG, "not declared", qz_shards_write(s, "a", bytes, 8));
    check_fails(QZ_ARG, "not begun", qz_shards_finish(s));
    check_ok(qz_shards_begin(s));
    check_fails(QZ_ARG, "begun already", qz_shards_begin(s));
    check_fails(QZ_ARG, "after writing began", qz_shards_declare(s, "f", "f", QZ_F32, 1, (int64_t[]){2}));
    check_fails(QZ_ARG, "\"z\" is written but was not declared", qz_shards_write(s, "z", bytes, 8));
    check_fails(QZ_SHAPE, "7 bytes are written, but its shape and type take 8", qz_shards_write(s, "a", bytes, 7));
    check_ok(qz_shards_write(s, "a", bytes, 8));
    check_fails(QZ_ARG, "\"b\" was declared but not written", qz_shards_finish(s));
    check_ok(qz_shards_write(s, "b", bytes, 8));
    check_fails(QZ_ARG, "\"a\" is written twice", qz_shards_write(s, "a", bytes, 8));
    check_fails(QZ_ARG, "\"a\" was declared but not written exactly once", qz_shards_finish(s));
    qz_shards_free(s);
}

Test(shards, parts_in_any_order)
{
    const char *folder = fixture_folder("m");
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    declare(s, "a", "a", QZ_U8, 10);
    declare(s, "b", "b", QZ_U8, 3);
    declare(s, "c", "c", QZ_U8, 0);
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write(s, "b", bytes, 3));
    check_ok(qz_shards_write_part(s, "a", 6, bytes + 6, 4));
    check_fails(QZ_ARG, "\"a\" was declared but not written", qz_shards_finish(s));
    check_fails(QZ_SHAPE, "bytes up to 11 are written", qz_shards_write_part(s, "a", 7, bytes, 4));
    check_fails(QZ_SHAPE, "\"a\"", qz_shards_write_part(s, "a", UINT64_MAX, bytes, 4));
    check_ok(qz_shards_write_part(s, "a", 0, bytes, 6));
    check_fails(QZ_ARG, "\"c\" was declared but not written", qz_shards_finish(s));
    check_ok(qz_shards_write(s, "c", bytes, 0));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, fixture_in(folder, "model.safetensors")));
    cr_assert(memcmp(qz_safetensors_find(st, "a")->view.data, bytes, 10) == 0);
    qz_safetensors_close(st);
}

Test(shards, a_part_written_again)
{
    qz_shards *s;
    check_ok(qz_shards_new(&s, fixture_folder("m"), 0));
    declare(s, "a", "a", QZ_U8, 10);
    declare(s, "c", "c", QZ_U8, 0);
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write_part(s, "a", 0, bytes, 6));
    check_fails(QZ_ARG, "\"a\" is written twice", qz_shards_write_part(s, "a", 0, bytes, 6));
    check_ok(qz_shards_write(s, "c", bytes, 0));
    check_fails(QZ_ARG, "\"c\" is written twice", qz_shards_write(s, "c", bytes, 0));
    check_fails(QZ_ARG, "\"a\" was declared but not written exactly once", qz_shards_finish(s));
    qz_shards_free(s);
}

static size_t names_in(const char *folder)
{
    qz_arena *a;
    char **names;
    size_t count;
    check_ok(qz_arena_new(&a, "t"));
    check_ok(qz_folder_list(&names, &count, folder, a));
    qz_arena_free(a);
    return count;
}

Test(shards, unfinished_files_are_removed)
{
    const char *folder = fixture_folder("m");
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 4));
    declare(s, "a", "a", QZ_U8, 4);
    declare(s, "b", "b", QZ_U8, 4);
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write(s, "a", bytes, 4));
    cr_assert(names_in(folder) > 0);
    qz_shards_free(s);
    cr_assert(names_in(folder) == 0);
    qz_shards_free(NULL);
}

Test(shards, folder_that_cannot_be_written)
{
    qz_shards *s;
    check_ok(qz_shards_new(&s, test_path("absent"), 0));
    declare(s, "a", "a", QZ_U8, 4);
    check_fails(QZ_IO, "absent", qz_shards_begin(s));
    check_fails(QZ_ARG, "not declared", qz_shards_write(s, "a", bytes, 4));
    qz_shards_free(s);
}

Test(shards, several_threads_write)
{
    enum { N = 64 };
    const char *folder = fixture_folder("m");
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 500));
    char name[N][8];
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "t%d", i);
        declare(s, name[i], name[i], QZ_U8, 40 + i);
    }
    check_ok(qz_shards_begin(s));
    qz_threads_set(4);
    _Atomic int failed = 0;
    QZ_PARALLEL_FOR
    for (int i = 0; i < N; i++) failed += qz_shards_write(s, name[i], bytes + i, (size_t)(40 + i)) != QZ_OK;
    cr_assert(failed == 0);
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    fixture_text(folder, "config.json", "{}");
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    for (int i = 0; i < N; i++)
        cr_assert(memcmp(qz_ckpt_find(c, name[i])->view.data, bytes + i, (size_t)(40 + i)) == 0);
    qz_ckpt_close(c);
}

static qz_status write_small(const char *folder)
{
    qz_shards *s;
    QZ_TRY(qz_shards_new(&s, folder, 4));
    qz_status status = qz_shards_declare(s, "a", "a", QZ_U8, 1, (int64_t[]){4});
    if (status == QZ_OK) status = qz_shards_declare(s, "b", "b", QZ_U8, 1, (int64_t[]){4});
    if (status == QZ_OK) status = qz_shards_begin(s);
    if (status == QZ_OK) status = qz_shards_write(s, "a", bytes, 4);
    if (status == QZ_OK) status = qz_shards_write(s, "b", bytes, 4);
    if (status == QZ_OK) status = qz_shards_finish(s);
    qz_shards_free(s);
    return status;
}

Test(shards, every_allocation_may_fail)
{
    const char *folder = fixture_folder("m");
    qz_status status = QZ_MEMORY;
    long n = 1;
    for (; status != QZ_OK && n < 1000; n++) {
        qz_alloc_fail_at(n);
        status = write_small(folder);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 5 && n < 1000);
    cr_assert(names_in(folder) == 3);
}
