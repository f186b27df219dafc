#include "testing/small_tokenizer.h"

#define SPECIAL(id) "{\"SpecialToken\": {\"id\": \"" id "\", \"type_id\": 0}}"
#define TEXT "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define TOKENS                                                                                                         \
    ", \"pair\": [], \"special_tokens\": {\"B\": {\"id\": \"B\", \"ids\": [1, 2], \"tokens\": []}, \"E\": {\"id\": "   \
    "\"E\", \"ids\": [3], \"tokens\": []}}}"
#define TEMPLATE(single) "{\"type\": \"TemplateProcessing\", \"single\": [" single "]" TOKENS

static const char vocab[] = "\"a\": 0, \"b1\": 1, \"b2\": 2, \"e\": 3";

static void check_around(const char *processor, const char *want)
{
    char rest[2048];
    snprintf(rest, sizeof rest, ", \"post_processor\": %s", processor);
    qz_tokenizer *t = small_open(small_json(vocab, "", "", rest));
    check_tokens_sized(t, "a", 1, true, want);
    check_tokens_sized(t, "a", 1, false, "a");
    qz_tokenizer_close(t);
}

static void check_post_fails(qz_status code, const char *part, const char *processor)
{
    char rest[2048];
    qz_tokenizer *t;
    snprintf(rest, sizeof rest, ", \"post_processor\": %s", processor);
    const char *json = small_json(vocab, "", "", rest);
    check_fails(code, part, qz_tokenizer_parse(&t, json, strlen(json), "small.json"));
}

Test(data_tokenizer_post, templates)
{
    check_around(TEMPLATE(SPECIAL("B") ", " TEXT ", " SPECIAL("E")), "b1|b2|a|e");
    check_around(TEMPLATE(TEXT), "a");
    check_around("null", "a");
    check_around("{\"type\": \"ByteLevel\", \"trim_offsets\": false}", "a");
}

Test(data_tokenizer_post, later_processors_go_around_earlier_ones)
{
    check_around("{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(SPECIAL(
                     "E") ", " TEXT ", " SPECIAL("E")) ", " TEMPLATE(SPECIAL("B") ", " TEXT ", " SPECIAL("B")) "]}",
                 "b1|b2|e|a|e|b1|b2");
}

Test(data_tokenizer_post, wrong_templates_are_named)
{
    check_post_fails(QZ_UNSUPPORTED, "post_processor.single: the text \"A\" is not in it", TEMPLATE(SPECIAL("B")));
    check_post_fails(QZ_UNSUPPORTED, "exactly once", TEMPLATE(TEXT ", " TEXT));
    check_post_fails(QZ_UNSUPPORTED, "found \"B\"", TEMPLATE("{\"Sequence\": {\"id\": \"B\"}}"));
    check_post_fails(QZ_FORMAT, "post_processor.special_tokens[\"X\"].ids", TEMPLATE(SPECIAL("X") ", " TEXT));
    check_post_fails(QZ_FORMAT, "ids: ",
                     "{\"type\": \"TemplateProcessing\", \"single\": [" SPECIAL(
                         "B") ", " TEXT "], \"special_tokens\": {\"B\": {\"ids\": [99]}}}");
    check_post_fails(QZ_FORMAT, "post_processor.processors: found null", "{\"type\": \"Sequence\"}");
}
