/* One conversation as the template of its form prints it, without a generation prompt. */
#include <string.h>

#include "data/chat.h"

typedef enum speaker { SYSTEM, USER, ASSISTANT } speaker;

typedef struct turn {
    speaker role;
    const char *text;
    size_t size;
} turn;

typedef struct conversation {
    turn *turn;
    size_t count;
    qz_spans answers; /* (count) has room for all turns */
} conversation;

static const char *const role_names[] = {"system", "user", "assistant"};

/* ---- reading ---- */

/* ShareGPT's names beside the usual ones. */
static qz_status read_role(speaker *out, size_t i, const char *name)
{
    static const struct {
        const char *name;
        speaker role;
    } names[] = {{"system", SYSTEM}, {"user", USER},         {"assistant", ASSISTANT}, {"human", USER},
                 {"gpt", ASSISTANT}, {"chatgpt", ASSISTANT}, {"model", ASSISTANT}};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        if (strcmp(names[n].name, name) != 0) continue;
        *out = names[n].role;
        return QZ_OK;
    }
    return QZ_FAIL(QZ_FORMAT, "message %zu is by \"%.40s\"; known are system, user (human) and assistant (gpt)", i,
                   name);
}

static qz_status read_turn(turn *out, size_t i, const qz_json_node *message)
{
    bool share = qz_json_get(message, "from") != NULL;
    const qz_json_node *name = qz_json_get(message, share ? "from" : "role");
    const qz_json_node *text = qz_json_get(message, share ? "value" : "content");
    const qz_json_node *calls = qz_json_get(message, "tool_calls");
    if (!qz_json_is(name, QZ_JSON_STRING) || !qz_json_is(text, QZ_JSON_STRING))
        return QZ_FAIL(QZ_FORMAT,
                       "message %zu: expected {\"role\": text, \"content\": text} or {\"from\": text, "
                       "\"value\": text}",
                       i);
    if (qz_json_count(calls) > 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "message %zu has tool calls, which are not rendered", i);
    if (qz_json_is(qz_json_get(message, "reasoning_content"), QZ_JSON_STRING))
        return QZ_FAIL(QZ_UNSUPPORTED, "message %zu has reasoning_content, which is not rendered: put it into <think>",
                       i);
    *out = (turn){.text = qz_json_text(text), .size = strlen(qz_json_text(text))};
    return read_role(&out->role, i, qz_json_text(name));
}

static qz_status read_turns(conversation *out, const qz_json_node *list, qz_arena *arena)
{
    out->count = qz_json_count(list);
    if (!qz_json_is(list, QZ_JSON_ARRAY) || out->count == 0)
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an array of messages", qz_json_type_name(qz_json_type_of(list)));
    out->turn = qz_arena_array(arena, turn, out->count);
    out->answers = (qz_spans){qz_arena_array(arena, qz_span, out->count), 0};
    if (!out->turn || !out->answers.at) return qz_arena_failed(arena);
    size_t i = 0;
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++)
        QZ_TRY(read_turn(&out->turn[i], i, c));
    return QZ_OK;
}

/* ---- text ---- */

static qz_status put(qz_text *out, const char *text)
{
    return text ? qz_text_add(out, text, strlen(text)) : QZ_OK;
}

/* What Python's str.strip() takes for white space. */
static bool is_space(uint32_t c)
{
    return qz_char_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static turn trimmed(turn t)
{
    size_t n;
    while (t.size > 0 && is_space(qz_utf8_get(t.text, &n))) {
        t.text += n;
        t.size -= n;
    }
    while (t.size > 0) {
        n = qz_utf8_last(t.text, t.text + t.size);
        size_t unused;
        if (!is_space(qz_utf8_get(t.text + t.size - n, &unused))) break;
        t.size -= n;
    }
    return t;
}

static turn trimmed_newlines(turn t, bool left, bool right)
{
    while (left && t.size > 0 && t.text[0] == '\n') {
        t.text++;
        t.size--;
    }
    while (right && t.size > 0 && t.text[t.size - 1] == '\n') t.size--;
    return t;
}

static qz_status put_turn(qz_text *out, turn t)
{
    return qz_text_add(out, t.text, t.size);
}

/* Behind the mark that ends a turn: where it is the assistant's, what was put from `start` on is an answer. */
static void note_turn(conversation *c, speaker role, size_t start, size_t end)
{
    if (role == ASSISTANT) c->answers.at[c->answers.count++] = (qz_span){start, end};
}

/* ---- ChatML ---- */

static const char *last_mark(turn t, const char *mark)
{
    size_t n = strlen(mark);
    for (const char *p = t.text + t.size; p >= t.text + n; p--)
        if (memcmp(p - n, mark, n) == 0) return p;
    return NULL;
}

static turn between(const char *from, const char *end, speaker role)
{
    return (turn){role, from, (size_t)(end - from)};
}

/* "<think>a</think>b" -> a, b by Qwen3's split and strip; without the mark, nothing and all. */
static void split_thought(turn t, turn *thought, turn *rest)
{
    static const char mark[] = "</think>";
    const char *after = last_mark(t, mark), *first = after ? memmem(t.text, t.size, mark, strlen(mark)) : NULL;
    *thought = between(t.text, t.text, t.role);
    *rest = t;
    if (!after) return;
    turn head = trimmed_newlines(between(t.text, first, t.role), false, true);
    const char *begin = last_mark(head, "<think>");
    *thought = trimmed_newlines(between(begin ? begin : head.text, head.text + head.size, t.role), true, false);
    *rest = trimmed_newlines(between(after, t.text + t.size, t.role), true, false);
}

static qz_status put_thinking(qz_text *out, turn t, bool after_query, bool last)
{
    turn thought, rest;
    split_thought(t, &thought, &rest);
    if (!after_query || (!last && thought.size == 0)) return put_turn(out, rest);
    QZ_TRY(put(out, "<think>\n"));
    QZ_TRY(put_turn(out, trimmed_newlines(thought, true, true)));
    QZ_TRY(put(out, "\n</think>\n\n"));
    return put_turn(out, trimmed_newlines(rest, true, false));
}

static bool wraps(turn t, const char *front, const char *back)
{
    size_t a = strlen(front), b = strlen(back);
    return t.size >= a && t.size >= b && memcmp(t.text, front, a) == 0 && memcmp(t.text + t.size - b, back, b) == 0;
}

/* The last user message that is no tool's answer; where there is none, the last message. */
static size_t last_query(const conversation *c)
{
    for (size_t i = c->count; i-- > 0;)
        if (c->turn[i].role == USER && !wraps(c->turn[i], "<tool_response>", "</tool_response>")) return i;
    return c->count - 1;
}

static qz_status put_chatml(qz_text *out, const qz_chat *chat, conversation *c)
{
    size_t query = last_query(c);
    if (chat->default_system && c->turn[0].role != SYSTEM) {
        QZ_TRY(put(out, "<|im_start|>system\n"));
        QZ_TRY(put(out, chat->default_system));
        QZ_TRY(put(out, "<|im_end|>\n"));
    }
    for (size_t i = 0; i < c->count; i++) {
        turn t = c->turn[i];
        QZ_TRY(put(out, "<|im_start|>"));
        QZ_TRY(put(out, role_names[t.role]));
        QZ_TRY(put(out, "\n"));
        size_t start = out->size;
        if (chat->thinks && t.role == ASSISTANT)
            QZ_TRY(put_thinking(out, t, i > query, i + 1 == c->count));
        else
            QZ_TRY(put_turn(out, t));
        QZ_TRY(put(out, "<|im_end|>\n"));
        note_turn(c, t.role, start, out->size - 1);
    }
    return QZ_OK;
}

/* ---- Llama-3 ---- */

static qz_status put_header(qz_text *out, speaker role)
{
    QZ_TRY(put(out, "<|start_header_id|>"));
    QZ_TRY(put(out, role_names[role]));
    return put(out, "<|end_header_id|>\n\n");
}

static qz_status put_llama3(qz_text *out, const qz_chat *chat, conversation *c)
{
    size_t first = 0;
    if (chat->preamble) {
        QZ_TRY(put_header(out, SYSTEM));
        QZ_TRY(put(out, chat->preamble));
        if (c->turn[0].role == SYSTEM) QZ_TRY(put_turn(out, trimmed(c->turn[first++])));
        QZ_TRY(put(out, "<|eot_id|>"));
    }
    for (size_t i = first; i < c->count; i++) {
        QZ_TRY(put_header(out, c->turn[i].role));
        size_t start = out->size;
        QZ_TRY(put_turn(out, trimmed(c->turn[i])));
        QZ_TRY(put(out, "<|eot_id|>"));
        note_turn(c, c->turn[i].role, start, out->size);
    }
    return QZ_OK;
}

/* ---- Mistral and Gemma: user and assistant in turns ---- */

/* The templates raise an error here. */
static qz_status check_alternation(const qz_chat *chat, const conversation *c, size_t first)
{
    if (first > 0 && chat->system == QZ_CHAT_SYSTEM_REFUSED)
        return QZ_FAIL(QZ_FORMAT, "message 0 is by \"system\", which the model's chat template does not take");
    for (size_t i = first; i < c->count; i++) {
        speaker wanted = (i - first) % 2 == 0 ? USER : ASSISTANT;
        if (c->turn[i].role != wanted)
            return QZ_FAIL(QZ_FORMAT,
                           "message %zu is by \"%s\", but the model's chat template takes user and assistant in turns, "
                           "user first",
                           i, role_names[c->turn[i].role]);
    }
    return QZ_OK;
}

static qz_status put_system(qz_text *out, const qz_chat *chat, const conversation *c, size_t first, size_t i)
{
    bool here = chat->system == QZ_CHAT_SYSTEM_FIRST ? i == first : i + 1 == c->count;
    if (first == 0 || !here) return QZ_OK;
    QZ_TRY(put_turn(out, c->turn[0]));
    return put(out, "\n\n");
}

static qz_status put_mistral(qz_text *out, const qz_chat *chat, conversation *c, size_t first)
{
    for (size_t i = first; i < c->count; i++) {
        turn t = c->turn[i];
        const qz_chat_wrap *wrap = t.role == USER ? &chat->user : &chat->answer;
        QZ_TRY(put(out, wrap->before));
        size_t start = out->size;
        if (t.role == USER) QZ_TRY(put_system(out, chat, c, first, i));
        QZ_TRY(put_turn(out, wrap->trim ? trimmed(t) : t));
        QZ_TRY(put(out, wrap->after));
        note_turn(c, t.role, start, out->size);
    }
    return QZ_OK;
}

static qz_status put_gemma(qz_text *out, const qz_chat *chat, conversation *c, size_t first)
{
    for (size_t i = first; i < c->count; i++) {
        turn t = c->turn[i];
        QZ_TRY(put(out, "<start_of_turn>"));
        QZ_TRY(put(out, t.role == ASSISTANT ? "model" : "user"));
        QZ_TRY(put(out, "\n"));
        size_t start = out->size;
        if (t.role == USER) QZ_TRY(put_system(out, chat, c, first, i));
        QZ_TRY(put_turn(out, trimmed(t)));
        QZ_TRY(put(out, "<end_of_turn>\n"));
        note_turn(c, t.role, start, out->size - 1);
    }
    return QZ_OK;
}

static qz_status put_conversation(qz_text *out, const qz_chat *chat, conversation *c)
{
    QZ_TRY(put(out, chat->bos));
    if (chat->form == QZ_CHAT_CHATML) return put_chatml(out, chat, c);
    if (chat->form == QZ_CHAT_LLAMA3) return put_llama3(out, chat, c);
    size_t first = c->turn[0].role == SYSTEM;
    QZ_TRY(check_alternation(chat, c, first));
    return chat->form == QZ_CHAT_MISTRAL ? put_mistral(out, chat, c, first) : put_gemma(out, chat, c, first);
}

qz_status qz_chat_render(qz_text *out, const qz_chat *chat, const qz_json_node *list, qz_spans *answers,
                         qz_arena *arena)
{
    conversation c = {0};
    QZ_TRY(read_turns(&c, list, arena));
    QZ_TRY(put_conversation(out, chat, &c));
    if (answers) *answers = c.answers;
    return QZ_OK;
}
