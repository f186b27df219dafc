/* One safetensors file: what is read, and what is refused with which words. */
#include "base/arena.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

static const uint8_t zeros[256];

/* Parses `header` over `size` bytes of data. */
static qz_status parse(const char *header, size_t size)
{
    size_t n;
    uint8_t *bytes = fixture_bytes(&n, header, zeros, size);
    qz_safetensors *st;
    qz_status status = qz_safetensors_parse(&st, bytes, n, "a.safetensors");
    qz_safetensors_close(st);
    free(bytes);
    return status;
}

static qz_status parse_length(uint64_t length, size_t follow)
{
    uint8_t bytes[64] = {0};
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(length >> (8 * i));
    memset(bytes + 8, '{', follow);
    qz_safetensors *st;
    qz_status status = qz_safetensors_parse(&st, bytes, 8 + follow, "a.safetensors");
    qz_safetensors_close(st);
    return status;
}

Test(safetensors, reads_names_types_shapes_and_bytes)
{
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"b\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[12,20]},"
                         "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                         "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[20,24]},"
                         "\"e\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[24,24]}}   ";
    uint8_t data[24];
    for (int i = 0; i < 24; i++) data[i] = (uint8_t)i;
    size_t n;
    uint8_t *bytes = fixture_bytes(&n, header, data, sizeof data);
    qz_safetensors *st;
    check_ok(qz_safetensors_parse(&st, bytes, n, "folder/a.safetensors"));
    cr_assert(qz_safetensors_count(st) == 4);
    cr_assert(qz_safetensors_at(st, 4) == NULL);
    const qz_stored *a = qz_safetensors_at(st, 0), *b = qz_safetensors_find(st, "b");
    cr_assert_str_eq(a->name, "a");
    cr_assert_str_eq(a->file, "a.safetensors");
    cr_assert(a->view.dtype == QZ_BF16 && a->view.ndim == 2 && a->view.shape[1] == 3 && a->view.stride[0] == 3);
    cr_assert(a->bytes == 12 && a->offset == n - 24);
    cr_assert(b == qz_safetensors_at(st, 1) && memcmp(b->view.data, data + 12, 8) == 0);
    cr_assert(qz_safetensors_find(st, "s")->view.ndim == 0);
    cr_assert(qz_safetensors_find(st, "e")->bytes == 0);
    cr_assert(qz_safetensors_find(st, "__metadata__") == NULL);
    cr_assert_str_eq(qz_safetensors_metadata(st, "format"), "pt");
    cr_assert(qz_safetensors_metadata(st, "other") == NULL);
    qz_safetensors_close(st);
    free(bytes);
}

Test(safetensors, empty_file_without_tensors)
{
    check_ok(parse("{}", 0));
    check_fails(QZ_FORMAT, "end at byte 0", parse("{}", 1));
}

Test(safetensors, missing_and_truncated_files)
{
    qz_safetensors *st;
    check_fails(QZ_IO, "absent.safetensors", qz_safetensors_open(&st, test_path("absent.safetensors")));
    cr_assert(st == NULL);
    test_write_file(test_path("empty.safetensors"), "", 0);
    check_fails(QZ_FORMAT, "0 bytes are too few", qz_safetensors_open(&st, test_path("empty.safetensors")));
    test_write_file(test_path("short.safetensors"), "1234567", 7);
    check_fails(QZ_FORMAT, "7 bytes are too few", qz_safetensors_open(&st, test_path("short.safetensors")));
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
    fixture_file(test_path("cut.safetensors"), header, zeros, 15);
    check_fails(QZ_FORMAT, "truncated", qz_safetensors_open(&st, test_path("cut.safetensors")));
    fixture_file(test_path("whole.safetensors"), header, zeros, 16);
    check_ok(qz_safetensors_open(&st, test_path("whole.safetensors")));
    qz_safetensors_close(st);
}

Test(safetensors, absurd_header_lengths)
{
    check_fails(QZ_FORMAT, "1152921504606846976 bytes; at most 100000000", parse_length((uint64_t)1 << 60, 8));
    check_fails(QZ_FORMAT, "at most 100000000", parse_length(UINT64_MAX, 8));
    check_fails(QZ_FORMAT, "at most 100000000", parse_length(100000001, 8));
    check_fails(QZ_FORMAT, "only 8 follow", parse_length(100000000, 8));
    check_fails(QZ_FORMAT, "only 8 follow", parse_length(9, 8));
    check_fails(QZ_FORMAT, "does not begin with '{'", parse_length(0, 8));
}

Test(safetensors, header_must_be_a_json_object)
{
    check_fails(QZ_FORMAT, "does not begin with '{'", parse("[1]", 0));
    check_fails(QZ_FORMAT, "does not begin with '{'", parse(" {}", 0));
    check_fails(QZ_FORMAT, "a.safetensors: header", parse("{\"a\":", 0));
    check_fails(QZ_FORMAT, "a.safetensors: header", parse("{} x", 0));
    check_fails(QZ_FORMAT, "found a number, expected an object", parse("{\"a\":1}", 0));
    check_fails(QZ_FORMAT, "a.safetensors", parse("{\"__metadata__\":{\"a\":1}}", 0));
    check_fails(QZ_FORMAT, "__metadata__ is not an object", parse("{\"__metadata__\":[]}", 0));
}

Test(safetensors, offsets_overlap_gap_or_leave_the_file)
{
#define TWO(a0, a1, b0, b1)                                                                                            \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #a0 "," #a1 "]},"                                      \
    "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #b0 "," #b1 "]}}"
    check_ok(parse(TWO(0, 4, 4, 8), 8));
    check_ok(parse(TWO(4, 8, 0, 4), 8));
    check_fails(QZ_FORMAT, "overlap", parse(TWO(0, 4, 3, 7), 7));
    check_fails(QZ_FORMAT, "overlap", parse(TWO(0, 4, 0, 4), 4));
    check_fails(QZ_FORMAT, "gap", parse(TWO(0, 4, 5, 9), 9));
    check_fails(QZ_FORMAT, "gap", parse(TWO(1, 5, 5, 9), 9));
    check_fails(QZ_FORMAT, "past the file's 7 bytes", parse(TWO(0, 4, 4, 8), 7));
    check_fails(QZ_FORMAT, "end at byte 8", parse(TWO(0, 4, 4, 8), 9));
    check_fails(QZ_FORMAT, "begin 4 lies after end 0", parse(TWO(4, 0, 4, 8), 8));
    check_fails(QZ_FORMAT, "tensor \"a\": data_offsets", parse(TWO(-4, 0, 4, 8), 8));
    check_fails(QZ_FORMAT, "tensor \"a\": data_offsets", parse(TWO(0.5, 4.5, 4, 8), 8));
    check_fails(QZ_FORMAT, "tensor \"b\": data_offsets", parse(TWO(0, 4, 4, 1e30), 8));
    check_fails(QZ_FORMAT, "tensor \"b\": data_offsets", parse(TWO(0, 4, 4, "8"), 8));
}

static qz_status parse_one(const char *fields, size_t size)
{
    char header[512];
    snprintf(header, sizeof header, "{\"a\":{%s}}", fields);
    return parse(header, size);
}

Test(safetensors, types_shapes_and_byte_counts)
{
    check_ok(parse_one("\"dtype\":\"F4\",\"shape\":[2,3],\"data_offsets\":[0,3]", 3));
    check_fails(QZ_FORMAT, "\"F17\" is not a type",
                parse_one("\"dtype\":\"F17\",\"shape\":[1],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "dtype", parse_one("\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "dtype", parse_one("\"shape\":[1],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "shape", parse_one("\"dtype\":\"F32\",\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "data_offsets", parse_one("\"dtype\":\"F32\",\"shape\":[1]", 4));
    check_fails(QZ_FORMAT, "data_offsets", parse_one("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]", 4));
    check_fails(QZ_FORMAT, "2 elements of F32 take 8 bytes, but data_offsets span 4",
                parse_one("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "1 elements of F32 take 4 bytes, but data_offsets span 8",
                parse_one("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]", 8));
    check_fails(QZ_FORMAT, "shape", parse_one("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "shape", parse_one("\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_FORMAT, "shape", parse_one("\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_SHAPE, "overflow",
                parse_one("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_SHAPE, "overflow",
                parse_one("\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]", 0));
    check_fails(QZ_SHAPE, "\"a\"",
                parse_one("\"dtype\":\"F32\",\"shape\":[2147483648,2147483648],\"data_offsets\":[0,4]", 4));
    check_fails(QZ_SHAPE, "\"a\"", parse_one("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]", 2));
    check_fails(QZ_UNSUPPORTED, "9 dimensions",
                parse_one("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]", 1));
}

Test(safetensors, duplicate_names)
{
    check_fails(QZ_FORMAT, "\"a\"",
                parse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                      2));
}

Test(safetensors, every_allocation_may_fail)
{
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}";
    qz_status status = QZ_MEMORY;
    long n = 1;
    for (; status != QZ_OK && n < 1000; n++) {
        qz_alloc_fail_at(n);
        status = parse(header, 4);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 3 && n < 1000);
}
