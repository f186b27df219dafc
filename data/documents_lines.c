/* The lines of a .jsonl file -> the ids of documents, one a line: text, a conversation that is rendered by the model's
 * chat template (chat.h), or, for training, a prompt and its completion.
 *
 * What counts in training is known for bytes of the text: the completion, the assistant's turns. Ids are always those
 * of the whole text; an id belongs to what stands before a byte when tokenizing only that part gives it too. So an id
 * that reaches over the border counts as what comes after it. */
#include <string.h>

#include "base/json.h"
#include "data/chat.h"
#include "data/data_impl.h"
#include "data/tokenizer_impl.h"

typedef struct line_reader {
    const qz_windows_rule *rule;
    const qz_document_taker *taker;
    qz_encoder encoder;
    const char *field;
    size_t count, limit; /* ids handed on, and how many are wanted */
    qz_arena *arena, *line_arena;
    qz_chat chat; /* once has_chat */
    bool has_chat;
    qz_text text; /* rendered or joined */
} line_reader;

typedef struct document {
    const char *text;
    size_t size;
    bool conversation;
    bool parted; /* only `answers` count; else all does */
    qz_spans answers;
} document;

/* A line without the field that holds messages is a conversation. NULL: it is none. */
static const qz_json_node *find_messages(const line_reader *r, const qz_json_node *root)
{
    static const char *const keys[] = {"messages", "conversations"};
    const qz_json_node *value = qz_json_get(root, r->field);
    for (size_t i = 0; i < 2; i++) {
        bool named = value && strcmp(r->field, keys[i]) == 0;
        const qz_json_node *list = named || !value ? qz_json_get(root, keys[i]) : NULL;
        if (qz_json_is(list, QZ_JSON_ARRAY)) return list;
    }
    return NULL;
}

static qz_status open_chat(line_reader *r)
{
    if (r->has_chat) return QZ_OK;
    if (!r->rule->model)
        return QZ_FAIL(QZ_ARG,
                       "the line holds a conversation, but no model is known whose chat template could render it");
    QZ_TRY(qz_chat_open(&r->chat, r->rule->model, r->arena));
    r->has_chat = true;
    return QZ_OK;
}

/* Where windows begin with BOS as it is, a conversation's own is left out at the start of the first one. */
static qz_status render(document *out, line_reader *r, const qz_json_node *messages)
{
    QZ_TRY(open_chat(r));
    qz_chat chat = r->chat;
    if (!r->taker->apart && r->rule->bos >= 0 && r->count == 0) chat.bos = NULL;
    r->text.size = 0;
    QZ_TRY(qz_chat_render(&r->text, &chat, messages, &out->answers, r->line_arena));
    out->text = r->text.data;
    out->size = r->text.size;
    out->conversation = true;
    out->parted = r->taker->training;
    return QZ_OK;
}

/* {"prompt", "completion"}, as trl names them. */
static qz_status join(document *out, line_reader *r, const qz_json_node *root)
{
    const char *prompt, *completion;
    QZ_TRY(qz_json_string(qz_json_get(root, "prompt"), "prompt", &prompt));
    QZ_TRY(qz_json_string(qz_json_get(root, "completion"), "completion", &completion));
    r->text.size = 0;
    QZ_TRY(qz_text_add(&r->text, prompt, strlen(prompt)));
    QZ_TRY(qz_text_add(&r->text, completion, strlen(completion)));
    qz_span *answer = qz_arena_array(r->line_arena, qz_span, 1);
    if (!answer) return qz_arena_failed(r->line_arena);
    *answer = (qz_span){strlen(prompt), r->text.size};
    QZ_TRY(qz_text_add(&r->text, "", 1));
    *out = (document){.text = r->text.data, .size = answer->end, .parted = true, .answers = {answer, 1}};
    return QZ_OK;
}

static qz_status find_field(document *out, const line_reader *r, const qz_json_node *root)
{
    const qz_json_node *value = qz_json_get(root, r->field), *first = qz_json_first(root);
    if (!value)
        return QZ_FAIL(QZ_FORMAT, "the field \"%s\" is missing%s; the first field of this line is \"%s\"", r->field,
                       r->taker->training ? ", and there are neither messages nor prompt and completion" : "",
                       first ? qz_json_key(first) : "");
    QZ_TRY(qz_json_string(value, r->field, &out->text));
    out->size = strlen(out->text);
    return QZ_OK;
}

static qz_status find_document(document *out, line_reader *r, const qz_json_node *root)
{
    *out = (document){0};
    if (!qz_json_is(root, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object with a field \"%s\"",
                       qz_json_type_name(qz_json_type_of(root)), r->field);
    const qz_json_node *messages = find_messages(r, root);
    if (messages) return render(out, r, messages);
    bool pair = !qz_json_get(root, r->field) && qz_json_get(root, "prompt") && qz_json_get(root, "completion");
    return pair && r->taker->training ? join(out, r, root) : find_field(out, r, root);
}

/* How many of `all` belong to the first `size` bytes of the document, at least `least`. */
static qz_status ids_before(size_t *out, line_reader *r, const document *d, size_t size, const qz_ids *all,
                            size_t least)
{
    const qz_encoder *front = &r->encoder;
    size_t same = 0;
    if (size == d->size) return *out = all->count, QZ_OK;
    QZ_TRY(qz_encoder_run(&r->encoder, d->text, size, SIZE_MAX));
    while (same < front->count && same < all->count && front->ids[same] == all->id[same]) same++;
    *out = same > least ? same : least;
    return QZ_OK;
}

static qz_status give(const line_reader *r, const qz_ids *ids, size_t from, size_t to, bool counts)
{
    return from < to ? r->taker->take(r->taker->self, ids->id + from, to - from, counts) : QZ_OK;
}

static qz_status give_parts(line_reader *r, const document *d, const qz_ids *ids)
{
    size_t done = 0, start, end;
    for (size_t i = 0; i < d->answers.count; i++) {
        QZ_TRY(ids_before(&start, r, d, d->answers.at[i].start, ids, done));
        QZ_TRY(ids_before(&end, r, d, d->answers.at[i].end, ids, start));
        QZ_TRY(give(r, ids, done, start, false));
        QZ_TRY(give(r, ids, start, end, true));
        done = end;
    }
    return give(r, ids, done, ids->count, false);
}

/* Ids that stay while the encoder goes on. */
static qz_status encode(qz_ids *out, line_reader *r, const document *d)
{
    QZ_TRY(qz_encoder_run(&r->encoder, d->text, d->size, r->limit - r->count));
    out->count = r->encoder.count;
    out->id = qz_arena_array(r->line_arena, int32_t, out->count);
    if (!out->id) return qz_arena_failed(r->line_arena);
    if (out->count) memcpy(out->id, r->encoder.ids, out->count * sizeof *out->id);
    return QZ_OK;
}

static qz_status encode_line(line_reader *r, const qz_json_node *root)
{
    const qz_document_taker *to = r->taker;
    document d;
    qz_ids ids;
    QZ_TRY(find_document(&d, r, root));
    QZ_TRY(encode(&ids, r, &d));
    if (to->begin) QZ_TRY(to->begin(to->self, d.conversation));
    QZ_TRY(d.parted ? give_parts(r, &d, &ids) : give(r, &ids, 0, ids.count, true));
    r->count += ids.count;
    return to->end ? to->end(to->self) : QZ_OK;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r", line[i])) return false;
    return true;
}

static qz_status read_line(line_reader *r, const char *line, size_t size)
{
    qz_json *doc;
    if (is_blank(line, size)) return QZ_OK;
    QZ_TRY(qz_json_parse(&doc, line, size));
    qz_status status = encode_line(r, qz_json_root(doc));
    qz_json_close(doc);
    qz_arena_reset(r->line_arena);
    return status;
}

static qz_status read_lines(line_reader *r, const qz_map *map)
{
    const char *begin = (const char *)map->data, *p = begin, *end = p + map->size;
    for (size_t number = 1; p < end && r->count < r->limit; number++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        QZ_TRY_CTX(read_line(r, p, (size_t)(stop - p)), "%s:%zu", r->rule->path, number);
        p = stop + 1;
        if (r->taker->passed) QZ_TRY(r->taker->passed(r->taker->self, (uint64_t)(stop - begin), map->size));
    }
    return QZ_OK;
}

qz_status qz_lines_visit(const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer, size_t limit,
                         const qz_document_taker *taker)
{
    line_reader r = {.rule = rule, .taker = taker, .limit = limit};
    r.field = rule->field ? rule->field : "text";
    qz_status status = qz_encoder_open(&r.encoder, tokenizer, map->size);
    if (status == QZ_OK) status = qz_arena_new(&r.arena, "chat template");
    if (status == QZ_OK) status = qz_arena_new(&r.line_arena, "line");
    if (status == QZ_OK) status = read_lines(&r, map);
    qz_arena_free(r.line_arena);
    qz_arena_free(r.arena);
    qz_text_free(&r.text);
    qz_encoder_close(&r.encoder);
    return status;
}
