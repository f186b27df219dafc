/* A pattern in Oniguruma's Ruby syntax -> the PCRE2 pattern that matches the same text.
 *
 * Hugging Face's tokenizers run patterns through Oniguruma (https://github.com/kkos/oniguruma/blob/master/doc/RE).
 * What means the same in both is copied; \s, \w, \h and their like are written out, because the two libraries count
 * different characters; {n,m}+ is a repeated repeat there and possessive here. What we cannot express exactly
 * (set intersection, back-references, isolated options, ...) is refused by name instead of being matched otherwise. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer_impl.h"

#define SPACE "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                                      \
    "\\x{0}-\\x08\\x0e-\\x1f!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"           \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX "0-9A-Fa-f"
#define NOT_HEX "\\x{0}-/:-@G-`g-\\x{10ffff}"

enum { MAX_DEPTH = 64 };

typedef struct translation {
    qz_text *out;
    const char *p; /* what comes next */
    const char *where;
    size_t group[MAX_DEPTH]; /* where in `out` each open group begins */
    int depth;
    size_t atom; /* where in `out` the last repeatable thing begins */
    bool has_atom;
} translation;

static qz_status refuse(const translation *t, const char *what)
{
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: regular expression: %s is not something that we translate, at \"%.40s\"",
                   t->where, what, t->p);
}

static qz_status emit(translation *t, const char *text)
{
    return qz_text_add(t->out, text, strlen(text));
}

static qz_status copy(translation *t, size_t n)
{
    QZ_TRY(qz_text_add(t->out, t->p, n));
    t->p += n;
    return QZ_OK;
}

static size_t length_of_char(const char *p)
{
    size_t n;
    qz_utf8_get(p, &n);
    return n;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \xHH, \x{H...} and \uHHHH; t->p stands behind the letter. */
static qz_status code_point(translation *t, char letter)
{
    bool braces = letter == 'x' && *t->p == '{';
    const char *p = t->p + braces;
    int most = braces ? 6 : letter == 'x' ? 2 : 4;
    uint32_t c = 0;
    int digits = 0;
    while (digits < most && hex_value(*p) >= 0) c = c * 16 + (uint32_t)hex_value(*p++), digits++;
    bool complete = braces ? digits > 0 && *p == '}' : letter == 'x' ? digits > 0 : digits == 4;
    if (!complete || c > 0x10ffff || (letter == 'x' && !braces && c > 0x7f)) return refuse(t, "this character code");
    t->p = p + braces;
    char text[16];
    snprintf(text, sizeof text, "\\x{%x}", (unsigned)c);
    return emit(t, text);
}

/* \p{Name}: general categories mean the same; longer names are scripts, which PCRE2 would widen to script extensions.
 */
static qz_status property(translation *t, bool negative)
{
    static const char *const same[][2] = {
        {"Letter", "L"},        {"Mark", "M"},      {"Number", "N"}, {"Punctuation", "P"},
        {"Symbol", "S"},        {"Separator", "Z"}, {"Other", "C"},  {"Alphabetic", "Alphabetic"},
        {"Alpha", "Alphabetic"}};
    const char *end = *t->p == '{' ? strchr(t->p, '}') : NULL;
    char name[32], text[64];
    bool flip = end && t->p[1] == '^';
    size_t n = end ? (size_t)(end - t->p - 1 - flip) : 0;
    if (n == 0 || n >= sizeof name) return refuse(t, "this property");
    snprintf(name, sizeof name, "%.*s", (int)n, t->p + 1 + flip);
    t->p = end + 1;
    const char *spelled = name;
    bool script = n > 2;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!strcmp(same[i][0], name)) spelled = same[i][1], script = false;
    snprintf(text, sizeof text, "\\%c{%s%s}", negative != flip ? 'P' : 'p', script ? "sc:" : "", spelled);
    return emit(t, text);
}

/* A named set: bare inside a class, in brackets of its own outside. */
static qz_status set(translation *t, bool in_class, const char *members, const char *others)
{
    if (in_class) return others ? emit(t, others) : emit(t, members);
    QZ_TRY(emit(t, others ? "[^" : "["));
    QZ_TRY(emit(t, members));
    return emit(t, "]");
}

static qz_status boundary(translation *t, bool negative)
{
    return emit(t, negative ? "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))"
                            : "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
}

static qz_status escape_outside(translation *t, char c)
{
    switch (c) {
    case 'W':
        return set(t, false, WORD, "");
    case 'b':
        return boundary(t, false);
    case 'B':
        return boundary(t, true);
    case 'A':
        return emit(t, "\\A");
    case 'z':
        return emit(t, "\\z");
    case 'Z':
        return emit(t, "\\Z");
    default:
        t->p -= 2;
        return refuse(t, "this escape");
    }
}

/* t->p stands behind the backslash. */
static qz_status escape(translation *t, bool in_class)
{
    char c = *t->p++;
    char text[3] = {'\\', c, '\0'};
    switch (c) {
    case '\0':
        t->p--;
        return refuse(t, "a backslash at the end");
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
    case 'd':
    case 'D':
        return emit(t, text);
    case 'v':
        return emit(t, "\\x0b");
    case 's':
        return set(t, in_class, SPACE, NULL);
    case 'S':
        return set(t, in_class, SPACE, NOT_SPACE);
    case 'h':
        return set(t, in_class, HEX, NULL);
    case 'H':
        return set(t, in_class, HEX, NOT_HEX);
    case 'w':
        return set(t, in_class, WORD, NULL);
    case 'p':
        return property(t, false);
    case 'P':
        return property(t, true);
    case 'x':
    case 'u':
        return code_point(t, c);
    default:
        break;
    }
    if ((uint8_t)c >= 0x80) return t->p--, copy(t, length_of_char(t->p));
    if (c == '_' || !qz_char_is_word((uint8_t)c)) return emit(t, text);
    if (!in_class) return escape_outside(t, c);
    t->p -= 2;
    return refuse(t, "this escape in a class");
}

/* [...]: sets nested for union are flattened. */
static qz_status class(translation *t)
{
    int open = 1;
    QZ_TRY(copy(t, 1));
    if (*t->p == '^') QZ_TRY(copy(t, 1));
    if (*t->p == ']') return refuse(t, "a class that begins with ]");
    while (open > 0) {
        if (*t->p == '\0') return refuse(t, "a class without an end");
        if (!strncmp(t->p, "&&", 2)) return refuse(t, "an intersection of classes");
        if (*t->p == '[') {
            if (strchr("^:]", t->p[1])) return refuse(t, "this class inside a class");
            open++, t->p++;
        } else if (*t->p == ']') {
            open--, t->p++;
        } else if (*t->p == '\\') {
            t->p++;
            QZ_TRY(escape(t, true));
        } else {
            QZ_TRY(copy(t, length_of_char(t->p)));
        }
    }
    return emit(t, "]");
}

/* "(?imx-imx:" with i and m only; Ruby's m is PCRE2's s. */
static qz_status options(translation *t)
{
    QZ_TRY(copy(t, 2));
    for (; *t->p != ':'; t->p++) {
        if (!*t->p || !strchr("im-", *t->p)) return refuse(t, "this group");
        char letter[2] = {*t->p == 'm' ? 's' : *t->p, '\0'};
        QZ_TRY(emit(t, letter));
    }
    return copy(t, 1);
}

static qz_status group(translation *t)
{
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (t->depth == MAX_DEPTH) return refuse(t, "nesting as deep as this");
    t->group[t->depth++] = t->out->size;
    t->has_atom = false;
    if (t->p[1] == '*') return refuse(t, "a callout");
    if (t->p[1] != '?') return copy(t, 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(t->p, known[i], strlen(known[i]))) return copy(t, strlen(known[i]));
    return options(t);
}

static qz_status group_end(translation *t)
{
    if (t->depth == 0) return refuse(t, "a closing parenthesis without its opening one");
    t->atom = t->group[--t->depth];
    t->has_atom = true;
    return copy(t, 1);
}

/* The length of "{n}", "{n,}", "{,m}" or "{n,m}" at p; 0 when it is none. */
static size_t interval(const char *p, bool *fixed, bool *open_left)
{
    size_t low = strspn(p + 1, "0123456789");
    bool comma = p[1 + low] == ',';
    size_t high = comma ? strspn(p + 2 + low, "0123456789") : 0;
    size_t n = 1 + low + comma + high;
    *fixed = !comma;
    *open_left = comma && low == 0;
    return p[n] == '}' && low + high > 0 ? n + 1 : 0;
}

/* Puts "(?:" before the last atom with what follows it, so that a further quantifier applies to the whole. */
static qz_status wrap_atom(translation *t)
{
    size_t n = t->out->size - t->atom;
    QZ_TRY(emit(t, "(?:)"));
    memmove(t->out->data + t->atom + 3, t->out->data + t->atom, n);
    memcpy(t->out->data + t->atom, "(?:", 3);
    t->out->data[t->out->size - 1] = ')';
    return QZ_OK;
}

static qz_status repeat_interval(translation *t)
{
    bool fixed, open_left;
    size_t n = interval(t->p, &fixed, &open_left);
    if (n == 0 || !t->has_atom) return t->p++, emit(t, "\\{");
    if (open_left) {
        QZ_TRY(emit(t, "{0"));
        t->p++;
        n--;
    }
    QZ_TRY(copy(t, n));
    if (*t->p == '+' || (*t->p == '?' && fixed)) return wrap_atom(t);
    return *t->p == '?' ? copy(t, 1) : QZ_OK;
}

static qz_status repeat(translation *t)
{
    if (!t->has_atom) return refuse(t, "a quantifier with nothing before it");
    QZ_TRY(copy(t, 1));
    return *t->p == '?' || *t->p == '+' ? copy(t, 1) : QZ_OK;
}

static qz_status atom(translation *t)
{
    t->atom = t->out->size;
    t->has_atom = true;
    if (*t->p == '[') return class(t);
    if (*t->p != '\\') return copy(t, length_of_char(t->p));
    t->p++;
    return escape(t, false);
}

qz_status qz_onig_translate(qz_text *out, const char *regex, const char *where)
{
    translation t = {.out = out, .p = regex, .where = where};
    while (*t.p) {
        switch (*t.p) {
        case '(':
            QZ_TRY(group(&t));
            break;
        case ')':
            QZ_TRY(group_end(&t));
            break;
        case '|':
        case '^':
        case '$':
            t.has_atom = false;
            QZ_TRY(copy(&t, 1));
            break;
        case '*':
        case '+':
        case '?':
            QZ_TRY(repeat(&t));
            break;
        case '{':
            QZ_TRY(repeat_interval(&t));
            break;
        default:
            QZ_TRY(atom(&t));
            break;
        }
    }
    return t.depth ? refuse(&t, "a group without an end") : QZ_OK;
}
