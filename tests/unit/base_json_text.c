/* Editing keeps every other byte; writing reads back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "testing/testing.h"

static void edit(const char *text, const char *key, const char *value, const char *expected)
{
    qz_arena *arena;
    char *out;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_json_text_set(&out, text, key, value, arena));
    cr_assert_str_eq(out, expected);
    qz_arena_free(arena);
}

Test(json_text, replaces_in_place)
{
    edit("{\n  \"eps\": 1e-05,\n  \"t\": \"bfloat16\",\n  \"x\": 10000.0\n}\n", "t", "\"float16\"",
         "{\n  \"eps\": 1e-05,\n  \"t\": \"float16\",\n  \"x\": 10000.0\n}\n");
    edit("{\"t\":{\"t\":1},\"u\":2}", "t", "3", "{\"t\":3,\"u\":2}");
}

Test(json_text, adds_at_the_end_in_the_form_of_the_text)
{
    edit("{\n    \"a\": 1\n}\n", "b", "{\n  \"c\": 2\n}", "{\n    \"a\": 1,\n    \"b\": {\n      \"c\": 2\n    }\n}\n");
    edit("{\"a\": 1}", "b", "2", "{\"a\": 1, \"b\": 2}");
    edit("{}", "b", "2", "{\n  \"b\": 2\n}");
}

Test(json_text, follows_tabs_line_ends_and_compactness)
{
    edit("{\r\n\t\"a\": 1\r\n}", "b", "{\n  \"c\": 2\n}", "{\r\n\t\"a\": 1,\r\n\t\"b\": {\r\n\t  \"c\": 2\r\n\t}\r\n}");
    edit("{\"a\":1,\"c\":[ 1 ]}", "b", "2", "{\"a\":1,\"c\":[ 1 ],\"b\":2}");
    edit("{\n\"a\": 1\n}", "b", "2", "{\n\"a\": 1,\n\"b\": 2\n}");
    edit("  { \n } \n", "b", "2", "  {\n  \"b\": 2\n} \n");
    edit("{\n  \"a\": 1\n}", "a", "{\n  \"c\": 2\n}", "{\n  \"a\": {\n    \"c\": 2\n  }\n}");
}

Test(json_text, knows_a_key_behind_escapes)
{
    edit("{\"\\u0061\": 1}", "a", "2", "{\"\\u0061\": 2}");
    edit("{\"x\": 1, \"\\u0061\": 1}", "a", NULL, "{\"x\": 1}");
}

/* A text of 400 KB: the time must not grow with the square of its size. */
Test(json_text, edits_large_texts, .timeout = 20)
{
    enum { COUNT = 40000 };
    char *text = malloc(COUNT * 16 + 8), *p = text, *out;
    qz_arena *arena;
    for (int i = 0; i < COUNT; i++) p += sprintf(p, "%c\"k%d\":%d", i ? ',' : '{', i, i);
    strcpy(p, "}");
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_json_text_set(&out, text, "k39999", "\"new\"", arena));
    cr_assert_str_eq(out + strlen(out) - 15, "\"k39999\":\"new\"}");
    qz_arena_free(arena);
    free(text);
}

Test(json_text, every_failing_allocation_is_reported)
{
    qz_arena *arena;
    char *out = NULL;
    long n = 1;
    for (; n < 100 && !out; n++) {
        check_ok(qz_arena_new(&arena, "test"));
        qz_alloc_fail_at(n);
        qz_status status = qz_json_text_set(&out, "{\n  \"a\": 1\n}", "b", "[\n  2\n]", arena);
        qz_alloc_fail_at(0);
        cr_assert(status == (out ? QZ_OK : QZ_MEMORY));
        qz_arena_free(arena);
    }
    cr_assert(out != NULL && n > 4);
}

Test(json_text, removes_with_the_right_comma)
{
    edit("{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "a", NULL, "{\n  \"b\": 2,\n  \"c\": 3\n}");
    edit("{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "b", NULL, "{\n  \"a\": 1,\n  \"c\": 3\n}");
    edit("{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}", "c", NULL, "{\n  \"a\": 1,\n  \"b\": 2\n}");
    edit("{\"a\": 1}", "a", NULL, "{}");
    edit("{\"a\": 1}", "b", NULL, "{\"a\": 1}");
}

Test(json_text, ignores_keys_that_only_look_alike)
{
    edit("{\"ab\": 1, \"s\": \"\\\"a\\\": 5\", \"a\": 2}", "a", "3", "{\"ab\": 1, \"s\": \"\\\"a\\\": 5\", \"a\": 3}");
}

Test(json_text, refuses_what_is_no_object)
{
    qz_arena *arena;
    char *out;
    check_ok(qz_arena_new(&arena, "test"));
    check_fails(QZ_FORMAT, "not an object", qz_json_text_set(&out, "[1]", "a", "1", arena));
    check_fails(QZ_FORMAT, "line 1", qz_json_text_set(&out, "{", "a", "1", arena));
    check_fails(QZ_FORMAT, "appears twice", qz_json_text_set(&out, "{\"b\":1,\"b\":2}", "a", "1", arena));
    check_fails(QZ_FORMAT, "new value of \"a\"", qz_json_text_set(&out, "{}", "a", "nothing", arena));
    qz_arena_free(arena);
}

Test(json_writer, pretty_text)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    check_ok(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "s", "a\"\\\n\x01");
    qz_json_begin_array(w, "l");
    qz_json_put_int(w, NULL, -3);
    qz_json_put_bool(w, NULL, true);
    qz_json_end(w);
    qz_json_begin_object(w, "o");
    qz_json_end(w);
    qz_json_put_double(w, "n", NAN);
    check_ok(qz_json_writer_finish(w, &text, &size));
    cr_assert_str_eq(
        text,
        "{\n  \"s\": \"a\\\"\\\\\\n\\u0001\",\n  \"l\": [\n    -3,\n    true\n  ],\n  \"o\": {},\n  \"n\": null\n}\n");
    cr_assert(size == strlen(text));
    qz_json_writer_free(w);
}

static void check_string(const char *value, const char *expected)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    check_ok(qz_json_writer_new(&w, false));
    qz_json_put_string(w, NULL, value);
    check_ok(qz_json_writer_finish(w, &text, &size));
    cr_assert_str_eq(text, expected);
    qz_json_writer_free(w);
}

Test(json_writer, strings_are_always_json)
{
    check_string("", "\"\"");
    check_string("a/b\\c", "\"a/b\\\\c\"");
    check_string("\x1f\x7f\xe2\x82\xac", "\"\\u001f\x7f\xe2\x82\xac\"");
    check_string("\xff"
                 "a\xe2\x82",
                 "\"\xef\xbf\xbd"
                 "a\xef\xbf\xbd\xef\xbf\xbd\"");
    check_string(NULL, "null");
}

Test(json_writer, closes_what_is_open_and_limits_depth)
{
    qz_json_writer *w;
    qz_json *doc;
    const char *text;
    size_t size;
    check_ok(qz_json_writer_new(&w, false));
    for (int i = 0; i < 200; i++) qz_json_begin_array(w, NULL);
    check_ok(qz_json_writer_finish(w, &text, &size));
    check_ok(qz_json_parse(&doc, text, size));
    qz_json_close(doc);
    qz_json_writer_free(w);
    check_ok(qz_json_writer_new(&w, false));
    for (int i = 0; i < 201; i++) qz_json_begin_array(w, NULL);
    check_fails(QZ_ARG, "nested more than 200", qz_json_writer_finish(w, &text, &size));
    qz_json_writer_free(w);
}

Test(json_writer, failing_allocations_stick)
{
    for (long n = 1; n < 4; n++) {
        qz_json_writer *w;
        const char *text;
        size_t size;
        qz_alloc_fail_at(n);
        qz_status status = qz_json_writer_new(&w, true);
        if (status == QZ_OK) {
            qz_json_begin_object(w, NULL);
            qz_json_put_string(w, "key", "a value that is longer than what was there, so that it grows");
            status = qz_json_writer_finish(w, &text, &size);
        }
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_MEMORY, "%ld", n);
        qz_json_writer_free(w);
    }
}

Test(json_writer, doubles_are_short_and_read_back)
{
    static const double values[] = {0.1,   1e-5, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789012345680.0,
                                    39.146};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        qz_json_writer *w;
        qz_json *doc;
        const char *text;
        size_t size;
        check_ok(qz_json_writer_new(&w, false));
        qz_json_put_double(w, NULL, values[i]);
        check_ok(qz_json_writer_finish(w, &text, &size));
        check_ok(qz_json_parse(&doc, text, size));
        cr_assert(qz_json_double(qz_json_root(doc)) == values[i], "%s", text);
        cr_assert(values[i] != 0.1 || strcmp(text, "0.1") == 0);
        qz_json_close(doc);
        qz_json_writer_free(w);
    }
}
