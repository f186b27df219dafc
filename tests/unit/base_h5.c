/* Datasets of numbers go there and back; what does not fit is refused and never changed on the way. */
#include "base/h5.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "testing/testing.h"

Test(h5, round_trip)
{
    qz_h5 *f;
    int32_t ids[6] = {1, -2, 3, 70000, 5, 6}, back[6];
    uint16_t narrow[6];
    double d[6];
    uint64_t shape[8];
    int rank;
    bool integer;
    char text[16];
    const char *path = test_path("ids.h5");
    check_ok(qz_h5_create(&f, path));
    check_ok(qz_h5_write(f, "ids", QZ_H5_I32, ids, 2, (uint64_t[]){2, 3}));
    check_ok(qz_h5_write_text(f, "made_by", "a test"));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, path));
    check_ok(qz_h5_shape(f, "ids", &rank, shape, &integer));
    cr_assert(rank == 2 && shape[0] == 2 && shape[1] == 3 && integer);
    check_ok(qz_h5_read(f, "ids", QZ_H5_I32, back, 6));
    cr_assert(memcmp(ids, back, sizeof ids) == 0);
    check_ok(qz_h5_read(f, "ids", QZ_H5_F64, d, 6));
    cr_assert(d[3] == 70000);
    check_fails(QZ_FORMAT, "ids", qz_h5_read(f, "ids", QZ_H5_U16, narrow, 6));
    check_fails(QZ_SHAPE, "6 elements", qz_h5_read(f, "ids", QZ_H5_I32, back, 5));
    check_fails(QZ_FORMAT, "no dataset \"none\"", qz_h5_read(f, "none", QZ_H5_I32, back, 5));
    check_ok(qz_h5_read_text(f, "made_by", text, sizeof text));
    cr_assert_str_eq(text, "a test");
    check_fails(QZ_FORMAT, "no attribute", qz_h5_read_text(f, "absent", text, sizeof text));
    check_ok(qz_h5_close(f));
}

Test(h5, refuses_other_files)
{
    qz_h5 *f;
    test_write_file(test_path("no.h5"), "text", 4);
    check_fails(QZ_FORMAT, "not an HDF5 file", qz_h5_open(&f, test_path("no.h5")));
    check_fails(QZ_IO, "No such file", qz_h5_open(&f, test_path("none.h5")));
}

Test(h5, refuses_pipes_folders_and_cut_off_files)
{
    qz_h5 *f;
    cr_assert(mkfifo(test_path("pipe"), 0600) == 0);
    check_fails(QZ_IO, "not a regular file", qz_h5_open(&f, test_path("pipe")));
    check_fails(QZ_IO, "not a regular file", qz_h5_open(&f, test_folder()));
    check_ok(qz_h5_create(&f, test_path("whole")));
    check_ok(qz_h5_write(f, "x", QZ_H5_F64, (double[1000]){0}, 1, (uint64_t[]){1000}));
    check_ok(qz_h5_close(f));
    qz_arena *arena;
    char *bytes;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&bytes, &size, test_path("whole"), 1 << 20, arena));
    test_write_file(test_path("cut"), bytes, size / 2);
    check_fails(QZ_FORMAT, "cut: is not an HDF5 file: truncated", qz_h5_open(&f, test_path("cut")));
    qz_arena_free(arena);
}

static qz_h5 *file_of(const char *name, qz_h5_type type, const void *values, size_t count)
{
    qz_h5 *f;
    check_ok(qz_h5_create(&f, test_path(name)));
    check_ok(qz_h5_write(f, "x", type, values, 1, (uint64_t[]){count}));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, test_path(name)));
    return f;
}

Test(h5, integers_that_do_not_fit_are_refused)
{
    int32_t i32[2];
    int64_t i64[2];
    uint32_t u32[2];
    qz_h5 *f = file_of("wide", QZ_H5_I64, (int64_t[]){1, (int64_t)1 << 31}, 2);
    check_fails(QZ_FORMAT, "wide: x", qz_h5_read(f, "x", QZ_H5_I32, i32, 2));
    check_ok(qz_h5_read(f, "x", QZ_H5_U32, u32, 2));
    cr_assert(u32[1] == 1u << 31);
    check_ok(qz_h5_close(f));
    f = file_of("signed", QZ_H5_I32, (int32_t[]){1, -1}, 2);
    check_fails(QZ_FORMAT, "signed: x", qz_h5_read(f, "x", QZ_H5_U32, u32, 2));
    check_ok(qz_h5_read(f, "x", QZ_H5_I64, i64, 2));
    cr_assert(i64[1] == -1);
    check_ok(qz_h5_close(f));
}

Test(h5, numbers_are_not_rounded_to_integers)
{
    int32_t i[3];
    float s[3];
    qz_h5 *f = file_of("whole", QZ_H5_F64, (double[]){1, -2, 3}, 3);
    check_ok(qz_h5_read(f, "x", QZ_H5_I32, i, 3));
    cr_assert(i[0] == 1 && i[1] == -2 && i[2] == 3);
    check_ok(qz_h5_close(f));
    static const double bad[] = {1.5, NAN, INFINITY, -INFINITY, 1e10};
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        f = file_of("bad", QZ_H5_F64, (double[]){1, bad[n], 3}, 3);
        check_fails(QZ_FORMAT, "bad: x", qz_h5_read(f, "x", QZ_H5_I32, i, 3));
        check_ok(qz_h5_close(f));
    }
    f = file_of("special", QZ_H5_F64, (double[]){0.1, NAN, -INFINITY}, 3);
    check_ok(qz_h5_read(f, "x", QZ_H5_F32, s, 3));
    cr_assert(s[0] == 0.1f && isnan(s[1]) && s[2] == -INFINITY);
    check_ok(qz_h5_close(f));
    f = file_of("huge", QZ_H5_F64, (double[]){0.1, 1e300, 1}, 3);
    check_fails(QZ_FORMAT, "huge: x", qz_h5_read(f, "x", QZ_H5_F32, s, 3));
    check_ok(qz_h5_close(f));
}

Test(h5, an_abandoned_file_leaves_nothing)
{
    qz_h5 *f;
    check_ok(qz_h5_create(&f, test_path("gone")));
    qz_h5_abandon(f);
    qz_h5_abandon(NULL);
    cr_assert(!qz_path_exists(test_path("gone")) && !qz_path_exists(test_path("gone.tmp")));
    check_fails(QZ_IO, "cannot be created", qz_h5_create(&f, test_path("no/folder")));
}

Test(h5, groups_and_attributes)
{
    qz_h5 *f;
    int64_t n;
    double d;
    uint64_t big[2] = {1, UINT64_MAX}, back[2];
    uint8_t bytes[3] = {0, 7, 255}, same[3];
    check_ok(qz_h5_create(&f, test_path("g")));
    check_ok(qz_h5_write(f, "a/b/u64", QZ_H5_U64, big, 1, (uint64_t[]){2}));
    check_ok(qz_h5_write(f, "/a/b/u8", QZ_H5_U8, bytes, 1, (uint64_t[]){3}));
    check_ok(qz_h5_write_int(f, "a/b", "tokens", -5));
    check_ok(qz_h5_write_double(f, "a/b/u8", "peak", 0.1));
    check_ok(qz_h5_write_int(f, "/", "version", 1));
    check_fails(QZ_IO, "the attribute cannot be written", qz_h5_write_int(f, "a/c", "x", 1));
    check_fails(QZ_IO, "a/b/u8", qz_h5_write(f, "a/b/u8", QZ_H5_U8, bytes, 1, (uint64_t[]){3}));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, test_path("g")));
    cr_assert(qz_h5_has(f, "a") && qz_h5_has(f, "a/b") && !qz_h5_has(f, "a/c") && !qz_h5_has(f, "x/y/z"));
    check_ok(qz_h5_read(f, "a/b/u64", QZ_H5_U64, back, 2));
    check_ok(qz_h5_read(f, "a/b/u8", QZ_H5_U8, same, 3));
    cr_assert(memcmp(big, back, sizeof big) == 0 && memcmp(bytes, same, sizeof bytes) == 0);
    check_ok(qz_h5_read_int(f, "a/b", "tokens", &n));
    cr_assert(n == -5);
    check_ok(qz_h5_read_int(f, "/", "version", &n));
    cr_assert(n == 1);
    check_ok(qz_h5_read_double(f, "a/b/u8", "peak", &d));
    cr_assert(d == 0.1);
    check_fails(QZ_FORMAT, "a/b has no attribute \"none\"", qz_h5_read_int(f, "a/b", "none", &n));
    check_fails(QZ_FORMAT, "a/c has no attribute", qz_h5_read_int(f, "a/c", "tokens", &n));
    check_fails(QZ_FORMAT, "no number of the wanted type", qz_h5_read_int(f, "a/b/u8", "peak", &n));
    check_fails(QZ_FORMAT, "is not a dataset", qz_h5_read(f, "a/b", QZ_H5_U8, same, 3));
    check_ok(qz_h5_close(f));
}

/* Parts of a compressed matrix, written out of order, then read across the chunks. */
Test(h5, parts)
{
    enum { ROWS = 7, COLS = 10 };
    qz_h5 *f;
    float x[ROWS][COLS], part[3][4], whole[ROWS][COLS];
    for (int i = 0; i < ROWS * COLS; i++) x[i / COLS][i % COLS] = (float)i / 3;
    check_ok(qz_h5_create(&f, test_path("p")));
    check_ok(qz_h5_make(f, "m/x", QZ_H5_F32, 2, (uint64_t[]){ROWS, COLS}, (uint64_t[]){3, 100}));
    check_ok(qz_h5_write_part(f, "m/x", QZ_H5_F32, x[3], 2, (uint64_t[]){3, 0}, (uint64_t[]){4, COLS}));
    check_ok(qz_h5_write_part(f, "m/x", QZ_H5_F32, x[0], 2, (uint64_t[]){0, 0}, (uint64_t[]){3, COLS}));
    check_ok(qz_h5_make(f, "empty", QZ_H5_F32, 2, (uint64_t[]){0, COLS}, (uint64_t[]){3, 100}));
    check_ok(qz_h5_make(f, "unwritten", QZ_H5_U64, 1, (uint64_t[]){2}, (uint64_t[]){2}));
    check_fails(QZ_SHAPE, "m/x: has 7 elements in dimension 0, expected at least 8",
                qz_h5_write_part(f, "m/x", QZ_H5_F32, x, 2, (uint64_t[]){4, 0}, (uint64_t[]){4, COLS}));
    check_fails(QZ_SHAPE, "m/x: has 2 dimensions, expected 1",
                qz_h5_write_part(f, "m/x", QZ_H5_F32, x, 1, (uint64_t[]){4}, (uint64_t[]){4}));
    check_fails(QZ_FORMAT, "no dataset \"none\"",
                qz_h5_write_part(f, "none", QZ_H5_F32, x, 1, (uint64_t[]){4}, (uint64_t[]){4}));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, test_path("p")));
    check_ok(qz_h5_read(f, "m/x", QZ_H5_F32, whole, ROWS * COLS));
    cr_assert(memcmp(x, whole, sizeof x) == 0);
    check_ok(qz_h5_read_part(f, "m/x", QZ_H5_F32, part, 2, (uint64_t[]){2, 5}, (uint64_t[]){3, 4}));
    for (int i = 0; i < 3; i++) cr_assert(memcmp(part[i], &x[2 + i][5], sizeof part[i]) == 0);
    uint64_t zero[2] = {1, 1};
    check_ok(qz_h5_read(f, "unwritten", QZ_H5_U64, zero, 2));
    cr_assert(zero[0] == 0 && zero[1] == 0);
    check_ok(qz_h5_close(f));
}

Test(h5, half_precision)
{
    qz_h5 *f;
    /* 1, -2, 65504, the least normal and subnormal number, infinity */
    const uint16_t bits[6] = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x7c00};
    const float want[6] = {1, -2, 65504, 0x1p-14f, 0x1p-24f, INFINITY};
    uint16_t back[6];
    float wide[6];
    check_ok(qz_h5_create(&f, test_path("h")));
    check_ok(qz_h5_make(f, "x", QZ_H5_F16, 1, (uint64_t[]){6}, (uint64_t[]){4}));
    check_ok(qz_h5_write_part(f, "x", QZ_H5_F16, bits, 1, (uint64_t[]){0}, (uint64_t[]){6}));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, test_path("h")));
    check_ok(qz_h5_read(f, "x", QZ_H5_F16, back, 6));
    cr_assert(memcmp(bits, back, sizeof bits) == 0);
    check_ok(qz_h5_read(f, "x", QZ_H5_F32, wide, 6));
    cr_assert(memcmp(wide, want, sizeof want) == 0);
    check_ok(qz_h5_close(f));
}

/* A bit that changed inside a chunk is found by its checksum. */
Test(h5, damage_inside_a_chunk_is_found)
{
    enum { N = 50000 };
    static float x[N];
    qz_h5 *f;
    for (int i = 0; i < N; i++) x[i] = (float)(i * 7919 % 10007) / 3;
    check_ok(qz_h5_create(&f, test_path("d")));
    check_ok(qz_h5_make(f, "x", QZ_H5_F32, 1, (uint64_t[]){N}, (uint64_t[]){N}));
    check_ok(qz_h5_write_part(f, "x", QZ_H5_F32, x, 1, (uint64_t[]){0}, (uint64_t[]){N}));
    check_ok(qz_h5_close(f));
    qz_arena *arena;
    char *bytes;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&bytes, &size, test_path("d"), 1 << 20, arena));
    bytes[size / 2] ^= 4;
    test_write_file(test_path("d"), bytes, size);
    check_ok(qz_h5_open(&f, test_path("d")));
    check_fails(QZ_FORMAT, "d: x: cannot be read", qz_h5_read(f, "x", QZ_H5_F32, x, N));
    check_ok(qz_h5_close(f));
    qz_arena_free(arena);
}
