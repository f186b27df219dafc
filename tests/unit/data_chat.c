/* Conversations become what transformers makes of them (golden/chat/make.py), and templates or conversations that
 * cannot be rendered are refused with the reason. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "data/chat.h"
#include "data/data_impl.h"
#include "testing/small_tokenizer.h"

enum { FILE_LIMIT = 4 << 20 };

static qz_arena *arena;

static void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static void teardown(void)
{
    qz_arena_free(arena);
}

TestSuite(data_chat, .init = setup, .fini = teardown);

static bool contains(const char *text, size_t size, const char *part)
{
    return memmem(text, size, part, strlen(part)) != NULL;
}

static bool ends_in(const char *text, size_t size, const char *end)
{
    size_t n = strlen(end);
    return size >= n && memcmp(text + size - n, end, n) == 0;
}

/* Answers are as many as messages of the assistant, each with its words and the mark that ends it; what lies between
 * them says nothing of it. */
static void check_answers(const qz_json_node *c, const qz_text *out, const qz_spans *answers)
{
    const char *name = qz_json_text(qz_json_get(c, "name"));
    size_t i = 0, done = 0;
    for (const qz_json_node *m = qz_json_first(qz_json_get(c, "messages")); m; m = qz_json_next(m)) {
        bool share = qz_json_get(m, "from") != NULL;
        const char *role = qz_json_text(qz_json_get(m, share ? "from" : "role"));
        if (strcmp(role, "assistant") != 0 && strcmp(role, "gpt") != 0) continue;
        cr_assert_lt(i, answers->count, "%s", name);
        qz_span s = answers->at[i++];
        cr_assert(done <= s.start && s.start < s.end && s.end <= out->size, "%s", name);
        const char *text = out->data + s.start, *between = out->data + done;
        size_t size = s.end - s.start, gap = s.start - done;
        bool marked = ends_in(text, size, "<|im_end|>") || ends_in(text, size, "<|eot_id|>") ||
                      ends_in(text, size, "<end_of_turn>") || contains(text, size, "</s>");
        cr_expect(marked, "%s: \"%.*s\" has no mark at its end", name, (int)size, text);
        bool mark_inside = contains(text, size, "<|im_start|>") || contains(text, size, "<start_of_turn>") ||
                           contains(text, size, "<|start_header_id|>") || contains(text, size, "[INST]");
        cr_expect(!mark_inside, "%s: \"%.*s\" is more than an answer", name, (int)size, text);
        bool header = ends_in(between, gap, "assistant\n") || ends_in(between, gap, "model\n") ||
                      ends_in(between, gap, "<|end_header_id|>\n\n") || contains(between, gap, "[/INST]");
        cr_expect(header, "%s: \"%.*s\" does not lead to an answer", name, (int)gap, between);
        done = s.end;
    }
    cr_expect_eq(i, answers->count, "%s", name);
}

static void check_case(const qz_json_node *c)
{
    const char *name = qz_json_text(qz_json_get(c, "name"));
    const qz_json_node *expected = qz_json_get(c, "expected");
    qz_chat chat;
    qz_text out = {0};
    qz_spans answers;
    check_ok(qz_chat_parse(&chat, qz_json_text(qz_json_get(c, "template")), "<s>", "</s>", arena));
    qz_status status = qz_chat_render(&out, &chat, qz_json_get(c, "messages"), &answers, arena);
    if (qz_json_is(expected, QZ_JSON_STRING)) {
        cr_assert(status == QZ_OK, "%s: %s", name, qz_error_message());
        check_answers(c, &out, &answers);
        check_ok(qz_text_add(&out, "", 1));
        cr_expect_str_eq(out.data, qz_json_text(expected), "%s: found \"%s\", expected \"%s\"", name, out.data,
                         qz_json_text(expected));
    } else {
        cr_expect(status == QZ_FORMAT, "%s: rendered what the template refuses", name);
    }
    qz_text_free(&out);
}

Test(data_chat, renders_as_transformers_does)
{
    char *text;
    size_t size, count = 0;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, "tests/golden/chat/cases.json", FILE_LIMIT, arena));
    check_ok(qz_json_parse(&doc, text, size));
    for (const qz_json_node *c = qz_json_first(qz_json_root(doc)); c; c = qz_json_next(c), count++) check_case(c);
    cr_assert_eq(count, 80);
    qz_json_close(doc);
}

#define CHATML                                                                                                         \
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' " \
    "}}{% endfor %}"

static qz_status parse(const char *text)
{
    qz_chat chat;
    return qz_chat_parse(&chat, text, "<s>", "</s>", arena);
}

Test(data_chat, unknown_templates_are_refused)
{
    check_ok(parse(CHATML));
    check_fails(QZ_UNSUPPORTED, "is none of ChatML, Llama-3, Mistral and Gemma (it has none of their marks)",
                parse("{% for m in messages %}{{ '### ' + m.content }}{% endfor %}"));
    check_fails(QZ_UNSUPPORTED, "it has several of their marks", parse(CHATML "{{ '[INST]' }}"));
    check_fails(QZ_UNSUPPORTED, "prints text outside of its tags: \" <|im_start|>", parse("{{ x }} <|im_start|>"));
    check_fails(QZ_UNSUPPORTED, "looks like ChatML, but it prints the EOS token", parse(CHATML "{{ eos_token }}"));
    check_fails(QZ_UNSUPPORTED, "looks like ChatML, but its turns are not",
                parse("{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}"));
    check_fails(QZ_UNSUPPORTED, "it treats <think> in a way of its own", parse(CHATML "{{ '<think>' }}"));
    check_fails(QZ_UNSUPPORTED, "looks like Mistral, but its system message has marks",
                parse("{{ '[INST] <<SYS>>' + message['content'] + ' [/INST]' }}"));
    check_fails(QZ_FORMAT, "a tag without an end", parse("{{ '<|im_start|>' "));
    check_fails(QZ_FORMAT, "a comment without an end", parse("{# "));
}

/* What transformers' settings take away is not text: a newline after a block, spaces in front of one, a last newline.
 */
Test(data_chat, white_space_that_is_not_printed)
{
    check_ok(parse("{% if a %}\n  {% endif %}\n{# c #}\n" CHATML "\n"));
    check_ok(parse("  {%- if a -%}  \n  {{ 'x' -}}\n {{- 'y' }}\n{%- endif %}" CHATML));
    check_fails(QZ_UNSUPPORTED, "text outside", parse("{{ 'x' }}\n{{ 'y' }}" CHATML));
    check_fails(QZ_UNSUPPORTED, "text outside", parse("{% if a %} {% endif %}" CHATML));
}

static qz_status render(const char *messages)
{
    qz_chat chat;
    qz_json *doc;
    qz_text out = {0};
    check_ok(qz_chat_parse(&chat, CHATML, NULL, NULL, arena));
    check_ok(qz_json_parse(&doc, messages, strlen(messages)));
    qz_status status = qz_chat_render(&out, &chat, qz_json_root(doc), NULL, arena);
    qz_text_free(&out);
    qz_json_close(doc);
    return status;
}

Test(data_chat, conversations_that_are_wrong)
{
    check_ok(render("[{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]"));
    check_fails(QZ_FORMAT, "found an array, expected an array of messages", render("[]"));
    check_fails(QZ_FORMAT, "message 1: expected {\"role\": text", render("[{\"role\":\"user\",\"content\":\"\"}, {}]"));
    check_fails(QZ_FORMAT, "message 0: expected", render("[{\"role\": \"user\", \"content\": [\"a\"]}]"));
    check_fails(QZ_FORMAT, "message 0 is by \"tool\"", render("[{\"role\": \"tool\", \"content\": \"a\"}]"));
    check_fails(QZ_UNSUPPORTED, "has tool calls",
                render("[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [1]}]"));
}

/* ---- lines of a .jsonl file ---- */

typedef struct chat_file {
    qz_tokenizer *t;
    qz_windows_rule rule;
    qz_ids ids;
} chat_file;

/* A folder with the template, a tokenizer for a, b and the marks, and a file of lines. */
static chat_file begin(const char *config, const char *lines)
{
    static const char vocab[] = "\"a\": 0, \"b\": 1, \"\\n\": 2, \"user\": 3, \"assistant\": 4, \"u\": 5, \"s\": 6, "
                                "\"us\": 7, \"e\": 8, \"r\": 9, \"use\": 10";
    static const char added[] =
        ", \"added_tokens\": [{\"id\": 11, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 12, "
        "\"content\": "
        "\"<|im_end|>\", \"special\": true}, {\"id\": 13, \"content\": \"<s>\", \"special\": true}]";
    chat_file f = {.t = small_open(small_json(vocab, "\"u s\", \"us e\", \"use r\"", "", added))};
    test_write_file(test_path("tokenizer_config.json"), config, strlen(config));
    f.rule = (qz_windows_rule){.path = test_path("c.jsonl"), .bos = 13, .model = test_folder()};
    test_write_file(f.rule.path, lines, strlen(lines));
    return f;
}

static void check_ids(chat_file *f, const char *want)
{
    char got[256] = "";
    check_ok(qz_documents_read(&f->ids, &f->rule, f->t, SIZE_MAX, arena));
    for (size_t i = 0; i < f->ids.count; i++) sprintf(got + strlen(got), "%s%d", i ? " " : "", (int)f->ids.id[i]);
    cr_expect_str_eq(got, want, "found %s, expected %s", got, want);
}

#define CONFIG "{\"bos_token\": {\"content\": \"<s>\"}, \"chat_template\": \"{{ bos_token }}%s\"}"
#define TEMPLATE                                                                                                       \
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\\\n' + message['content'] + "               \
    "'<|im_end|>\\\\n' }}{% endfor %}"

static const char *config(void)
{
    static char text[1024];
    snprintf(text, sizeof text, CONFIG, TEMPLATE);
    return text;
}

/* The first conversation has no BOS of its own, because its window has one. */
Test(data_chat, lines_are_rendered_and_marks_are_tokens)
{
    chat_file f = begin(config(), "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}\n{\"text\": \"ba\"}\n"
                                  "{\"conversations\": [{\"from\": \"human\", \"value\": \"b\"}]}\n");
    check_ids(&f, "11 3 2 0 1 12 2 1 0 13 11 3 2 1 12 2");
    f.rule.bos = -1;
    check_ids(&f, "13 11 3 2 0 1 12 2 1 0 13 11 3 2 1 12 2");
    qz_tokenizer_close(f.t);
}

Test(data_chat, the_field_wins)
{
    chat_file f = begin(config(), "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}], \"text\": \"b\"}");
    check_ids(&f, "1");
    f.rule.field = "messages";
    check_ids(&f, "11 3 2 0 1 12 2");
    qz_tokenizer_close(f.t);
}

Test(data_chat, a_file_of_its_own_wins_over_the_config)
{
    chat_file f =
        begin("{\"chat_template\": \"nothing known\"}", "{\"messages\": [{\"role\":\"user\",\"content\":\"\"}]}");
    check_fails(QZ_UNSUPPORTED, "text outside of its tags", qz_documents_read(&f.ids, &f.rule, f.t, SIZE_MAX, arena));
    cr_expect(strstr(qz_error_message(), "c.jsonl:1"), "%s", qz_error_message());
    test_write_file(test_path("chat_template.jinja"), CHATML, strlen(CHATML));
    check_ids(&f, "11 3 2 12 2");
    remove(test_path("chat_template.jinja"));
    qz_tokenizer_close(f.t);
}

Test(data_chat, a_list_of_templates_has_a_default)
{
    static char text[2048];
    snprintf(text, sizeof text,
             "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}, {\"name\": \"default\", \"template\": "
             "\"%s\"}]}",
             TEMPLATE);
    chat_file f = begin(text, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}");
    check_ids(&f, "11 3 2 0 12 2");
    qz_tokenizer_close(f.t);
}

Test(data_chat, without_a_template)
{
    chat_file f = begin("{}", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}");
    check_fails(QZ_UNSUPPORTED, "has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)",
                qz_documents_read(&f.ids, &f.rule, f.t, SIZE_MAX, arena));
    f.rule.model = NULL;
    check_fails(QZ_ARG, "holds a conversation, but no model is known",
                qz_documents_read(&f.ids, &f.rule, f.t, SIZE_MAX, arena));
    qz_tokenizer_close(f.t);
}

/* Every allocation may fail; the answer is then QZ_MEMORY. */
Test(data_chat, memory_may_be_short)
{
    chat_file f = begin(config(), "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}\n");
    long n = 1;
    for (; n < 10000; n++) {
        qz_arena *own;
        check_ok(qz_arena_new(&own, "own"));
        qz_alloc_fail_at(n);
        qz_status status = qz_documents_read(&f.ids, &f.rule, f.t, SIZE_MAX, own);
        qz_alloc_fail_at(0);
        qz_arena_free(own);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 3 && n < 10000);
    qz_tokenizer_close(f.t);
}
