#include "base/log.h"
#include "testing/small_tokenizer.h"

static const char vocab[] =
    "\"<unk>\": 0, \"a\": 1, \" \": 2, \"<\": 3, \"T\": 4, \">\": 5, \"x\": 6, \"\\u00e9\": 7, \"\\t\": 8";

static qz_tokenizer *with_added(const char *list, const char *rest)
{
    char members[2048];
    snprintf(members, sizeof members, ", \"added_tokens\": [%s]%s", list, rest);
    return small_open(small_json(vocab, "", "", members));
}

static void check_added(const char *list, const char *text, const char *want)
{
    qz_tokenizer *t = with_added(list, "");
    check_tokens(t, text, want);
    qz_tokenizer_close(t);
}

Test(data_tokenizer_added, leftmost_and_longest)
{
    check_added(
        "{\"id\": 9, \"content\": \"<T\"}, {\"id\": 10, \"content\": \"<T>\"}, {\"id\": 11, \"content\": \"T>x\"}",
        "a<T>x<Ta<T", "a|<T>|x|<T|a|<T");
}

Test(data_tokenizer_added, single_words)
{
    /* The token and the vocabulary's "T" share an id; the spaces that the token takes tell them apart. */
    check_added("{\"id\": 4, \"content\": \"T\", \"single_word\": true, \"lstrip\": true}", " T aT T\xc3\xa9 T",
                "T| |a|T| |T|\xc3\xa9|T");
}

Test(data_tokenizer_added, strips_white_space)
{
    check_added("{\"id\": 9, \"content\": \"<T>\", \"lstrip\": true}", "a \t <T> a", "a|<T>| |a");
    check_added("{\"id\": 9, \"content\": \"<T>\", \"rstrip\": true}", "a <T> \xe2\x80\x83 <T>a", "a| |<T>|<T>|a");
    check_added("{\"id\": 9, \"content\": \"<T>\", \"lstrip\": true, \"rstrip\": true}", "  <T>  <T>  ", "<T>|<T>");
}

Test(data_tokenizer_added, raw_tokens_come_before_normalization_and_others_after)
{
    const char *lower = ", \"normalizer\": {\"type\": \"Lowercase\"}";
    qz_tokenizer *t = with_added("{\"id\": 9, \"content\": \"<T>\", \"normalized\": false}", lower);
    check_tokens(t, "<T>X<t>", "<T>|x|<|>");
    qz_tokenizer_close(t);
    t = with_added("{\"id\": 9, \"content\": \"<T>\", \"normalized\": true}", lower);
    check_tokens(t, "<T>X<t>", "<t>|x|<t>");
    qz_tokenizer_close(t);
}

static void count_warning(void *context, const char *message)
{
    (void)message;
    ++*(int *)context;
}

Test(data_tokenizer_added, ids_are_those_of_the_place)
{
    int warnings = 0;
    qz_log_to(count_warning, &warnings);
    qz_tokenizer *t = with_added(
        "{\"id\": 9, \"content\": \"<A>\"}, {\"id\": 40, \"content\": \"<B>\"}, {\"id\": 1, \"content\": \"a\"}, "
        "{\"id\": 77, \"content\": \"\"}",
        "");
    cr_expect_eq(qz_tokenizer_id(t, "<A>"), 9);
    cr_expect_eq(qz_tokenizer_id(t, "<B>"), 10);
    cr_expect_eq(qz_tokenizer_id(t, "a"), 1);
    cr_expect_eq(qz_tokenizer_size(t), 11);
    cr_expect_eq(warnings, 1, "an id that differs from the file's is warned of once, not %d times", warnings);
    qz_tokenizer_close(t);
    qz_log_to(NULL, NULL);
}

Test(data_tokenizer_added, wrong_entries_are_named)
{
    qz_tokenizer *t;
    const char *json = small_json(
        vocab, "", "", ", \"added_tokens\": [{\"id\": 0, \"content\": \"a\"}, {\"id\": -1, \"content\": \"b\"}]");
    check_fails(QZ_FORMAT, "added_tokens[1].id", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = small_json(vocab, "", "", ", \"added_tokens\": [{\"id\": 99999999, \"content\": \"a\"}]");
    check_fails(QZ_FORMAT, "added_tokens[0].id", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = small_json(vocab, "", "", ", \"added_tokens\": [{\"id\": 9}]");
    check_fails(QZ_FORMAT, "added_tokens[0].content", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = small_json(vocab, "", "", ", \"added_tokens\": {}");
    check_fails(QZ_FORMAT, "added_tokens: found an object", qz_tokenizer_parse(&t, json, strlen(json), "x"));
}
