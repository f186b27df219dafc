/* Conversations -> the text that the model's own chat template makes of them, for the four common forms: ChatML,
 * Llama-3, Mistral and Gemma. Inside data/ only.
 *
 * The template is Jinja, which is not interpreted: the form is recognised by its marks, and what differs within a form
 * (system message, spaces, BOS) by pieces of the template. A template that prints in a way not known here is refused
 * rather than guessed, and so is a conversation that the template itself would refuse. */
#ifndef QZ_DATA_CHAT_H
#define QZ_DATA_CHAT_H

#include "base/json.h"
#include "data/tokenizer_impl.h"

typedef enum qz_chat_form { QZ_CHAT_CHATML, QZ_CHAT_LLAMA3, QZ_CHAT_MISTRAL, QZ_CHAT_GEMMA } qz_chat_form;

/* Where a system message goes. */
typedef enum qz_chat_system {
    QZ_CHAT_SYSTEM_TURN,    /* a turn of its own */
    QZ_CHAT_SYSTEM_REFUSED, /* the template raises an error */
    QZ_CHAT_SYSTEM_FIRST,   /* in front of the first user message, with an empty line */
    QZ_CHAT_SYSTEM_LAST,    /* in front of a user message that ends the conversation; else it is not printed */
} qz_chat_system;

/* What a user or assistant turn is wrapped in (Mistral). */
typedef struct qz_chat_wrap {
    const char *before, *after;
    bool trim;
} qz_chat_wrap;

typedef struct qz_chat {
    qz_chat_form form;
    const char *bos; /* printed once, in front; NULL: none */
    const char *eos;
    qz_chat_system system;
    const char *default_system; /* ChatML: of a conversation that has none; NULL: no turn */
    const char *preamble;       /* Llama-3.1: begins the system turn, which is always there; NULL: Llama-3 */
    bool thinks;                /* Qwen3: the last answer has a <think> part, earlier ones lose theirs */
    qz_chat_wrap user, answer;
} qz_chat;

/* chat_template.jinja, or chat_template of tokenizer_config.json, in a model's folder. */
QZ_NODISCARD qz_status qz_chat_open(qz_chat *out, const char *folder, qz_arena *arena);
/* The template's text; `bos` and `eos` may be NULL where the tokenizer has none. */
QZ_NODISCARD qz_status qz_chat_parse(qz_chat *out, const char *text, const char *bos, const char *eos, qz_arena *arena);
/* The template with its white space outside of literals left out and literals in one notation (chat_normal.c). */
QZ_NODISCARD qz_status qz_chat_normalize(qz_text *out, const char *text);
/* A part [start, end) of a text. */
typedef struct qz_span {
    size_t start, end;
} qz_span;
typedef struct qz_spans {
    qz_span *at;
    size_t count;
} qz_spans;

/* `conversation`: [{"role", "content"}], or [{"from", "value"}] as ShareGPT has it. Appends to `out`. `answers` (NULL:
 * not wanted) are the parts of `out` that the assistant says: the content and the mark that ends the turn. */
QZ_NODISCARD qz_status qz_chat_render(qz_text *out, const qz_chat *chat, const qz_json_node *conversation,
                                      qz_spans *answers, qz_arena *arena);

#endif
