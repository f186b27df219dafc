/* An interrupted export goes on: the unfinished files are adopted when they fit, and end as the same bytes. */
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

enum { TENSORS = 4 };

static const char *const name[TENSORS] = {"a.codes", "a.scale", "b.codes", "c"};
static const char *const unit[TENSORS] = {"a", "a", "b", "c"};
static const int64_t length[TENSORS] = {10, 3, 12, 4}; /* of U8, F16, U8, F32 */
static const qz_dtype type[TENSORS] = {QZ_U8, QZ_F16, QZ_U8, QZ_F32};
static uint8_t bytes[64];

static void fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 5 + 1);
}

TestSuite(resume, .init = fill);

static size_t size_of(int i)
{
    return (size_t)length[i] * (size_t)qz_dtype_bits(type[i]) / 8;
}

/* Units of 16, 12 and 16 bytes; a limit of 20 gives three files, one of 30 two. */
static qz_shards *declared(const char *folder, uint64_t limit)
{
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, limit));
    for (int i = 0; i < TENSORS; i++) check_ok(qz_shards_declare(s, unit[i], name[i], type[i], 1, &length[i]));
    return s;
}

static void write_one(qz_shards *s, int i)
{
    check_ok(qz_shards_write(s, name[i], bytes + i, size_of(i)));
}

/* A run that stops after the unit "a" and half of "b". */
static void interrupted(const char *folder, uint64_t limit)
{
    qz_shards *s = declared(folder, limit);
    check_ok(qz_shards_begin(s));
    qz_shards_keep(s);
    write_one(s, 0);
    write_one(s, 1);
    check_ok(qz_shards_sync(s));
    check_ok(qz_shards_write_part(s, name[2], 3, "garbage", 7));
    qz_shards_free(s);
}

static void whole(const char *folder, uint64_t limit)
{
    qz_shards *s = declared(folder, limit);
    check_ok(qz_shards_begin(s));
    for (int i = 0; i < TENSORS; i++) write_one(s, i);
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
}

static void go_on(const char *folder, uint64_t limit)
{
    qz_shards *s = declared(folder, limit);
    check_ok(qz_shards_resume(s));
    check_ok(qz_shards_mark(s, name[0]));
    check_ok(qz_shards_mark(s, name[1]));
    write_one(s, 3);
    write_one(s, 2);
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
}

static void check_same_folder(const char *a, const char *b)
{
    qz_arena *arena;
    char **left, **right;
    size_t n, m;
    check_ok(qz_arena_new(&arena, "t"));
    check_ok(qz_folder_list(&left, &n, a, arena));
    check_ok(qz_folder_list(&right, &m, b, arena));
    cr_assert(n == m && n > 0, "%zu and %zu files", n, m);
    for (size_t i = 0; i < n; i++) {
        qz_map x, y;
        cr_assert_str_eq(left[i], right[i]);
        check_ok(qz_map_open(&x, fixture_in(a, left[i])));
        check_ok(qz_map_open(&y, fixture_in(b, left[i])));
        cr_assert(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, "%s", left[i]);
        qz_map_close(&x);
        qz_map_close(&y);
    }
    qz_arena_free(arena);
}

Test(resume, ends_with_the_same_bytes)
{
    static const uint64_t limit[] = {0, 20, 30};
    for (size_t i = 0; i < 3; i++) {
        char a[8], b[8];
        snprintf(a, sizeof a, "a%zu", i);
        snprintf(b, sizeof b, "b%zu", i);
        const char *cut = fixture_folder(a), *straight = fixture_folder(b);
        interrupted(cut, limit[i]);
        go_on(cut, limit[i]);
        whole(straight, limit[i]);
        check_same_folder(cut, straight);
    }
}

/* A run that dies between the renames of qz_shards_finish leaves both kinds of names. */
Test(resume, takes_finished_files_back)
{
    const char *cut = fixture_folder("a"), *straight = fixture_folder("b");
    whole(cut, 20);
    whole(straight, 20);
    cr_assert(rename(fixture_in(cut, "model-00002-of-00003.safetensors"),
                     fixture_in(cut, "model-00002-of-00003.safetensors.tmp")) == 0);
    go_on(cut, 20);
    check_same_folder(cut, straight);
}

Test(resume, another_layout_is_refused)
{
    const char *folder = fixture_folder("m");
    interrupted(folder, 20);
    qz_shards *s = declared(folder, 30);
    check_fails(QZ_IO, "model-00001-of-00002.safetensors.tmp", qz_shards_resume(s));
    qz_shards_free(s);
    s = declared(folder, 20);
    check_ok(qz_shards_declare(s, "c", "d", QZ_U8, 1, (int64_t[]){5}));
    check_fails(QZ_FORMAT, "model-00003-of-00003.safetensors.tmp: has", qz_shards_resume(s));
    qz_shards_free(s);
    check_ok(qz_shards_new(&s, folder, 20));
    for (int i = 0; i < TENSORS; i++)
        check_ok(qz_shards_declare(s, unit[i], i == 1 ? "a.scalf" : name[i], type[i], 1, &length[i]));
    check_fails(QZ_FORMAT, "differs from this run's layout at byte", qz_shards_resume(s));
    qz_shards_free(s);
    go_on(folder, 20); /* nothing was removed or changed */
}

Test(resume, damaged_files_are_refused_and_kept)
{
    const char *folder = fixture_folder("m"), *file = fixture_in(folder, "model.safetensors.tmp");
    struct stat before, after;
    interrupted(folder, 0);
    cr_assert(stat(file, &before) == 0 && truncate(file, before.st_size - 1) == 0);
    qz_shards *s = declared(folder, 0);
    check_fails(QZ_FORMAT, "model.safetensors.tmp: has", qz_shards_resume(s));
    qz_shards_free(s);
    cr_assert(stat(file, &after) == 0 && after.st_size == before.st_size - 1);
    cr_assert(truncate(file, before.st_size) == 0);
    FILE *f = fopen(file, "r+");
    cr_assert(f && fseek(f, 20, SEEK_SET) == 0 && fputc('#', f) == '#' && fclose(f) == 0);
    s = declared(folder, 0);
    check_fails(QZ_FORMAT, "at byte 20", qz_shards_resume(s));
    qz_shards_free(s);
    cr_assert(unlink(file) == 0);
    s = declared(folder, 0);
    check_fails(QZ_IO, "model.safetensors.tmp: cannot be opened", qz_shards_resume(s));
    qz_shards_free(s);
}

Test(resume, marks_are_checked)
{
    const char *folder = fixture_folder("m");
    interrupted(folder, 0);
    qz_shards *s = declared(folder, 0);
    check_fails(QZ_ARG, "not declared", qz_shards_mark(s, name[0]));
    check_ok(qz_shards_resume(s));
    check_fails(QZ_ARG, "\"x\" is said to be written but was not declared", qz_shards_mark(s, "x"));
    check_ok(qz_shards_mark(s, name[0]));
    check_fails(QZ_ARG, "\"a.codes\" is written twice", qz_shards_mark(s, name[0]));
    check_fails(QZ_ARG, "\"a.scale\" was declared but not written", qz_shards_finish(s));
    check_fails(QZ_ARG, "\"a.codes\" is written twice", qz_shards_write(s, name[0], bytes, 10));
    qz_shards_free(s);
    cr_assert(qz_path_exists(fixture_in(folder, "model.safetensors.tmp")));
}

Test(resume, unfinished_folder_is_read)
{
    static const uint64_t limit[] = {0, 20};
    for (size_t i = 0; i < 2; i++) {
        const char *folder = fixture_folder(i ? "a" : "b");
        qz_ckpt *c;
        interrupted(folder, limit[i]);
        check_fails(QZ_IO, "config.json is missing", qz_ckpt_open_unfinished(&c, folder));
        fixture_text(folder, "config.json", "{}");
        check_ok(qz_ckpt_open_unfinished(&c, folder));
        cr_assert(qz_ckpt_count(c) == TENSORS);
        cr_assert(memcmp(qz_ckpt_find(c, "a.codes")->view.data, bytes, 10) == 0);
        const qz_stored *untouched = qz_ckpt_find(c, "c");
        for (size_t b = 0; b < untouched->bytes; b++) cr_assert(((const uint8_t *)untouched->view.data)[b] == 0);
        qz_ckpt_close(c);
        check_fails(QZ_IO, "neither model.safetensors nor", qz_ckpt_open(&c, folder));
    }
    qz_ckpt *c;
    const char *empty = fixture_folder("empty");
    fixture_text(empty, "config.json", "{}");
    check_fails(QZ_IO, "holds no file of weights", qz_ckpt_open_unfinished(&c, empty));
}

static qz_status resume_small(const char *folder)
{
    qz_shards *s;
    QZ_TRY(qz_shards_new(&s, folder, 4));
    qz_status status = qz_shards_declare(s, "a", "a", QZ_U8, 1, (int64_t[]){4});
    if (status == QZ_OK) status = qz_shards_resume(s);
    if (status == QZ_OK) status = qz_shards_mark(s, "a");
    if (status == QZ_OK) status = qz_shards_finish(s);
    qz_shards_free(s);
    return status;
}

Test(resume, every_allocation_may_fail)
{
    const char *folder = fixture_folder("m");
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 4));
    check_ok(qz_shards_declare(s, "a", "a", QZ_U8, 1, (int64_t[]){4}));
    check_ok(qz_shards_begin(s));
    check_ok(qz_shards_write(s, "a", bytes, 4));
    qz_shards_keep(s);
    qz_shards_free(s);
    qz_status status = QZ_MEMORY;
    long n = 1;
    for (; status != QZ_OK && n < 1000; n++) {
        qz_alloc_fail_at(n);
        status = resume_small(folder);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 5 && n < 1000);
    cr_assert(qz_path_exists(fixture_in(folder, "model.safetensors")));
}
