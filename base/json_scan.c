/* See json_scan.h. Recursive descent over the grammar of RFC 8259. */
#include "base/json_scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

typedef struct scanner {
    const char *text;
    size_t size, at;
    int depth;
    size_t member;                /* where the value being scanned, or its key, starts */
    size_t values, wanted, found; /* values seen so far; the one to locate and where it was found */
} scanner;

static scanner scanner_at(const char *text, size_t size, size_t at)
{
    return (scanner){.text = text, .size = size, .at = at, .member = at, .wanted = SIZE_MAX};
}

static bool continues_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

qz_status qz_json_fail_at(const char *text, size_t size, size_t at, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < size; i++) {
        if (!continues_character(text[i])) column++;
        if (text[i] != '\n') continue;
        line++;
        column = 1;
    }
    return QZ_FAIL(QZ_FORMAT, "line %zu, column %zu: %s", line, column, what);
}

static qz_status fail(const scanner *s, const char *expected)
{
    char what[128];
    size_t end = s->at + 1;
    while (end < s->size && continues_character(s->text[end])) end++;
    if (s->at >= s->size)
        snprintf(what, sizeof what, "the text ends where %s is expected", expected);
    else if ((unsigned char)s->text[s->at] < 0x20)
        snprintf(what, sizeof what, "found a control character, expected %s", expected);
    else
        snprintf(what, sizeof what, "found '%.*s', expected %s", (int)(end - s->at), s->text + s->at, expected);
    return qz_json_fail_at(s->text, s->size, s->at, what);
}

static int peek(const scanner *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(scanner *s)
{
    while (s->at < s->size && strchr(" \t\r\n", s->text[s->at]) && s->text[s->at]) s->at++;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(int c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static qz_status scan_unicode(scanner *s, int *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        int digit = hex_value(peek(s));
        if (digit < 0) return fail(s, "four hexadecimal digits");
        *code = *code * 16 + digit;
    }
    return QZ_OK;
}

/* Behind "\u". A high surrogate must be followed by a low one. */
static qz_status scan_escape_unicode(scanner *s)
{
    size_t start = s->at - 2;
    int code, low;
    QZ_TRY(scan_unicode(s, &code));
    if (code == 0) return qz_json_fail_at(s->text, s->size, start, "a string holds \\u0000, which is not supported");
    if (code < 0xd800 || code > 0xdfff) return QZ_OK;
    if (code > 0xdbff || peek(s) != '\\' || s->at + 1 >= s->size || s->text[s->at + 1] != 'u')
        return qz_json_fail_at(s->text, s->size, start, "a surrogate without its partner");
    s->at += 2;
    QZ_TRY(scan_unicode(s, &low));
    if (low < 0xdc00 || low > 0xdfff)
        return qz_json_fail_at(s->text, s->size, start, "a surrogate without its partner");
    return QZ_OK;
}

static qz_status scan_string(scanner *s)
{
    if (peek(s) != '"') return fail(s, "a string");
    s->at++;
    for (;;) {
        int c = peek(s);
        if (c < 0x20) return fail(s, "the rest of a string");
        s->at++;
        if (c == '"') return QZ_OK;
        if (c != '\\') continue;
        c = peek(s);
        if (c <= 0 || !strchr("\"\\/bfnrtu", c)) return fail(s, "an escape character");
        s->at++;
        if (c == 'u') QZ_TRY(scan_escape_unicode(s));
    }
}

static qz_status scan_digits(scanner *s)
{
    if (!is_digit(peek(s))) return fail(s, "a digit");
    while (is_digit(peek(s))) s->at++;
    return QZ_OK;
}

static qz_status scan_number_parts(scanner *s)
{
    if (peek(s) == '-') s->at++;
    if (peek(s) == '0') {
        s->at++;
        if (is_digit(peek(s))) return fail(s, "no digit after a leading zero");
    } else {
        QZ_TRY(scan_digits(s));
    }
    if (peek(s) == '.') {
        s->at++;
        QZ_TRY(scan_digits(s));
    }
    if (peek(s) != 'e' && peek(s) != 'E') return QZ_OK;
    s->at++;
    if (peek(s) == '+' || peek(s) == '-') s->at++;
    return scan_digits(s);
}

static qz_status scan_number(scanner *s)
{
    size_t start = s->at;
    QZ_TRY(scan_number_parts(s));
    if (s->at - start <= QZ_JSON_DIGITS) return QZ_OK;
    return qz_json_fail_at(s->text, s->size, start, "a number of more than 63 characters");
}

static qz_status scan_word(scanner *s, const char *word)
{
    size_t n = strlen(word);
    if (s->size - s->at < n || memcmp(s->text + s->at, word, n) != 0) return fail(s, "a value");
    s->at += n;
    return QZ_OK;
}

static qz_status scan_value(scanner *s);

static qz_status scan_member(scanner *s, bool object)
{
    skip_space(s);
    s->member = s->at;
    if (object) {
        QZ_TRY(scan_string(s));
        skip_space(s);
        if (peek(s) != ':') return fail(s, "':'");
        s->at++;
    }
    return scan_value(s);
}

static qz_status scan_members(scanner *s, bool object)
{
    char close = object ? '}' : ']';
    if (++s->depth > QZ_JSON_DEPTH) return qz_json_fail_at(s->text, s->size, s->at, "nested more than 200 deep");
    s->at++;
    skip_space(s);
    if (peek(s) != close) {
        for (;;) {
            QZ_TRY(scan_member(s, object));
            skip_space(s);
            if (peek(s) != ',') break;
            s->at++;
        }
        if (peek(s) != close) return fail(s, object ? "',' or '}'" : "',' or ']'");
    }
    s->at++;
    s->depth--;
    return QZ_OK;
}

static qz_status scan_value(scanner *s)
{
    skip_space(s);
    if (s->values++ == s->wanted) s->found = s->member;
    switch (peek(s)) {
    case '{':
        return scan_members(s, true);
    case '[':
        return scan_members(s, false);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return peek(s) == '-' || is_digit(peek(s)) ? scan_number(s) : fail(s, "a value");
    }
}

qz_status qz_json_scan(const char *text, size_t size)
{
    scanner s = scanner_at(text, size, 0);
    size_t bad = qz_utf8_check(text, size);
    if (bad < size) return qz_json_fail_at(text, size, bad, "not valid UTF-8");
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return qz_json_fail_at(text, size, 0, "found a byte order mark, expected a value: save the text without it");
    QZ_TRY(scan_value(&s));
    skip_space(&s);
    return s.at == size ? QZ_OK : fail(&s, "the end of the text");
}

size_t qz_json_skip_space(const char *text, size_t at)
{
    return at + strspn(text + at, " \t\r\n");
}

size_t qz_json_skip_value(const char *text, size_t size, size_t at)
{
    scanner s = scanner_at(text, size, at);
    return scan_value(&s) == QZ_OK ? s.at : at;
}

size_t qz_json_locate(const char *text, size_t size, size_t index)
{
    scanner s = scanner_at(text, size, qz_json_skip_space(text, 0));
    s.wanted = index;
    return scan_value(&s) == QZ_OK ? s.found : 0;
}
