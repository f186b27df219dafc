/* Pattern -> a small program -> all its states side by side along the name (K. Thompson, Regular expression search
 * algorithm, CACM 11(6), 1968; the program form of R. Cox, 2009).
 *
 * Repetition is written out by emitting an atom's text again, so {m,n} needs no counters; the program's length is
 * limited, which limits that as well. Whether a quantifier is greedy or lazy does not matter to whether there is a
 * match. */
#include "checkpoints/name_regex.h"

#include <stdint.h>
#include <string.h>

#include "base/status.h"

enum { MOST = 2048, WORK = 1 << 16, DEPTH = 32, REPEATS = 64 };

typedef enum step_kind { OP_SET, OP_SPLIT, OP_JUMP, OP_START, OP_END, OP_MATCH } step_kind;

typedef struct step {
    step_kind kind;
    uint16_t x, y;   /* targets of a split or jump */
    uint32_t set[8]; /* OP_SET: the bytes that it takes */
} step;

typedef struct regex {
    const char *pattern, *at;
    int depth, count, work; /* work: steps emitted, those that a repetition wrote over included */
    step step[MOST];
} regex;

static qz_status bad(const regex *r, const char *why)
{
    return QZ_FAIL(QZ_FORMAT, "pattern \"%s\": at character %d: %s", r->pattern, (int)(r->at - r->pattern) + 1, why);
}

static qz_status emit(regex *r, step_kind kind, int x, int y)
{
    if (r->count == MOST || ++r->work > WORK)
        return QZ_FAIL(QZ_UNSUPPORTED, "pattern \"%s\": too long or repeats too often", r->pattern);
    r->step[r->count++] = (step){.kind = kind, .x = (uint16_t)x, .y = (uint16_t)y};
    return QZ_OK;
}

static void include(uint32_t *set, int low, int high)
{
    for (int c = low; c <= high; c++) set[c / 32] |= 1u << (c % 32);
}

/* \d and its like; false when it is not a class. */
static bool include_class(uint32_t *set, char name)
{
    uint32_t part[8] = {0};
    char lower = (char)(name | 0x20);
    if (lower != 'd' && lower != 'w' && lower != 's') return false;
    if (lower != 's') include(part, '0', '9');
    if (lower == 'w') {
        include(part, 'a', 'z');
        include(part, 'A', 'Z');
        include(part, '_', '_');
    }
    if (lower == 's') {
        include(part, ' ', ' ');
        include(part, '\t', '\r');
    }
    for (int i = 0; i < 8; i++) set[i] |= lower == name ? part[i] : ~part[i];
    return true;
}

static bool is_letter_or_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* After a backslash. */
static qz_status read_escape(regex *r, uint32_t *set)
{
    char c = *r->at;
    if (!c) return bad(r, "the pattern ends after a backslash");
    if (!include_class(set, c)) {
        if (is_letter_or_digit(c)) return bad(r, "this escape is not supported");
        include(set, (unsigned char)c, (unsigned char)c);
    }
    r->at++;
    return QZ_OK;
}

static qz_status read_class(regex *r, uint32_t *set)
{
    bool negated = *r->at == '^', first = true;
    if (negated) r->at++;
    for (; *r->at != ']' || first; first = false) {
        unsigned char low = (unsigned char)*r->at++, high = low;
        if (!low) return r->at--, bad(r, "the class is not closed");
        if (low == '\\') {
            QZ_TRY(read_escape(r, set));
            continue;
        }
        if (*r->at == '-' && r->at[1] && r->at[1] != ']') {
            high = (unsigned char)r->at[1];
            r->at += 2;
        }
        if (high < low || high == '\\') return bad(r, "the range of the class is empty or ends in an escape");
        include(set, low, high);
    }
    r->at++;
    for (int i = 0; i < 8 && negated; i++) set[i] = ~set[i];
    return QZ_OK;
}

static qz_status read_choice(regex *r);

static qz_status read_group(regex *r)
{
    if (*r->at == '?') {
        if (r->at[1] != ':') return bad(r, "look-around, flags and names of groups are not supported");
        r->at += 2;
    }
    if (++r->depth > DEPTH) return bad(r, "groups are nested too deeply");
    QZ_TRY(read_choice(r));
    r->depth--;
    if (*r->at != ')') return bad(r, "a group is not closed");
    r->at++;
    return QZ_OK;
}

static qz_status read_atom(regex *r)
{
    uint32_t set[8] = {0};
    char c = *r->at++;
    if (c == '(') return read_group(r);
    if (c == '^') return emit(r, OP_START, 0, 0);
    if (c == '$') return emit(r, OP_END, 0, 0);
    if (c == '*' || c == '+' || c == '?') return r->at--, bad(r, "nothing to repeat");
    if (c == '.') {
        include(set, 0, 255);
        set[0] &= ~(1u << '\n');
    } else if (c == '\\') {
        QZ_TRY(read_escape(r, set));
    } else if (c == '[') {
        QZ_TRY(read_class(r, set));
    } else {
        include(set, (unsigned char)c, (unsigned char)c);
    }
    QZ_TRY(emit(r, OP_SET, 0, 0));
    memcpy(r->step[r->count - 1].set, set, sizeof set);
    return QZ_OK;
}

/* * + ? {m} {m,} {m,n}; `most` < 0: no limit. {1,1} when there is none. */
static qz_status read_count(regex *r, int *least, int *most)
{
    *least = *most = 1;
    char c = *r->at;
    if (c != '*' && c != '+' && c != '?' && c != '{') return QZ_OK;
    r->at++;
    *least = c == '+';
    *most = c == '?' ? 1 : -1;
    if (c == '{') {
        int n = 0;
        const char *from = r->at;
        for (; *r->at >= '0' && *r->at <= '9' && n <= REPEATS; r->at++) n = 10 * n + (*r->at - '0');
        *least = *most = n;
        if (from == r->at && *from != ',') return bad(r, "a number of repetitions is expected");
        if (*r->at == ',') {
            r->at++;
            *most = *r->at == '}' ? -1 : 0;
            for (; *r->at >= '0' && *r->at <= '9' && *most <= REPEATS; r->at++) *most = 10 * *most + (*r->at - '0');
        }
        if (*r->at != '}' || *least > REPEATS || *most > REPEATS || (*most >= 0 && *most < *least))
            return bad(r, "the number of repetitions is not {m}, {m,} or {m,n} up to 64");
        r->at++;
    }
    if (*r->at == '?') r->at++; /* lazy */
    return QZ_OK;
}

static qz_status again(regex *r, const char *from)
{
    const char *keep = r->at;
    r->at = from;
    QZ_TRY(read_atom(r));
    r->at = keep;
    return QZ_OK;
}

/* The atom's code is at [first, r->count); its text begins at `from`. */
static qz_status repeat(regex *r, int first, const char *from, int least, int most)
{
    if (least == 1 && most == 1) return QZ_OK;
    r->count = first;
    for (int i = 0; i < least; i++) QZ_TRY(again(r, from));
    if (most < 0) {
        int split = r->count;
        QZ_TRY(emit(r, OP_SPLIT, split + 1, 0));
        QZ_TRY(again(r, from));
        QZ_TRY(emit(r, OP_JUMP, split, 0));
        r->step[split].y = (uint16_t)r->count;
    }
    for (int i = least; i < most; i++) {
        int split = r->count;
        QZ_TRY(emit(r, OP_SPLIT, split + 1, 0));
        QZ_TRY(again(r, from));
        r->step[split].y = (uint16_t)r->count;
    }
    return QZ_OK;
}

static qz_status read_sequence(regex *r)
{
    while (*r->at && *r->at != '|' && *r->at != ')') {
        const char *from = r->at;
        int first = r->count, least, most;
        QZ_TRY(read_atom(r));
        QZ_TRY(read_count(r, &least, &most));
        QZ_TRY(repeat(r, first, from, least, most));
        if (*r->at == '*' || *r->at == '+' || *r->at == '?' || *r->at == '{') return bad(r, "repeated twice");
    }
    return QZ_OK;
}

/* a|b|c: split in front of each but the last, a jump behind it. */
static qz_status read_choice(regex *r)
{
    int jumps[DEPTH], count = 0;
    for (;;) {
        int split = r->count;
        QZ_TRY(emit(r, OP_SPLIT, split + 1, split + 1));
        QZ_TRY(read_sequence(r));
        if (*r->at != '|') break;
        if (count == DEPTH) return bad(r, "too many alternatives");
        r->at++;
        jumps[count++] = r->count;
        QZ_TRY(emit(r, OP_JUMP, 0, 0));
        r->step[split].y = (uint16_t)r->count;
    }
    for (int i = 0; i < count; i++) r->step[jumps[i]].x = (uint16_t)r->count;
    return QZ_OK;
}

/* ---- running ---- */

typedef struct states {
    int count;
    uint16_t at[MOST];
    uint8_t in[MOST];
} states;

static void clear(states *s)
{
    s->count = 0;
    memset(s->in, 0, sizeof s->in);
}

static void put(states *s, int at)
{
    if (s->in[at]) return;
    s->in[at] = 1;
    s->at[s->count++] = (uint16_t)at;
}

/* Follows every step that takes no character; true when the end of the program is reached. */
static bool follow(states *s, const regex *r, bool start, bool end)
{
    for (int i = 0; i < s->count; i++) { /* grows as it goes */
        const step *t = &r->step[s->at[i]];
        if (t->kind == OP_MATCH) return true;
        if (t->kind == OP_JUMP || t->kind == OP_SPLIT) put(s, t->x);
        if (t->kind == OP_SPLIT) put(s, t->y);
        if ((t->kind == OP_START && start) || (t->kind == OP_END && end)) put(s, s->at[i] + 1);
    }
    return false;
}

static bool run(const regex *r, const char *name)
{
    states now, next;
    clear(&now);
    put(&now, 0);
    for (const char *c = name;; c++) {
        if (follow(&now, r, c == name, !*c)) return true;
        if (!*c || now.count == 0) return false;
        clear(&next);
        for (int i = 0; i < now.count; i++) {
            const step *t = &r->step[now.at[i]];
            unsigned char byte = (unsigned char)*c;
            if (t->kind == OP_SET && (t->set[byte / 32] >> (byte % 32) & 1u)) put(&next, now.at[i] + 1);
        }
        now = next;
    }
}

qz_status qz_name_regex_match(bool *out, const char *pattern, const char *name)
{
    regex r;
    r.pattern = r.at = pattern;
    r.depth = r.count = r.work = 0;
    QZ_TRY(read_choice(&r));
    if (*r.at) return bad(&r, "a group is closed that was not opened");
    QZ_TRY(emit(&r, OP_MATCH, 0, 0));
    *out = run(&r, name);
    return QZ_OK;
}
