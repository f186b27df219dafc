#include "testing/small_tokenizer.h"

/* What `text` becomes under the normalizer (JSON); `first` is whether it still begins where it began. */
static void check_normal(const char *normalizer, const char *text, const char *want, bool still_first)
{
    char rest[1024];
    qz_matcher *m;
    qz_text a = {0}, b = {0};
    bool first = true;
    snprintf(rest, sizeof rest, ", \"normalizer\": %s", normalizer);
    qz_tokenizer *t = small_open(small_json("\"a\": 0", "", "", rest));
    check_ok(qz_matcher_new(&m));
    check_ok(qz_text_add(&a, text, strlen(text)));
    check_ok(qz_normals_apply(&t->normals, &a, &b, &first, m));
    check_ok(qz_text_add(&a, "", 1));
    cr_expect_str_eq(a.data, want, "%s of \"%s\": \"%s\", expected \"%s\"", normalizer, text, a.data, want);
    cr_expect_eq(first, still_first, "%s of \"%s\"", normalizer, text);
    qz_text_free(&a);
    qz_text_free(&b);
    qz_matcher_free(m);
    qz_tokenizer_close(t);
}

Test(data_tokenizer_normalize, unicode_forms)
{
    const char *text = "e\xcc\x81\xc3\xa9\xef\xac\x81\xe2\x84\xab"; /* e + acute, e acute, fi ligature, angstrom sign */
    check_normal("{\"type\": \"NFC\"}", text, "\xc3\xa9\xc3\xa9\xef\xac\x81\xc3\x85", true);
    check_normal("{\"type\": \"NFD\"}", text,
                 "e\xcc\x81"
                 "e\xcc\x81\xef\xac\x81"
                 "A\xcc\x8a",
                 true);
    check_normal("{\"type\": \"NFKC\"}", text,
                 "\xc3\xa9\xc3\xa9"
                 "fi\xc3\x85",
                 true);
    check_normal("{\"type\": \"NFKD\"}", text,
                 "e\xcc\x81"
                 "e\xcc\x81"
                 "fiA\xcc\x8a",
                 true);
}

/* U+119E0 has a combining class since Unicode 12, which the library's tables do not know: no reordering. */
Test(data_tokenizer_normalize, later_characters_are_ordinary)
{
    check_normal("{\"type\": \"NFC\"}", "a\xe0\xb8\xae\xcc\x81\xf0\x91\xa7\xa0",
                 "a\xe0\xb8\xae\xcc\x81\xf0\x91\xa7\xa0", true);
    check_normal("{\"type\": \"NFC\"}", "a\xe0\xb8\xae\xcc\x81\xcc\xa7", "a\xe0\xb8\xae\xcc\xa7\xcc\x81", true);
}

/* U+11A7 is a vowel and joins no syllable. */
Test(data_tokenizer_normalize, hangul)
{
    check_normal("{\"type\": \"NFC\"}", "\xea\xb0\x9c\xe1\x86\xa7", "\xea\xb0\x9c\xe1\x86\xa7", true);
    check_normal("{\"type\": \"NFC\"}", "\xea\xb0\x9c\xe1\x86\xa8", "\xea\xb0\x9d", true);
}

Test(data_tokenizer_normalize, lowercase_is_by_character)
{
    check_normal("{\"type\": \"Lowercase\"}", "A\xc3\x89\xc4\xb0\xce\xa3\xc3\x9f", "a\xc3\xa9i\xcc\x87\xcf\x83\xc3\x9f",
                 true);
}

Test(data_tokenizer_normalize, strip_and_prepend)
{
    check_normal("{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}",
                 " \xe3\x80\x80"
                 "a b\n",
                 "a b", false);
    check_normal("{\"type\": \"Strip\", \"strip_left\": false, \"strip_right\": true}", " a ", " a", true);
    check_normal("{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}", "  ", "", false);
    check_normal("{\"type\": \"Prepend\", \"prepend\": \"_\"}", "a", "_a", true);
    check_normal("{\"type\": \"Prepend\", \"prepend\": \"_\"}", "", "", true);
}

Test(data_tokenizer_normalize, replace)
{
    check_normal("{\"type\": \"Replace\", \"pattern\": {\"String\": \".\"}, \"content\": \"!\"}", "a.b.", "a!b!", true);
    check_normal("{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"b*\"}, \"content\": \"-\"}", "abba", "-a-a-",
                 true);
    check_normal("{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"\"}", "aba", "b", false);
}

Test(data_tokenizer_normalize, in_sequence)
{
    check_normal("{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \" \"}, {\"type\": "
                 "\"Replace\", "
                 "\"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}, {\"type\": \"ByteLevel\"}]}",
                 "a b",
                 "\xc3\xa2\xc4\xb8\xc4\xa3"
                 "a\xc3\xa2\xc4\xb8\xc4\xa3"
                 "b",
                 true);
}

Test(data_tokenizer_normalize, wrong_options_are_named)
{
    qz_tokenizer *t;
    const char *json = small_json(
        "\"a\": 0", "", "", ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\"}]}");
    check_fails(QZ_FORMAT, "normalizer.normalizers[0].prepend", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = small_json("\"a\": 0", "", "",
                      ", \"normalizer\": {\"type\": \"Replace\", \"content\": \"\", \"pattern\": {\"Regex\": \"(\"}}");
    check_fails(QZ_UNSUPPORTED, "normalizer.pattern: regular expression",
                qz_tokenizer_parse(&t, json, strlen(json), "x"));
}
