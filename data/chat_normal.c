/* A Jinja chat template -> a text in which pieces can be looked up: inside of tags white space is dropped, literals are
 * written 'so' with escapes decoded, neighbours 'a' + 'b' become 'ab', and message.role is message['role'].
 *
 * Text outside of tags would be printed as it stands. What is left of it by transformers' settings (trim_blocks,
 * lstrip_blocks, and the dashes of tags) must be nothing, so that all printing is done by tags. */
#include <string.h>

#include "data/chat.h"

typedef struct scan {
    const char *p;
    qz_text *out;
    bool after_block; /* the tag before was {% %} or {# #}: one newline after it is dropped */
    bool after_dash;  /* it ended in a dash: all white space after it is dropped */
    bool at_start;    /* no tag yet */
} scan;

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool begins_tag(const char *p)
{
    return p[0] == '{' && (p[1] == '%' || p[1] == '{' || p[1] == '#');
}

/* Of the text [p, end) between two tags, is there anything that would be printed? */
static bool prints(const scan *s, const char *p, const char *end)
{
    bool dash = begins_tag(end) && end[2] == '-', block = begins_tag(end) && end[1] != '{';
    bool new_line = s->at_start || (s->after_block && p < end && *p == '\n');
    if (new_line && !s->at_start) p++;
    while (s->after_dash && p < end && is_white(*p)) p++;
    while (dash && end > p && is_white(end[-1])) end--;
    const char *line = end;
    while (line > p && (line[-1] == ' ' || line[-1] == '\t')) line--;
    bool indents = block && (line == p ? new_line : line[-1] == '\n');
    if (indents) end = line;
    bool last_newline = !*end && end - p == 1 && *p == '\n';
    return p < end && !last_newline;
}

static qz_status skip_text(scan *s)
{
    const char *end = s->p;
    while (*end && !begins_tag(end)) end++;
    if (prints(s, s->p, end))
        return QZ_FAIL(QZ_UNSUPPORTED, "the chat template prints text outside of its tags: \"%.40s\"", s->p);
    s->p = end;
    return QZ_OK;
}

/* A literal; the quote of one that is added to a literal before it is taken back with the plus sign. */
static qz_status copy_literal(scan *s)
{
    char quote = *s->p++;
    size_t n = s->out->size;
    bool joins = n >= 2 && memcmp(s->out->data + n - 2, "'+", 2) == 0;
    if (joins) s->out->size -= 2;
    if (!joins) QZ_TRY(qz_text_add(s->out, "'", 1));
    for (; *s->p && *s->p != quote; s->p++) {
        char c = *s->p;
        if (c == '\\' && s->p[1]) {
            c = *++s->p;
            if (c == 'n') c = '\n';
            if (c == 't') c = '\t';
        }
        QZ_TRY(qz_text_add(s->out, &c, 1));
    }
    if (*s->p) s->p++;
    return qz_text_add(s->out, "'", 1);
}

static qz_status copy_code(scan *s)
{
    static const struct {
        const char *dotted, *bracketed;
    } members[] = {{"message.role", "message['role']"}, {"message.content", "message['content']"}};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(members[i].dotted);
        if (strncmp(s->p, members[i].dotted, n) != 0) continue;
        s->p += n;
        return qz_text_add(s->out, members[i].bracketed, strlen(members[i].bracketed));
    }
    const char *c = s->p++;
    return is_white(*c) ? QZ_OK : qz_text_add(s->out, c, 1);
}

/* From "{%" or "{{" to the end of the tag. */
static qz_status copy_tag(scan *s)
{
    char kind = s->p[1], close[3] = {kind == '{' ? '}' : '%', '}', '\0'};
    char open[2] = {'{', kind};
    QZ_TRY(qz_text_add(s->out, open, 2));
    s->p += s->p[2] == '-' || s->p[2] == '+' ? 3 : 2;
    while (*s->p && strncmp(s->p, close, 2) != 0) {
        bool dash = *s->p == '-' && strncmp(s->p + 1, close, 2) == 0;
        if (dash)
            s->p++;
        else
            QZ_TRY(*s->p == '\'' || *s->p == '"' ? copy_literal(s) : copy_code(s));
    }
    if (!*s->p) return QZ_FAIL(QZ_FORMAT, "the chat template has a tag without an end");
    s->after_dash = s->p[-1] == '-';
    s->after_block = kind == '%';
    s->p += 2;
    return qz_text_add(s->out, close, 2);
}

static qz_status skip_comment(scan *s)
{
    const char *end = strstr(s->p, "#}");
    if (!end) return QZ_FAIL(QZ_FORMAT, "the chat template has a comment without an end");
    s->after_dash = end[-1] == '-';
    s->after_block = true;
    s->p = end + 2;
    return QZ_OK;
}

qz_status qz_chat_normalize(qz_text *out, const char *text)
{
    scan s = {.p = text, .out = out, .at_start = true};
    while (*s.p) {
        QZ_TRY(skip_text(&s));
        s.at_start = false;
        if (*s.p) QZ_TRY(s.p[1] == '#' ? skip_comment(&s) : copy_tag(&s));
    }
    return qz_text_add(out, "", 1);
}
