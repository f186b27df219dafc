/* Editing keeps every other byte; writing reads back. */
#include <math.h>

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
    cr_assert_str_eq(text, "{\n  \"s\": \"a\\\"\\\\\\n\\u0001\",\n  \"l\": [\n    -3,\n    true\n  ],\n  \"o\": {},\n  \"n\": null\n}\n");
    cr_assert(size == strlen(text));
    qz_json_writer_free(w);
}

Test(json_writer, doubles_are_short_and_read_back)
{
    static const double values[] = {0.1, 1e-5, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789012345680.0, 39.146};
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
