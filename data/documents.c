/* A file -> the ids of its documents, one after the other.
 *
 * A .txt file is one document; line ends are read as "\n" whatever they are, as Python's text files do, because the
 * peers that samples must equal read text that way. Each line of a .jsonl file is one document: text, or a conversation
 * that is rendered by the model's chat template (chat.h). An HDF5 file holds ids in its dataset "ids". */
#include <string.h>

#include "base/file.h"
#include "base/h5.h"
#include "base/json.h"
#include "base/utf8.h"
#include "data/chat.h"
#include "data/data_impl.h"
#include "data/tokenizer_impl.h"

static qz_status need_tokenizer(const char *path, const qz_tokenizer *tokenizer)
{
    if (tokenizer) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s: text needs a tokenizer, and the model has no tokenizer.json: give ids in an HDF5 file",
                   path);
}

static qz_status check_utf8(const char *path, const char *text, size_t size)
{
    size_t good = qz_utf8_check(text, size);
    if (good == size) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s: not UTF-8 text: byte 0x%02x at offset %zu; a binary file, or another encoding", path,
                   (unsigned)(uint8_t)text[good], good);
}

/* "\r\n" and "\r" become "\n". */
static qz_status universal_newlines(const char **text, size_t *size, qz_arena *arena)
{
    if (!memchr(*text, '\r', *size)) return QZ_OK;
    char *copy = qz_arena_alloc(arena, *size);
    if (!copy) return qz_arena_failed(arena);
    size_t n = 0;
    for (size_t i = 0; i < *size; i++) {
        char c = (*text)[i];
        if (c == '\n' && i > 0 && (*text)[i - 1] == '\r') continue;
        copy[n++] = c == '\r' ? '\n' : c;
    }
    *text = copy;
    *size = n;
    return QZ_OK;
}

static qz_status read_text(qz_ids *out, const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer,
                           size_t limit, qz_arena *arena)
{
    const char *text = (const char *)map->data;
    size_t size = map->size;
    QZ_TRY(check_utf8(rule->path, text, size));
    QZ_TRY(universal_newlines(&text, &size, arena));
    QZ_TRY_CTX(qz_tokenizer_encode_some(tokenizer, text, size, limit, out, arena), "%s", rule->path);
    return QZ_OK;
}

/* ---- .jsonl ---- */

typedef struct line_reader {
    const qz_windows_rule *rule;
    const qz_tokenizer *tokenizer;
    const char *field;
    qz_text ids; /* int32_t */
    qz_arena *arena, *line_arena;
    qz_chat chat; /* once has_chat */
    bool has_chat;
    qz_text rendered;
} line_reader;

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

/* The windows begin with BOS as it is: a conversation's own is left out at the start of the first one. */
static qz_status render(const char **out, line_reader *r, const qz_json_node *messages)
{
    QZ_TRY(open_chat(r));
    qz_chat chat = r->chat;
    if (r->rule->bos >= 0 && r->ids.size == 0) chat.bos = NULL;
    r->rendered.size = 0;
    QZ_TRY(qz_chat_render(&r->rendered, &chat, messages, r->line_arena));
    QZ_TRY(qz_text_add(&r->rendered, "", 1));
    *out = r->rendered.data;
    return QZ_OK;
}

static qz_status find_field(const char **out, const line_reader *r, const qz_json_node *root)
{
    if (!qz_json_is(root, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object with a field \"%s\"",
                       qz_json_type_name(qz_json_type_of(root)), r->field);
    const qz_json_node *value = qz_json_get(root, r->field), *first = qz_json_first(root);
    if (value) return qz_json_string(value, r->field, out);
    return QZ_FAIL(QZ_FORMAT, "the field \"%s\" is missing; the first field of this line is \"%s\"", r->field,
                   first ? qz_json_key(first) : "");
}

static qz_status encode_field(line_reader *r, const qz_json_node *root, size_t left)
{
    const char *text;
    qz_ids ids;
    const qz_json_node *messages = find_messages(r, root);
    QZ_TRY(messages ? render(&text, r, messages) : find_field(&text, r, root));
    QZ_TRY(qz_tokenizer_encode_some(r->tokenizer, text, strlen(text), left, &ids, r->line_arena));
    return qz_text_add(&r->ids, (const char *)ids.id, ids.count * sizeof *ids.id);
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r", line[i])) return false;
    return true;
}

static qz_status read_line(line_reader *r, const char *line, size_t size, size_t left)
{
    qz_json *doc;
    if (is_blank(line, size)) return QZ_OK;
    QZ_TRY(qz_json_parse(&doc, line, size));
    qz_status status = encode_field(r, qz_json_root(doc), left);
    qz_json_close(doc);
    qz_arena_reset(r->line_arena);
    return status;
}

static size_t id_count(const line_reader *r)
{
    return r->ids.size / sizeof(int32_t);
}

static qz_status read_lines(line_reader *r, const qz_map *map, size_t limit)
{
    const char *p = (const char *)map->data, *end = p + map->size;
    for (size_t number = 1; p < end && id_count(r) < limit; number++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        QZ_TRY_CTX(read_line(r, p, (size_t)(stop - p), limit - id_count(r)), "%s:%zu", r->rule->path, number);
        p = stop + 1;
    }
    return QZ_OK;
}

static qz_status read_jsonl(qz_ids *out, const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer,
                            size_t limit, qz_arena *arena)
{
    line_reader r = {.rule = rule, .tokenizer = tokenizer, .field = rule->field ? rule->field : "text", .arena = arena};
    qz_status status = check_utf8(rule->path, (const char *)map->data, map->size);
    if (status == QZ_OK) status = qz_arena_new(&r.line_arena, "line");
    if (status == QZ_OK) status = read_lines(&r, map, limit);
    out->count = id_count(&r);
    out->id = status == QZ_OK ? qz_arena_array(arena, int32_t, out->count) : NULL;
    if (status == QZ_OK && !out->id) status = qz_arena_failed(arena);
    if (status == QZ_OK && out->count) memcpy(out->id, r.ids.data, r.ids.size);
    qz_arena_free(r.line_arena);
    qz_text_free(&r.ids);
    qz_text_free(&r.rendered);
    return status;
}

/* ---- HDF5 ---- */

static qz_status read_dataset(qz_ids *out, const char *path, qz_h5 *file, qz_arena *arena)
{
    int rank;
    uint64_t shape[8];
    bool integer;
    if (!qz_h5_has(file, "ids"))
        return QZ_FAIL(QZ_FORMAT, "%s: there is no dataset \"ids\"; token ids are expected there", path);
    QZ_TRY(qz_h5_shape(file, "ids", &rank, shape, &integer));
    if (rank != 1 || !integer)
        return QZ_FAIL(QZ_FORMAT, "%s: dataset \"ids\" has rank %d and %s values, expected one row of integers", path,
                       rank, integer ? "integer" : "other");
    out->count = (size_t)shape[0];
    int64_t *wide = qz_arena_array(arena, int64_t, out->count);
    out->id = qz_arena_array(arena, int32_t, out->count);
    if (!wide || !out->id) return qz_arena_failed(arena);
    QZ_TRY(qz_h5_read(file, "ids", QZ_H5_I64, wide, out->count));
    for (size_t i = 0; i < out->count; i++) {
        if (wide[i] < 0 || wide[i] > INT32_MAX)
            return QZ_FAIL(QZ_FORMAT, "%s: ids[%zu] is %lld, which is no token id", path, i, (long long)wide[i]);
        out->id[i] = (int32_t)wide[i];
    }
    return QZ_OK;
}

static qz_status read_h5(qz_ids *out, const char *path, qz_arena *arena)
{
    qz_h5 *file;
    QZ_TRY(qz_h5_open(&file, path));
    qz_status status = read_dataset(out, path, file, arena);
    if (status != QZ_OK) return qz_h5_abandon(file), status;
    return qz_h5_close(file);
}

/* ---- by suffix ---- */

static bool has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && !strcmp(path + n - m, suffix);
}

static qz_status read_mapped(qz_ids *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t limit,
                             qz_arena *arena)
{
    qz_map map;
    QZ_TRY(need_tokenizer(rule->path, tokenizer));
    QZ_TRY(qz_map_open(&map, rule->path));
    qz_status status;
    if (map.size == 0)
        status = QZ_FAIL(QZ_FORMAT, "%s: the file is empty; text is expected", rule->path);
    else if (has_suffix(rule->path, ".txt"))
        status = read_text(out, rule, &map, tokenizer, limit, arena);
    else
        status = read_jsonl(out, rule, &map, tokenizer, limit, arena);
    qz_map_close(&map);
    return status;
}

qz_status qz_documents_read(qz_ids *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t limit,
                            qz_arena *arena)
{
    const char *path = rule->path;
    if (has_suffix(path, ".txt") || has_suffix(path, ".jsonl")) return read_mapped(out, rule, tokenizer, limit, arena);
    if (has_suffix(path, ".h5") || has_suffix(path, ".hdf5")) return read_h5(out, path, arena);
    return QZ_FAIL(QZ_ARG, "%s: cannot tell what is in it; known suffixes: .txt, .jsonl, .h5, .hdf5", path);
}
