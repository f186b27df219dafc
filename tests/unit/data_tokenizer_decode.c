#include "testing/small_tokenizer.h"

static void check_decoded(const qz_tokenizer *t, const int32_t *ids, size_t count, bool skip, const char *want)
{
    qz_arena *arena;
    char *text;
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_tokenizer_decode(t, ids, count, skip, &text, &size, arena));
    cr_expect_str_eq(text, want, "found \"%s\", expected \"%s\"", text, want);
    cr_expect_eq(size, strlen(want));
    qz_arena_free(arena);
}

#define CHECK(t, skip, want, ...)                                                                                      \
    check_decoded(t, (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), skip, want)

static qz_tokenizer *with_decoder(const char *vocab, const char *decoder)
{
    char rest[1024];
    snprintf(rest, sizeof rest,
             ", \"decoder\": %s, \"added_tokens\": [{\"id\": 0, \"content\": \"<s>\", \"special\": true}]", decoder);
    return small_open(small_json(vocab, "", "", rest));
}

/* Bytes F0 9F 98 80 are one character; E2 28 A1 is wrong at E2 and at A1 (Unicode's table 3-8). */
Test(data_tokenizer_decode, byte_level_repairs)
{
    qz_tokenizer *t = with_decoder(
        "\"<s>\": 0, \"\xc3\xb0\xc5\x81\": 1, \"\xc4\xba\xc4\xa2\": 2, \"\xc3\xa2\": 3, \"(\": 4, \"\xc2\xa1\": 5, "
        "\"\xc4\xa0"
        "a\": 6, \"\xe4\xb8\xad"
        "\xc4\xa0\": 7",
        "{\"type\": \"ByteLevel\"}");
    CHECK(t, false, "\xf0\x9f\x98\x80", 1, 2);
    CHECK(t, false, "\xef\xbf\xbd a", 1, 6);
    CHECK(t, false, "\xef\xbf\xbd(\xef\xbf\xbd", 3, 4, 5);
    CHECK(t, false, "<s> a", 0, 6);
    CHECK(t, true, " a", 0, 6);
    CHECK(t, false, "\xe4\xb8\xad\xc4\xa0", 7); /* a token outside the alphabet is its own text */
    CHECK(t, false, " a", 99, 6, -1);
    check_decoded(t, NULL, 0, false, "");
    qz_tokenizer_close(t);
}

Test(data_tokenizer_decode, sentencepiece_style)
{
    qz_tokenizer *t = with_decoder("\"<s>\": 0, \"\xe2\x96\x81"
                                   "a\": 1, \"<0xC3>\": 2, \"<0xA9>\": 3, \"b\": 4, \"<0xg0>\": 5",
                                   "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                                   "{\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}, "
                                   "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", "
                                   "\"content\": \" \", \"start\": 1, \"stop\": 0}]}");
    CHECK(t, false, "a a", 1, 1);
    CHECK(t, false,
          "a\xc3\xa9"
          "b",
          1, 2, 3, 4);
    CHECK(t, false,
          "\xef\xbf\xbd"
          "b\xef\xbf\xbd\xef\xbf\xbd",
          2, 4, 3, 2);
    CHECK(t, false, "<0xg0>", 5);
    CHECK(t, true, "a", 0, 1);
    qz_tokenizer_close(t);
}

Test(data_tokenizer_decode, metaspace_drops_the_first_only)
{
    const char *vocab = "\"<s>\": 0, \"_a\": 1, \"b_\": 2";
    qz_tokenizer *t = with_decoder(vocab, "{\"type\": \"Metaspace\", \"replacement\": \"_\"}");
    CHECK(t, false, "a ab ", 1, 1, 2);
    qz_tokenizer_close(t);
    t = with_decoder(vocab, "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"never\"}");
    CHECK(t, false, " ab ", 1, 2);
    qz_tokenizer_close(t);
}

Test(data_tokenizer_decode, strip_works_on_each_token)
{
    qz_tokenizer *t = with_decoder("\"<s>\": 0, \"__a_\": 1, \"_\": 2",
                                   "{\"type\": \"Strip\", \"content\": \"_\", \"start\": 1, \"stop\": 2}");
    CHECK(t, false, "_a", 1, 2);
    qz_tokenizer_close(t);
}

Test(data_tokenizer_decode, without_a_decoder_tokens_are_joined_by_spaces)
{
    qz_tokenizer *t = with_decoder("\"<s>\": 0, \"a\": 1", "null");
    CHECK(t, false, "<s> a a", 0, 1, 1);
    CHECK(t, true, "a a", 0, 1, 1);
    qz_tokenizer_close(t);
}

/* A normalized token comes back as the text that was looked for, which is no longer the special token's. */
Test(data_tokenizer_decode, normalized_tokens)
{
    qz_tokenizer *t = small_open(
        small_json("\"a\": 0", "", "",
                   ", \"normalizer\": {\"type\": \"Lowercase\"}, \"decoder\": {\"type\": \"Fuse\"}, "
                   "\"added_tokens\": [{\"id\": 1, \"content\": \"<S>\", \"special\": true, \"normalized\": true}]"));
    CHECK(t, false, "a<s>", 0, 1);
    CHECK(t, true, "a<s>", 0, 1);
    qz_tokenizer_close(t);
}
