/* JSON at the door: what is refused, with what words, and that nothing leaks when memory ends. */
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

#include "testing/testing.h"

static qz_json *parse(const char *text)
{
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    return doc;
}

static void refuse(const char *text, size_t size, const char *part)
{
    qz_json *doc;
    check_fails(QZ_FORMAT, part, qz_json_parse(&doc, text, size));
    cr_assert(doc == NULL);
}

Test(json, reads_values)
{
    qz_json *doc = parse(" {\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\"], \"b\": {}} ");
    const qz_json_node *a = qz_json_get(qz_json_root(doc), "a"), *v = qz_json_first(a);
    int64_t n;
    double d;
    check_ok(qz_json_int(v, "a[0]", 0, 9, &n));
    cr_assert(n == 1 && qz_json_count(a) == 5);
    v = qz_json_next(v);
    check_ok(qz_json_number(v, "a[1]", -1e9, 1e9, &d));
    cr_assert(d == -2500);
    v = qz_json_next(v);
    cr_assert(qz_json_true(v));
    v = qz_json_next(v);
    cr_assert(qz_json_is(v, QZ_JSON_NULL));
    v = qz_json_next(v);
    cr_assert_str_eq(qz_json_text(v), "x\n\xc3\xa9");
    cr_assert(qz_json_next(v) == NULL);
    cr_assert(qz_json_get(qz_json_root(doc), "c") == NULL);
    qz_json_close(doc);
}

Test(json, refuses_what_is_not_rfc_8259)
{
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "line 1, column 1"},
        {"{\"a\":1,\n  \"b\" 2}", "line 2, column 7"},
        {"{\"a\":1,}", "expected a string"},
        {"[1, 2", "the text ends"},
        {"[1] 2", "the end of the text"},
        {"01", "leading zero"},
        {"1.", "a digit"},
        {"+1", "a value"},
        {"nul", "a value"},
        {"\"a\tb\"", "control character"},
        {"\"\\x\"", "escape"},
        {"\"\\u0000\"", "\\u0000"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\xc0\xaf\"", "UTF-8"},
        {"\"\\ud800\\u0041\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"\\u00g0\"", "found 'g', expected four hexadecimal digits"},
        {"{\"k\":1,\"k\":2}", "line 1, column 8: the key \"k\" appears twice"},
        {"{\"k\":1,\"\\u006b\":2}", "line 1, column 8: the key \"k\" appears twice"},
        {"[{\"k\":[1,{}],\n \"l\":1,  \"k\":2}]", "line 2, column 10: the key \"k\" appears twice"},
        {"[1e999]", "line 1, column 2: the number is too large"},
        {"-1e999", "line 1, column 1: the number is too large"},
        {"{\"a\":\n1,\"b\":1e400}", "line 2, column 3: the number is too large"},
        {"\xef\xbb\xbf{}", "byte order mark"},
        {"[\"\xc3\xa9\xc3\xa9\" \xe2\x82\xac]", "line 1, column 7: found '\xe2\x82\xac', expected ',' or ']'"},
        {"{1:2}", "expected a string"},
        {"{\"a\"}", "expected ':'"},
        {"[1,]", "expected a value"},
        {"[,1]", "expected a value"},
        {"]", "expected a value"},
        {"-", "a digit"},
        {".5", "a value"},
        {"1e", "a digit"},
        {"0x10", "the end of the text"},
        {"NaN", "a value"},
        {"Infinity", "a value"},
        {"'a'", "a value"},
        {"[1 // one\n]", "expected ',' or ']'"},
        {"\"abc", "the rest of a string"},
        {"\"abc\\", "an escape character"},
        {"\"\xed\xa0\x80\"", "line 1, column 2: not valid UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuse(bad[i].text, strlen(bad[i].text), bad[i].part);
    refuse("[1]\0", 4, "line 1, column 4");
    refuse("\"a\0b\"", 5, "control character");
}

/* cJSON reads at most 63 characters of a number: the rest would be lost, or be taken for the next thing. */
Test(json, refuses_numbers_that_would_be_cut_off)
{
    char text[80] = "[";
    memset(text + 1, '1', 63);
    strcpy(text + 64, "]");
    qz_json *doc = parse(text);
    cr_assert(qz_json_double(qz_json_first(qz_json_root(doc))) > 1e62);
    qz_json_close(doc);
    strcpy(text + 64, "1]");
    refuse(text, strlen(text), "line 1, column 2: a number of more than 63 characters");
    refuse(text + 1, 64, "line 1, column 1: a number of more than 63 characters");
}

Test(json, every_cut_off_text_is_refused)
{
    static const char text[] = "{\"a\": [1.5e-3, \"\\ud83d\\ude00\\n\", true], \"b\": {\"c\": null, \"d\": -0}}";
    qz_json *doc = parse(text);
    qz_json_close(doc);
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *cut = malloc(n ? n : 1); /* of exactly that size, for AddressSanitizer */
        memcpy(cut, text, n);
        refuse(cut, n, "line 1, column");
        free(cut);
    }
}

static void check_print(const char *text, size_t room, const char *expected)
{
    char out[64];
    qz_json *doc = parse(text);
    memset(out, 'x', sizeof out);
    qz_json_print(qz_json_root(doc), out, room);
    cr_assert_str_eq(out, expected);
    qz_json_close(doc);
}

Test(json, prints_on_one_line_and_cuts_between_characters)
{
    check_print("\"a\\nb\"", 64, "\"a b\"");
    check_print("\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\"", 16, "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9...\"");
    check_print("0.1", 64, "0.1");
    check_print("1234567890123456", 64, "1234567890123456");
    check_print("[1, 2]", 64, "an array of 2 elements");
    check_print("{}", 64, "an object of 0 members");
    check_print("null", 64, "null");
}

Test(json, refuses_deep_nesting)
{
    char text[1001];
    memset(text, '[', 1000);
    refuse(text, 1000, "200 deep");
}

Test(json, integers_must_be_exact)
{
    static const char *const bad[] = {"1.5", "9007199254740993", "-9007199254740993", "1e300", "\"1\"", "11", "null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qz_json *doc = parse(bad[i]);
        int64_t n;
        check_fails(QZ_FORMAT, "thing: found", qz_json_int(qz_json_root(doc), "thing", 0, 10, &n));
        qz_json_close(doc);
    }
    int64_t n;
    check_fails(QZ_FORMAT, "nothing", qz_json_int(NULL, "thing", 0, 10, &n));
}

static char *object_of(int count, int repeat)
{
    char *text = malloc((size_t)count * 24 + 64), *p = text;
    *p++ = '{';
    for (int i = 0; i < count; i++) p += sprintf(p, "%s\"key%d\":%d", i ? "," : "", i, i);
    if (repeat >= 0) p += sprintf(p, ",\"key%d\":0", repeat);
    strcpy(p, "}");
    return text;
}

Test(json, large_objects_are_indexed_and_checked, .timeout = 20)
{
    char *text = object_of(100000, -1), key[32];
    qz_json *doc = parse(text);
    for (int i = 0; i < 100000; i++) {
        sprintf(key, "key%d", i);
        cr_assert((int)qz_json_double(qz_json_get(qz_json_root(doc), key)) == i);
    }
    cr_assert(qz_json_get(qz_json_root(doc), "absent") == NULL);
    qz_json_close(doc);
    free(text);
    text = object_of(20, 7);
    refuse(text, strlen(text), "\"key7\" appears twice");
    free(text);
    text = object_of(100000, 99999);
    char expected[64];
    sprintf(expected, "column %zu: the key \"key99999\" appears", strlen(text) - strlen("\"key99999\":0}") + 1);
    refuse(text, strlen(text), expected);
    free(text);
}

Test(json, every_failing_allocation_is_reported)
{
    char *text = object_of(12, -1);
    qz_json *doc = NULL;
    long n = 1;
    for (; n < 1000 && !doc; n++) {
        qz_alloc_fail_at(n);
        qz_status status = qz_json_parse(&doc, text, strlen(text));
        cr_assert(status == QZ_OK || status == QZ_MEMORY);
    }
    qz_alloc_fail_at(0);
    cr_assert(doc != NULL && n > 10);
    qz_json_close(doc);
    free(text);
}
