#include <time.h>

#include "testing/small_tokenizer.h"

static const char vocab[] = "\"<unk>\": 0, \"a\": 1, \"b\": 2, \"c\": 3, \"ab\": 4, \"abc\": 5";
static const char merges[] = "\"a b\", [\"ab\", \"c\"]";

static void check_parse_fails(qz_status code, const char *part, const char *json)
{
    qz_tokenizer *t;
    check_fails(code, part, qz_tokenizer_parse(&t, json, strlen(json), "small.json"));
    cr_expect(t == NULL);
    cr_expect(strstr(qz_error_message(), "small.json: ") == qz_error_message(), "no file in \"%s\"",
              qz_error_message());
}

Test(data_tokenizer, encodes_and_knows_its_tokens)
{
    qz_tokenizer *t =
        small_open(small_json(vocab, merges, "", ", \"added_tokens\": [{\"id\": 6, \"content\": \"<s>\"}]"));
    check_tokens(t, "abcab<s>ca", "abc|ab|<s>|c|a");
    check_tokens(t, "", "");
    cr_expect_eq(qz_tokenizer_size(t), 7);
    cr_expect_eq(qz_tokenizer_id(t, "<s>"), 6);
    cr_expect_eq(qz_tokenizer_id(t, "ab"), 4);
    cr_expect_eq(qz_tokenizer_id(t, "z"), -1);
    qz_tokenizer_close(t);
    qz_tokenizer_close(NULL);
}

Test(data_tokenizer, text_must_be_utf8)
{
    qz_arena *arena;
    qz_ids ids;
    qz_tokenizer *t = small_open(small_json(vocab, merges, "", ""));
    check_ok(qz_arena_new(&arena, "test"));
    check_fails(QZ_FORMAT, "byte 0xc3 at offset 2", qz_tokenizer_encode(t, "ab\xc3", 3, true, &ids, arena));
    qz_arena_free(arena);
    qz_tokenizer_close(t);
}

Test(data_tokenizer, some_ids_are_the_first_of_all)
{
    qz_arena *arena;
    qz_ids ids;
    qz_tokenizer *t = small_open(small_json(vocab, merges, "", ", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}"));
    check_ok(qz_arena_new(&arena, "test"));
    const char *text = "abc ab cc a abc";
    check_ok(qz_tokenizer_encode_some(t, text, strlen(text), 3, &ids, arena));
    cr_assert(ids.count == 4 && !memcmp(ids.id, (int32_t[]){5, 4, 3, 3}, sizeof(int32_t[4])));
    check_ok(qz_tokenizer_encode_some(t, text, strlen(text), 100, &ids, arena));
    cr_assert_eq(ids.count, 6);
    qz_arena_free(arena);
    qz_tokenizer_close(t);
}

Test(data_tokenizer, files_that_are_none)
{
    qz_tokenizer *t;
    check_fails(QZ_IO, "/no/tokenizer.json", qz_tokenizer_open(&t, "/no/tokenizer.json"));
    check_parse_fails(QZ_FORMAT, "line 1", "{\"model\": ");
    check_parse_fails(QZ_FORMAT, "found an array, expected an object", "[]");
    check_parse_fails(QZ_FORMAT, "model: found nothing", "{}");
    check_parse_fails(QZ_UNSUPPORTED, "version: \"2.0\" is not known; known: 1.0", "{\"version\": \"2.0\"}");
    check_parse_fails(QZ_UNSUPPORTED, "option \"later\" is not known", "{\"later\": 1}");
}

Test(data_tokenizer, unknown_components_are_named)
{
    check_parse_fails(QZ_UNSUPPORTED, "model.type: \"Unigram\" is not known; known: BPE",
                      "{\"model\": {\"type\": \"Unigram\"}}");
    check_parse_fails(QZ_UNSUPPORTED,
                      "pre_tokenizer.pretokenizers[1].type: \"Foo\" is not known; known: ByteLevel, Split",
                      small_json(vocab, merges, "",
                                 ", \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                                 "\"Whitespace\"}, {\"type\": \"Foo\"}]}"));
    check_parse_fails(QZ_UNSUPPORTED, "normalizer.type: \"Precompiled\" is not known",
                      small_json(vocab, merges, "", ", \"normalizer\": {\"type\": \"Precompiled\"}"));
    check_parse_fails(QZ_UNSUPPORTED, "decoder.type: \"CTC\" is not known",
                      small_json(vocab, merges, "", ", \"decoder\": {\"type\": \"CTC\"}"));
    check_parse_fails(QZ_UNSUPPORTED, "post_processor.type: \"BertProcessing\" is not known",
                      small_json(vocab, merges, "", ", \"post_processor\": {\"type\": \"BertProcessing\"}"));
    check_parse_fails(QZ_FORMAT, "normalizer: found a string",
                      small_json(vocab, merges, "", ", \"normalizer\": \"NFC\""));
}

Test(data_tokenizer, unknown_options_are_named)
{
    check_parse_fails(QZ_UNSUPPORTED, "normalizer: option \"form\" is not known",
                      small_json(vocab, merges, "", ", \"normalizer\": {\"type\": \"NFC\", \"form\": 1}"));
    check_parse_fails(QZ_UNSUPPORTED, "pre_tokenizer: option \"fast\" is not known",
                      small_json(vocab, merges, "", ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"fast\": true}"));
    check_parse_fails(
        QZ_FORMAT, "pre_tokenizer.use_regex",
        small_json(vocab, merges, "", ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"use_regex\": 3}"));
    check_parse_fails(QZ_UNSUPPORTED, "model: option \"noise\" is not known",
                      small_json(vocab, merges, ", \"noise\": 0", ""));
    check_parse_fails(QZ_UNSUPPORTED, "model: option \"\" is not known", small_json(vocab, merges, ", \"\": 0", ""));
    check_parse_fails(QZ_UNSUPPORTED, "model: option \"vocab merges\" is not known",
                      small_json(vocab, merges, ", \"vocab merges\": 0", ""));
}

Test(data_tokenizer, every_failing_allocation_is_reported)
{
    const char *json = small_json(
        vocab, merges, ", \"unk_token\": \"<unk>\"",
        ", \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"added_tokens\": "
        "[{\"id\": 6, \"content\": \"<s>\", \"normalized\": true}], \"decoder\": {\"type\": \"ByteLevel\"}");
    qz_arena *arena;
    qz_status status;
    long n = 1;
    do {
        cr_assert(n < 2000, "allocations never end");
        qz_tokenizer *t = NULL;
        qz_ids ids;
        char *text;
        size_t size;
        check_ok(qz_arena_new(&arena, "test"));
        qz_alloc_fail_at(n++);
        status = qz_tokenizer_parse(&t, json, strlen(json), "small.json");
        if (status == QZ_OK) status = qz_tokenizer_encode(t, "abc abc\xc3\xa9 <s>", 14, true, &ids, arena);
        if (status == QZ_OK) status = qz_tokenizer_decode(t, ids.id, ids.count, false, &text, &size, arena);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n - 1, qz_error_message());
        qz_tokenizer_close(t);
        qz_arena_free(arena);
    } while (status != QZ_OK);
    cr_assert(n > 20);
}

Test(data_tokenizer, a_megabyte_of_one_letter)
{
    size_t size = 1000000;
    qz_arena *arena;
    qz_ids ids;
    check_ok(qz_arena_new(&arena, "test"));
    qz_tokenizer *t = small_open(small_json("\"a\": 0, \"aa\": 1, \"aaaa\": 2", "\"a a\", \"aa aa\"", "", ""));
    char *text = qz_arena_alloc(arena, size);
    memset(text, 'a', size);
    clock_t start = clock();
    check_ok(qz_tokenizer_encode(t, text, size, false, &ids, arena));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    cr_expect_eq(ids.count, size / 4);
    /* n log n takes 0.2 s, and some 3 s under sanitizers; a quadratic one would take an hour. */
    cr_expect(seconds < 20, "%.1f s", seconds);
    qz_tokenizer_close(t);
    qz_arena_free(arena);
}

/* ---- how far it is ---- */

typedef struct watch {
    uint64_t ids, calls, done;
} watch;

static qz_status count_ids(void *self, const int32_t *ids, size_t count)
{
    (void)ids;
    ((watch *)self)->ids += count;
    return QZ_OK;
}

enum { WORDS = 200000 };

/* A word is two bytes of the text and one id. */
static qz_status check_passed(void *self, uint64_t done, uint64_t all)
{
    watch *w = self;
    w->calls++;
    cr_assert_eq(all, 2 * WORDS);
    cr_assert(done + 4 > 2 * w->ids && done < 2 * w->ids + 4, "%llu bytes after %llu words", (unsigned long long)done,
              (unsigned long long)w->ids);
    cr_assert(done > w->done);
    w->done = done;
    return QZ_OK;
}

static qz_status stop(void *self, uint64_t done, uint64_t all)
{
    (void)self, (void)done, (void)all;
    return QZ_FAIL(QZ_INTERRUPTED, "enough");
}

static void check_watched(const char *rest)
{
    static char text[2 * WORDS];
    watch w = {0};
    for (int i = 0; i < WORDS; i++) memcpy(text + 2 * i, "x ", 2);
    qz_tokenizer *t = small_open(small_json("\"x\": 0, \"yyy\": 1", "", ", \"ignore_merges\": true", rest));
    qz_ids_taker taker = {.self = &w, .take = count_ids, .passed = check_passed};
    check_ok(qz_tokenizer_encode_to(t, text, sizeof text, SIZE_MAX, &taker));
    cr_assert(w.ids == WORDS && w.calls == 4 && w.done == sizeof text, "%llu calls", (unsigned long long)w.calls);
    taker.passed = stop;
    check_fails(QZ_INTERRUPTED, "enough", qz_tokenizer_encode_to(t, text, sizeof text, SIZE_MAX, &taker));
    qz_tokenizer_close(t);
}

Test(data_tokenizer, who_asks_is_told_how_far_it_is)
{
    check_watched(", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}");
    check_watched(", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"normalizer\": {\"type\": \"Replace\", "
                  "\"pattern\": {\"String\": \"x\"}, \"content\": \"yyy\"}");
}
