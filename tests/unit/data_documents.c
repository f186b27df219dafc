#include "base/h5.h"
#include "data/data_impl.h"
#include "testing/small_tokenizer.h"

typedef struct fixture {
    qz_arena *arena;
    qz_tokenizer *t;
    qz_ids ids;
    qz_windows_rule rule;
} fixture;

static fixture begin(const char *name, const char *text, size_t size)
{
    fixture f = {.t = small_open(small_json("\"a\": 0, \"b\": 1, \"c\": 2, \"\\n\": 3", "", "", ""))};
    check_ok(qz_arena_new(&f.arena, "test"));
    f.rule = (qz_windows_rule){.path = test_path(name)};
    test_write_file(f.rule.path, text, size);
    return f;
}

static void end(fixture *f)
{
    qz_tokenizer_close(f->t);
    qz_arena_free(f->arena);
}

static qz_status read_all(fixture *f)
{
    return qz_documents_read(&f->ids, &f->rule, f->t, SIZE_MAX, f->arena);
}

static void check_lines(const char *text, const char *field, const char *want)
{
    fixture f = begin("d.jsonl", text, strlen(text));
    f.rule.field = field;
    check_ok(read_all(&f));
    cr_assert_eq(f.ids.count, strlen(want));
    for (size_t i = 0; i < f.ids.count; i++) cr_expect_eq(f.ids.id[i], want[i] - 'a');
    end(&f);
}

static void check_line_fails(const char *text, const char *part)
{
    fixture f = begin("d.jsonl", text, strlen(text));
    check_fails(QZ_FORMAT, part, read_all(&f));
    cr_expect(strstr(qz_error_message(), "d.jsonl:"), "the file is not in \"%s\"", qz_error_message());
    end(&f);
}

Test(data_documents, lines_follow_one_another)
{
    check_lines("{\"text\": \"ab\"}\n\n{\"id\": 1, \"text\": \"ca\"}\r\n{\"text\": \"\"}\n{\"text\": \"b\"}", NULL,
                "abcab");
    check_lines("{\"body\": \"ab\", \"text\": 7}\n", "body", "ab");
}

Test(data_documents, lines_that_are_wrong_are_numbered)
{
    check_line_fails("{\"text\": \"a\"}\n{\"text\": \"a\"\n", ":2: ");
    check_line_fails("{\"text\": \"a\"}\n\n{\"body\": \"a\"}\n",
                     ":3: the field \"text\" is missing; the first field of this line is \"body\"");
    check_line_fails("[1]\n", ":1: found an array, expected an object with a field \"text\"");
    check_line_fails("{\"text\": 5}\n", ":1: text");
    check_line_fails("{\"text\": \"a\"} {}\n", ":1: ");
}

Test(data_documents, reading_stops_when_enough_is_there)
{
    const char *text = "{\"text\": \"abc\"}\n{\"text\": \"abc\"}\nnot read\n";
    fixture f = begin("d.jsonl", text, strlen(text));
    check_ok(qz_documents_read(&f.ids, &f.rule, f.t, 4, f.arena));
    cr_assert_eq(f.ids.count, 6, "a word is not cut");
    check_fails(QZ_FORMAT, ":3: ", read_all(&f));
    end(&f);
}

Test(data_documents, text_must_be_there_and_utf8)
{
    fixture f = begin("d.txt", "", 0);
    check_fails(QZ_FORMAT, "d.txt: the file is empty", read_all(&f));
    end(&f);
    f = begin("d.txt", "abc\xff\x00", 5);
    check_fails(QZ_FORMAT, "d.txt: not UTF-8 text: byte 0xff at offset 3", read_all(&f));
    f.rule.path = "/no/such/file.txt";
    check_fails(QZ_IO, "/no/such/file.txt", read_all(&f));
    end(&f);
    f = begin("d.jsonl", "{\"text\": \"\xc0\x80\"}", 14);
    check_fails(QZ_FORMAT, "offset 10", read_all(&f));
    end(&f);
}

Test(data_documents, unknown_suffixes_and_missing_tokenizers)
{
    fixture f = begin("d.csv", "a", 1);
    check_fails(QZ_ARG, "known suffixes: .txt, .jsonl, .h5, .hdf5", read_all(&f));
    f.rule.path = test_path("d.txt");
    check_fails(QZ_ARG, "text needs a tokenizer", qz_documents_read(&f.ids, &f.rule, NULL, SIZE_MAX, f.arena));
    end(&f);
}

static fixture with_h5(const char *dataset, const int64_t *ids, int rank, const uint64_t *shape)
{
    fixture f = begin("d.h5", "", 0);
    qz_h5 *file;
    check_ok(qz_h5_create(&file, f.rule.path));
    check_ok(qz_h5_write(file, dataset, QZ_H5_I64, ids, rank, shape));
    check_ok(qz_h5_close(file));
    return f;
}

Test(data_documents, ids_from_hdf5)
{
    fixture f = with_h5("ids", (int64_t[]){5, 0, 70000}, 1, (uint64_t[]){3});
    check_ok(qz_documents_read(&f.ids, &f.rule, NULL, SIZE_MAX, f.arena));
    cr_assert(f.ids.count == 3 && f.ids.id[0] == 5 && f.ids.id[2] == 70000);
    end(&f);
    f = with_h5("ids", (int64_t[]){5, -1}, 1, (uint64_t[]){2});
    check_fails(QZ_FORMAT, "ids[1] is -1, which is no token id", read_all(&f));
    end(&f);
    f = with_h5("ids", (int64_t[]){5, 6}, 2, (uint64_t[]){1, 2});
    check_fails(QZ_FORMAT, "rank 2", read_all(&f));
    end(&f);
    f = with_h5("tokens", (int64_t[]){5, 6}, 1, (uint64_t[]){2});
    check_fails(QZ_FORMAT, "there is no dataset \"ids\"", read_all(&f));
    end(&f);
}

Test(data_documents, hdf5_that_is_none)
{
    fixture f = begin("d.hdf5", "not HDF5", 8);
    check_fails(QZ_FORMAT, "d.hdf5", read_all(&f));
    end(&f);
}
