/* Expected pieces were taken from tokenizers 0.23.3 (pre_tokenize_str). */
#include "testing/small_tokenizer.h"

#define SPLIT(pattern, behavior, invert)                                                                               \
    "{\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"" behavior "\", \"invert\": " invert "}"
#define SPACE "{\"String\": \" \"}"

Test(data_tokenizer_split, behaviors)
{
    check_pieces(SPLIT(SPACE, "Removed", "false"), " a  b c", "a|b|c");
    check_pieces(SPLIT(SPACE, "Isolated", "false"), " a  b c", " |a| | |b| |c");
    check_pieces(SPLIT(SPACE, "Contiguous", "false"), " a  b c", " |a|  |b| |c");
    check_pieces(SPLIT(SPACE, "MergedWithPrevious", "false"), " a  b c ", " |a | |b |c ");
    check_pieces(SPLIT(SPACE, "MergedWithNext", "false"), " a  b c ", " a| | b| c| ");
}

Test(data_tokenizer_split, inverted)
{
    check_pieces(SPLIT("{\"Regex\": \"[a-z]+\"}", "Removed", "true"), "ab, cd!", "ab|cd");
    check_pieces(SPLIT("{\"Regex\": \"[a-z]+\"}", "MergedWithPrevious", "true"), "ab, cd!", "ab, |cd!");
}

Test(data_tokenizer_split, empty_matches_cut)
{
    check_pieces(SPLIT("{\"Regex\": \"(?=[A-Z])\"}", "Isolated", "false"), "aBcD", "a|Bc|D");
    check_pieces(SPLIT("{\"Regex\": \"x*\"}", "Isolated", "false"), "axxb", "a|xx|b");
}

#define LLAMA3                                                                                                         \
    "{\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "               \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}"

Test(data_tokenizer_split, llama3)
{
    check_pieces(SPLIT(LLAMA3, "Isolated", "false"), "Hello world's 1234!!\n  x\n\n",
                 "Hello| world|'s| |123|4|!!\n| | x|\n\n");
    check_pieces(SPLIT(LLAMA3, "Isolated", "false"),
                 "I'LL\xc2\xa0"
                 "a\xe1\xa0\x8e"
                 "b",
                 "I|'LL|\xc2\xa0"
                 "a|\xe1\xa0\x8e"
                 "b");
}

Test(data_tokenizer_split, byte_level)
{
    const char *plain = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}";
    check_pieces(plain, "Hi you're  5\n",
                 "Hi|\xc4\xa0you|'re|\xc4\xa0|\xc4\xa0"
                 "5|\xc4\x8a");
    const char *prefix = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": false}";
    check_pieces(prefix, "a\xc3\xa9",
                 "\xc4\xa0"
                 "a\xc3\x83\xc2\xa9");
    check_pieces(prefix, " a",
                 "\xc4\xa0"
                 "a");
}

Test(data_tokenizer_split, parts_in_sequence)
{
    check_pieces("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
                 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}",
                 "ab 12 c",
                 "ab|\xc4\xa0|1|2|\xc4\xa0"
                 "c");
    check_pieces(
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\", \"add_prefix_space\": false}, " SPLIT(
            "{\"String\": \"\xc4\xa0\"}", "Removed", "false") "]}",
        "a b", "a|b");
    check_pieces("{\"type\": \"Digits\", \"individual_digits\": false}", "ab12\xc2\xbd", "ab|12\xc2\xbd");
}

Test(data_tokenizer_split, metaspace)
{
#define META "{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", "
    check_pieces(META "\"prepend_scheme\": \"always\", \"split\": true}", "a  b",
                 "\xe2\x96\x81"
                 "a|\xe2\x96\x81|\xe2\x96\x81"
                 "b");
    check_pieces(META "\"prepend_scheme\": \"never\", \"split\": false}", "a b",
                 "a\xe2\x96\x81"
                 "b");
    check_pieces(META "\"add_prefix_space\": false}", " a",
                 "\xe2\x96\x81"
                 "a");
}

/* "first" puts the mark in front of the document only, not behind an added token. */
Test(data_tokenizer_split, metaspace_first)
{
    qz_tokenizer *t =
        small_open(small_json("\"\xe2\x96\x81"
                              "a\": 0, \"a\": 1",
                              "", ", \"ignore_merges\": true",
                              ", \"added_tokens\": [{\"id\": 2, \"content\": \"<s>\"}], \"pre_tokenizer\": " META
                              "\"prepend_scheme\": \"first\", \"split\": false}"));
    check_tokens(t, "a<s>a",
                 "\xe2\x96\x81"
                 "a|<s>|a");
    qz_tokenizer_close(t);
}

Test(data_tokenizer_split, classes)
{
    check_pieces("{\"type\": \"Whitespace\"}", "it's a_b \xc2\xbd, 2!", "it|'|s|a_b|\xc2\xbd,|2|!");
    check_pieces("{\"type\": \"WhitespaceSplit\"}",
                 "it's\xe3\x80\x80"
                 "a\tb ",
                 "it's|a|b");
    check_pieces("{\"type\": \"Punctuation\"}", "a,.b\xe2\x80\x9c$", "a|,|.|b|\xe2\x80\x9c|$");
    check_pieces("{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}", "a,.b", "a|,.|b");
    check_pieces("{\"type\": \"CharDelimiterSplit\", \"delimiter\": \"\xc3\xa9\"}",
                 "a\xc3\xa9"
                 "b",
                 "a|b");
}

static void check_read_fails(qz_status code, const char *part, const char *pre)
{
    char rest[1024];
    qz_tokenizer *t;
    snprintf(rest, sizeof rest, ", \"pre_tokenizer\": %s", pre);
    const char *json = small_json("\"a\": 0", "", "", rest);
    check_fails(code, part, qz_tokenizer_parse(&t, json, strlen(json), "small.json"));
}

Test(data_tokenizer_split, wrong_options_are_named)
{
    check_read_fails(QZ_UNSUPPORTED, "pre_tokenizer.behavior: \"Kept\" is not known", SPLIT(SPACE, "Kept", "false"));
    check_read_fails(QZ_UNSUPPORTED, "pre_tokenizer.pattern: expected an object with one member",
                     SPLIT("\"x\"", "Removed", "false"));
    check_read_fails(QZ_UNSUPPORTED, "pre_tokenizer.pattern: an empty pattern",
                     SPLIT("{\"String\": \"\"}", "Removed", "false"));
    check_read_fails(QZ_FORMAT, "pre_tokenizer.replacement: found \"ab\", expected one character",
                     "{\"type\": \"Metaspace\", \"replacement\": \"ab\"}");
    check_read_fails(QZ_UNSUPPORTED, "pre_tokenizer.prepend_scheme: \"last\" is not known",
                     "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"last\"}");
    check_read_fails(QZ_FORMAT, "pre_tokenizer.pretokenizers: found null", "{\"type\": \"Sequence\"}");
}
