/* A chat template -> which of the four common forms it is, and how it varies it. Pieces are looked up in the normal
 * form (chat_normal.c), where "\n" stands in literals as it is. */
#include <string.h>

#include "data/chat.h"

typedef struct template
{
    const char *text; /* normal form */
    const char *bos, *eos;
    qz_arena *arena;
}
template;

#define TURN "'<|im_start|>'+message['role']+'\n'+"
#define HEADER "'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'"

static bool has(const template *t, const char *piece)
{
    return strstr(t->text, piece) != NULL;
}

static qz_status unknown(const char *form, const char *what)
{
    return QZ_FAIL(QZ_UNSUPPORTED,
                   "the model's chat template looks like %s, but %s, which is not known here: render the conversations "
                   "yourself and give them as \"text\"",
                   form, what);
}

static char *cut(const template *t, const char *from, const char *end)
{
    return qz_arena_printf(t->arena, "%.*s", (int)(end - from), from);
}

/* The text of a literal between `before` and `after`: 'before...after'. *out stays NULL when there is none. */
static qz_status find_literal(const char **out, const template *t, const char *before, const char *after)
{
    for (const char *p = strstr(t->text, before); p; p = strstr(p + 1, before)) {
        const char *from = p + strlen(before), *end = strstr(from, after), *quote = strchr(from, '\'');
        /* An apostrophe inside is no end: the literal ends where a tag or a sum goes on. */
        while (quote && end && quote < end && strncmp(quote, "'+", 2) != 0 && strncmp(quote, "'}", 2) != 0)
            quote = strchr(quote + 1, '\'');
        if (!end) break;
        if (end == from || (quote && quote < end)) continue;
        *out = cut(t, from, end);
        return *out ? QZ_OK : qz_arena_failed(t->arena);
    }
    return QZ_OK;
}

/* Qwen3's rule for <think>; other rules are refused. */
static qz_status read_thinking(qz_chat *c, const template *t)
{
    c->thinks = has(t, "'<|im_start|>'+message['role']+'\n<think>\n'+reasoning_content.strip('\n')+'\n</think>\n\n'+"
                       "content.lstrip('\n')") &&
                has(t, "{%ifloop.lastor(notloop.lastandreasoning_content)%}") && has(t, "last_query_index");
    if (has(t, "think>") && !c->thinks) return unknown("ChatML", "it treats <think> in a way of its own");
    return QZ_OK;
}

static qz_status read_chatml(qz_chat *c, const template *t)
{
    c->form = QZ_CHAT_CHATML;
    c->system = QZ_CHAT_SYSTEM_TURN;
    if (!has(t, TURN "message['content']+'<|im_end|>\n'") && !has(t, TURN "content+'<|im_end|>\n'"))
        return unknown("ChatML", "its turns are not <|im_start|>role, newline, content, <|im_end|>, newline");
    if (has(t, "eos_token")) return unknown("ChatML", "it prints the EOS token");
    if (has(t, "<tools>") && !has(t, "{%iftools")) return unknown("ChatML", "it lists tools in every conversation");
    QZ_TRY(read_thinking(c, t));
    return find_literal(&c->default_system, t, "'<|im_start|>system\n", "<|im_end|>\n'");
}

/* Llama-3.1 and later: the system turn is always there and begins with two dates. Where the template asks for today's
 * date, its own fixed one is taken, so that the same command gives the same checkpoint tomorrow. */
static qz_status read_llama3(qz_chat *c, const template *t)
{
    const char *knowledge = NULL, *date = NULL;
    c->form = QZ_CHAT_LLAMA3;
    c->system = QZ_CHAT_SYSTEM_TURN;
    if (!has(t, HEADER)) return unknown("Llama-3", "its turns are not header, empty line, trimmed content, <|eot_id|>");
    if (has(t, "eos_token")) return unknown("Llama-3", "it prints the EOS token");
    if (!has(t, "Knowledge Date")) return QZ_OK;
    QZ_TRY(find_literal(&knowledge, t, "{{'Cutting", "\n'}}"));
    QZ_TRY(find_literal(&date, t, "date_string='", "'"));
    if (!knowledge || !date || !has(t, "{{'Today Date: '+date_string+'\n\n'}}"))
        return unknown("Llama-3", "its dates are written in a way of their own");
    c->preamble = qz_arena_printf(t->arena, "Cutting%s\nToday Date: %s\n\n", knowledge, date);
    return c->preamble ? QZ_OK : qz_arena_failed(t->arena);
}

static qz_status read_gemma(qz_chat *c, const template *t)
{
    c->form = QZ_CHAT_GEMMA;
    if (has(t, "eos_token")) return unknown("Gemma", "it prints the EOS token");
    c->system = QZ_CHAT_SYSTEM_REFUSED;
    if (has(t, "'<start_of_turn>'+role+'\n'+message['content']|trim+'<end_of_turn>\n'")) return QZ_OK;
    c->system = QZ_CHAT_SYSTEM_FIRST;
    bool third = has(t, "'<start_of_turn>'+role+'\n'+(first_user_prefixifloop.firstelse'')") &&
                 has(t, "{{message['content']|trim}}") && has(t, "{{'<end_of_turn>\n'}}") &&
                 has(t, "first_user_prefix=messages[0]['content']+'\n\n'");
    return third ? QZ_OK : unknown("Gemma", "its turns are not those of Gemma 1, 2 or 3");
}

/* ---- Mistral: the same marks with spaces here and there ---- */

static const char content[] = "message['content']";

/* After the content: "|trim" or ".strip()". */
static const char *skip_trim(const char *p, bool *trim)
{
    *trim = true;
    if (strncmp(p, "|trim", 5) == 0) return p + 5;
    if (strncmp(p, ".strip()", 8) == 0) return p + 8;
    *trim = false;
    return p;
}

/* The literal that ends just before `end` ("'...'+"), from its first character; NULL: there is none. */
static const char *literal_before(const char *text, const char *end)
{
    if (end - text < 3 || memcmp(end - 2, "'+", 2) != 0) return NULL;
    const char *p = end - 2;
    while (p > text && p[-1] != '\'') p--;
    return p > text ? p : NULL;
}

static qz_status read_user(qz_chat_wrap *out, const template *t)
{
    for (const char *p = strstr(t->text, content); p; p = strstr(p + 1, content)) {
        const char *before = literal_before(t->text, p), *after = skip_trim(p + strlen(content), &out->trim);
        const char *end = strncmp(after, "+'", 2) == 0 ? strchr(after + 2, '\'') : NULL;
        if (!before || !end) continue;
        out->before = cut(t, before, p - 2);
        out->after = cut(t, after + 2, end);
        if (!out->before || !out->after) return qz_arena_failed(t->arena);
        if (strstr(out->before, "[INST]") && strstr(out->after, "[/INST]")) return QZ_OK;
    }
    return unknown("Mistral", "a user's turn is not [INST] content [/INST]");
}

static qz_status read_answer(qz_chat_wrap *out, const template *t)
{
    for (const char *p = strstr(t->text, content); p; p = strstr(p + 1, content)) {
        const char *before = literal_before(t->text, p), *after = skip_trim(p + strlen(content), &out->trim);
        bool alone = p - t->text >= 2 && memcmp(p - 2, "{{", 2) == 0;
        if (strncmp(after, "+eos_token", 10) != 0 || (!before && !alone)) continue;
        after += 10;
        const char *end = strncmp(after, "+'", 2) == 0 ? strchr(after + 2, '\'') : NULL;
        out->before = before ? cut(t, before, p - 2) : "";
        out->after =
            qz_arena_printf(t->arena, "%s%.*s", t->eos ? t->eos : "", end ? (int)(end - after - 2) : 0, after + 2);
        return out->before && out->after ? QZ_OK : qz_arena_failed(t->arena);
    }
    return unknown("Mistral", "an answer is not content and EOS token");
}

static qz_status read_mistral(qz_chat *c, const template *t)
{
    c->form = QZ_CHAT_MISTRAL;
    if (has(t, "<<SYS>>") || has(t, "[SYSTEM_PROMPT]")) return unknown("Mistral", "its system message has marks");
    if (has(t, "bos_token+'")) return unknown("Mistral", "it prints the BOS token again and again");
    c->system = QZ_CHAT_SYSTEM_REFUSED;
    if (has(t, "loop.firstandsystem_messageisdefined")) c->system = QZ_CHAT_SYSTEM_FIRST;
    if (has(t, "loop.lastandsystem_messageisdefined")) c->system = QZ_CHAT_SYSTEM_LAST;
    QZ_TRY(read_user(&c->user, t));
    return read_answer(&c->answer, t);
}

static qz_status read_form(qz_chat *c, const template *t)
{
    static const struct {
        const char *mark;
        qz_status (*read)(qz_chat *c, const template *t);
    } forms[] = {{"<|im_start|>", read_chatml},
                 {"<|start_header_id|>", read_llama3},
                 {"<start_of_turn>", read_gemma},
                 {"[INST]", read_mistral}};
    int found = -1, count = 0;
    for (int i = 0; i < 4; i++) {
        if (!has(t, forms[i].mark)) continue;
        found = i;
        count++;
    }
    if (count == 1) return forms[found].read(c, t);
    return QZ_FAIL(
        QZ_UNSUPPORTED,
        "the model's chat template is none of ChatML, Llama-3, Mistral and Gemma (it has %s of their marks): "
        "render the conversations yourself and give them as \"text\"",
        count ? "several" : "none");
}

qz_status qz_chat_parse(qz_chat *out, const char *text, const char *bos, const char *eos, qz_arena *arena)
{
    qz_text normal = {0};
    *out = (qz_chat){.eos = eos};
    qz_status status = qz_chat_normalize(&normal, text);
    template t = {normal.data, bos, eos, arena};
    if (status == QZ_OK) status = read_form(out, &t);
    if (status == QZ_OK && has(&t, "bos_token")) out->bos = bos;
    qz_text_free(&normal);
    return status;
}
