/* What a pattern in Ruby syntax becomes, and that it matches what Oniguruma matches. */
#include "testing/small_tokenizer.h"

static void check_written(const char *regex, const char *want)
{
    qz_text out = {0};
    check_ok(qz_onig_translate(&out, regex, "here"));
    check_ok(qz_text_add(&out, "", 1));
    cr_expect_str_eq(out.data, want, "%s became %s, expected %s", regex, out.data, want);
    qz_text_free(&out);
}

static void check_refused(const char *regex, const char *part)
{
    qz_text out = {0};
    check_fails(QZ_UNSUPPORTED, part, qz_onig_translate(&out, regex, "here"));
    qz_text_free(&out);
}

/* The matches of `regex` with "|" between them. */
static void check_matches(const char *regex, const char *text, const char *want)
{
    qz_pattern *p;
    qz_matcher *m;
    qz_matches it;
    char got[256] = "";
    check_ok(qz_pattern_new(&p, regex, false, "here"));
    check_ok(qz_matcher_new(&m));
    qz_matches_begin(&it, p, m, text, strlen(text));
    for (;;) {
        bool found;
        size_t start, end;
        check_ok(qz_matches_next(&it, &found, &start, &end));
        if (!found) break;
        sprintf(got + strlen(got), "%s%.*s", *got ? "|" : "", (int)(end - start), text + start);
    }
    cr_expect_str_eq(got, want, "%s in \"%s\": found %s, expected %s", regex, text, got, want);
    qz_matcher_free(m);
    qz_pattern_free(p);
}

Test(data_tokenizer_onig, what_is_the_same_is_copied)
{
    check_written("a|(?:b)*?[^c-e]++$", "a|(?:b)*?[^c-e]++$");
    check_written("\\p{L}\\P{Nd}\\d\\.\\n\xc3\xa9", "\\p{L}\\P{Nd}\\d\\.\\n\xc3\xa9");
    check_written("(?i:x)(?m:.)(?=y)(?<!z)", "(?i:x)(?s:.)(?=y)(?<!z)");
}

Test(data_tokenizer_onig, what_differs_is_written_out)
{
    check_written("\\h\\v", "[0-9A-Fa-f]\\x0b");
    check_written("\\u00e9\\x41\\x{1F600}", "\\x{e9}\\x{41}\\x{1f600}");
    check_written("\\p{^L}\\P{^L}\\p{Han}\\p{Letter}", "\\P{L}\\p{L}\\p{sc:Han}\\p{L}");
    check_written("a{1,3}+", "(?:a{1,3})+");
    check_written("(ab){2}?", "(?:(ab){2})?");
    check_written("a{,3}{x", "a{0,3}\\{x");
    check_written("[a[b-c]]", "[ab-c]");
}

Test(data_tokenizer_onig, white_space_is_unicode_white_space)
{
    /* U+180E has not been white space since Unicode 6.3; PCRE2's \s still has it. */
    check_matches("\\s+",
                  "a \t\xc2\x85\xe3\x80\x80"
                  "b\xe1\xa0\x8e"
                  "c",
                  " \t\xc2\x85\xe3\x80\x80");
    check_matches("\\S+", "a\xe1\xa0\x8e b", "a\xe1\xa0\x8e|b");
    check_matches("[^\\S\\n]+", " \n\t", " |\t");
}

Test(data_tokenizer_onig, words_are_those_of_oniguruma)
{
    check_matches("\\w+", "a_1\xc2\xb2-\xe2\x93\x90\xcc\x81 \xe2\x82\x81", "a_1\xc2\xb2|\xe2\x93\x90\xcc\x81");
    check_matches("\\b\\w", "ab cd", "a|c");
    check_matches("\\W", "a!b", "!");
}

Test(data_tokenizer_onig, repeats)
{
    check_matches("\\d{1,3}+", "1234567", "1234567");
    check_matches("\\d{2}?", "123", "12|");
    check_matches("(?i:'S)", "it's \xc2\xb4 'S '\xc5\xbf", "'s|'S|'\xc5\xbf");
    check_matches("^.", "ab\ncd\n", "a|c");
}

Test(data_tokenizer_onig, what_cannot_be_said_is_refused)
{
    check_refused("[a&&b]", "here: regular expression: an intersection");
    check_refused("(a)\\1", "this escape");
    check_refused("\\Ra", "this escape");
    check_refused("[\\W]", "this escape in a class");
    check_refused("[[:alpha:]]", "this class inside a class");
    check_refused("[]a]", "a class that begins with ]");
    check_refused("[a", "a class without an end");
    check_refused("(?<name>a)", "this group");
    check_refused("a(?i)b", "this group");
    check_refused("(*FAIL)", "a callout");
    check_refused("(a", "a group without an end");
    check_refused("a)", "a closing parenthesis");
    check_refused("*a", "a quantifier with nothing before it");
    check_refused("a\\", "a backslash at the end");
    check_refused("\\xff", "this character code");
    check_refused("\\p{}", "this property");
}

Test(data_tokenizer_onig, patterns_that_pcre2_refuses)
{
    qz_pattern *p = NULL;
    check_fails(QZ_FORMAT, "here: regular expression \"\\p{Nonsense}\": unknown property",
                qz_pattern_new(&p, "\\p{Nonsense}", false, "here"));
    qz_pattern_free(p);
}

Test(data_tokenizer_onig, endless_matching_is_an_error)
{
    qz_pattern *p;
    qz_matcher *m;
    qz_matches it;
    bool found;
    size_t start, end;
    const char *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    check_ok(qz_pattern_new(&p, "(a+)+[bc]|(a*)*[de]", false, "here"));
    check_ok(qz_matcher_new(&m));
    qz_matches_begin(&it, p, m, text, strlen(text));
    check_fails(QZ_FORMAT, "does not finish on this text", qz_matches_next(&it, &found, &start, &end));
    qz_matcher_free(m);
    qz_pattern_free(p);
}
