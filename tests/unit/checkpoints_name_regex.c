/* Regular expressions over module names: against what Python's re.match says. */
#include "checkpoints/name_regex.h"

#include <string.h>

#include "testing/testing.h"

static bool matches(const char *pattern, const char *name)
{
    bool out;
    check_ok(qz_name_regex_match(&out, pattern, name));
    return out;
}

Test(name_regex, as_python)
{
    const char *name = "model.layers.12.self_attn.q_proj";
    cr_assert(matches("", name));
    cr_assert(matches("model", name) && !matches("layers", name) && !matches("modelx", name));
    cr_assert(matches(".*q_proj", name) && matches(".*q_proj$", name) && !matches(".*q_pro$", name));
    cr_assert(matches("^model\\.layers\\.12\\.self_attn\\.q_proj$", name) && !matches("^model\\.layers\\.1\\.", name));
    cr_assert(matches("model.layers.\\d+.self_attn", name) && !matches("model.layers.\\d.self_attn", name));
    cr_assert(matches(".*\\.(?:1[0-5])\\..*", name) && !matches(".*\\.(?:1[6-9]|20|21)\\..*", name));
    cr_assert(matches(".*(q|k|v)_proj", name) && !matches(".*(gate|up)_proj", name));
    cr_assert(matches(".*[qkv]_proj", name) && !matches(".*[^qkv]_proj", name));
    cr_assert(matches("model.layers.1?2.", name) && matches("m{1,3}o{1}d{0}", "modd") && matches("(ab){2,}c", "ababc"));
    cr_assert(!matches("(ab){2,}c", "abc") && !matches("a{2}b", "ab") && matches("a{,3}b|a", "a") == true);
    cr_assert(matches("\\w+\\.\\w+\\.\\d+\\.\\S+$", name) && !matches("\\W", name));
    cr_assert(matches("a.*?c", "abbc") && matches("(a*)*b", "aaab") && matches("x|", "y") && matches("[]a]+$", "]a"));
    cr_assert(matches("[a\\-z]$", "-") && !matches("[a\\-z]$", "b") && matches("a$|ab", "ab"));
}

Test(name_regex, what_it_does_not_take)
{
    bool out;
    check_fails(QZ_FORMAT, "look-around", qz_name_regex_match(&out, "(?!a)b", "b"));
    check_fails(QZ_FORMAT, "escape", qz_name_regex_match(&out, "(a)\\1", "aa"));
    check_fails(QZ_FORMAT, "not closed", qz_name_regex_match(&out, "(a", "a"));
    check_fails(QZ_FORMAT, "not opened", qz_name_regex_match(&out, "a)", "a"));
    check_fails(QZ_FORMAT, "class is not closed", qz_name_regex_match(&out, "[a", "a"));
    check_fails(QZ_FORMAT, "nothing to repeat", qz_name_regex_match(&out, "*a", "a"));
    check_fails(QZ_FORMAT, "repeated twice", qz_name_regex_match(&out, "a**", "a"));
    check_fails(QZ_FORMAT, "after a backslash", qz_name_regex_match(&out, "a\\", "a"));
    check_fails(QZ_FORMAT, "range", qz_name_regex_match(&out, "[z-a]", "a"));
    check_fails(QZ_FORMAT, "repetitions", qz_name_regex_match(&out, "a{65}", "a"));
}

/* Patterns that take a backtracking matcher, or a careless compiler, longer than anyone waits. */
Test(name_regex, time_is_bounded, .timeout = 20)
{
    char pattern[400] = "", name[3001];
    bool out;
    memset(name, 'a', 3000);
    name[3000] = '\0';
    cr_assert(!matches("(a*)*(a*)*(a*)*b", name));
    for (int i = 0; i < 31; i++) strcat(pattern, "(");
    strcat(pattern, "a");
    for (int i = 0; i < 31; i++) strcat(pattern, ")+");
    check_fails(QZ_UNSUPPORTED, "too long or repeats too often", qz_name_regex_match(&out, pattern, name));
    check_fails(QZ_UNSUPPORTED, "too long", qz_name_regex_match(&out, "((a{64}){64}){64}", name));
    memset(pattern, '(', 300);
    pattern[300] = '\0';
    check_fails(QZ_FORMAT, "nested too deeply", qz_name_regex_match(&out, pattern, name));
}
