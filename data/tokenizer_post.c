/* The "post_processor" of tokenizer.json -> the ids it puts before and after a single text. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer_impl.h"

enum { MAX_AROUND = 16 };

#define KNOWN "TemplateProcessing, ByteLevel, Sequence"

typedef struct template_builder {
    int32_t before[MAX_AROUND], after[MAX_AROUND];
    size_t before_count, after_count;
} template_builder;

static qz_status special_ids(int32_t ids[MAX_AROUND], size_t *count, const qz_tokenizer *t, const qz_json_node *tokens,
                             const char *id, const char *where)
{
    char name[QZ_WHERE_SIZE];
    snprintf(name, sizeof name, "%.150s.special_tokens[\"%.60s\"].ids", where, id);
    const qz_json_node *list = qz_json_get(qz_json_get(tokens, id), "ids");
    *count = 0;
    if (!qz_json_is(list, QZ_JSON_ARRAY) || qz_json_count(list) > MAX_AROUND)
        return QZ_FAIL(QZ_FORMAT, "%s: expected an array of at most %d ids", name, MAX_AROUND);
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c)) {
        int64_t value;
        QZ_TRY(qz_json_int(c, name, 0, t->size - 1, &value));
        ids[(*count)++] = (int32_t)value;
    }
    return QZ_OK;
}

static qz_status append(int32_t *ids, size_t *count, const int32_t *more, size_t n, const char *where)
{
    if (*count + n > MAX_AROUND) return QZ_FAIL(QZ_UNSUPPORTED, "%s: more than %d special tokens", where, MAX_AROUND);
    memcpy(ids + *count, more, n * sizeof *ids);
    *count += n;
    return QZ_OK;
}

/* {"SpecialToken": {"id": ...}} or {"Sequence": {"id": "A"}}. */
static qz_status read_piece(template_builder *inner, bool *seen, const qz_tokenizer *t, const qz_json_node *piece,
                            const qz_json_node *tokens, const char *where)
{
    const qz_json_node *special = qz_json_get(piece, "SpecialToken"), *sequence = qz_json_get(piece, "Sequence");
    const char *id;
    QZ_TRY(qz_part_string(&id, special ? special : sequence, where, "id", NULL));
    if (sequence) {
        if (strcmp(id, "A") != 0 || *seen)
            return QZ_FAIL(QZ_UNSUPPORTED, "%s.single: expected the text \"A\" exactly once, found \"%.40s\"", where,
                           id);
        return *seen = true, QZ_OK;
    }
    int32_t ids[MAX_AROUND];
    size_t n;
    QZ_TRY(special_ids(ids, &n, t, tokens, id, where));
    return *seen ? append(inner->after, &inner->after_count, ids, n, where)
                 : append(inner->before, &inner->before_count, ids, n, where);
}

/* A template around what earlier processors have made. */
static qz_status read_template(template_builder *b, const qz_tokenizer *t, const qz_json_node *node, const char *where)
{
    const qz_json_node *single;
    template_builder inner = {.before_count = 0};
    bool seen = false;
    QZ_TRY(qz_part_known(node, where, "type single pair special_tokens"));
    QZ_TRY(qz_part_array(&single, node, where, "single"));
    for (const qz_json_node *c = qz_json_first(single); c; c = qz_json_next(c))
        QZ_TRY(read_piece(&inner, &seen, t, c, qz_json_get(node, "special_tokens"), where));
    if (!seen) return QZ_FAIL(QZ_UNSUPPORTED, "%s.single: the text \"A\" is not in it", where);
    QZ_TRY(append(inner.before, &inner.before_count, b->before, b->before_count, where));
    QZ_TRY(append(b->after, &b->after_count, inner.after, inner.after_count, where));
    memcpy(b->before, inner.before, sizeof b->before);
    b->before_count = inner.before_count;
    return QZ_OK;
}

static qz_status read_part(template_builder *b, const qz_tokenizer *t, const qz_json_node *node, const char *where);

static qz_status read_sequence(template_builder *b, const qz_tokenizer *t, const qz_json_node *node, const char *where)
{
    const qz_json_node *list;
    int i = 0;
    QZ_TRY(qz_part_known(node, where, "type processors"));
    QZ_TRY(qz_part_array(&list, node, where, "processors"));
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++) {
        char inner[QZ_WHERE_SIZE];
        snprintf(inner, sizeof inner, "%.200s.processors[%d]", where, i);
        QZ_TRY(read_part(b, t, c, inner));
    }
    return QZ_OK;
}

static qz_status read_part(template_builder *b, const qz_tokenizer *t, const qz_json_node *node, const char *where)
{
    const char *type;
    QZ_TRY(qz_part_type(&type, node, where));
    if (!strcmp(type, "TemplateProcessing")) return read_template(b, t, node, where);
    if (!strcmp(type, "Sequence")) return read_sequence(b, t, node, where);
    /* ByteLevel only trims offsets into the text, which we do not keep. */
    if (!strcmp(type, "ByteLevel")) return qz_part_known(node, where, "type add_prefix_space trim_offsets use_regex");
    return qz_part_unknown(where, type, KNOWN);
}

static qz_status keep(const int32_t **out, const int32_t *ids, size_t count, qz_arena *arena)
{
    int32_t *copy = qz_arena_array(arena, int32_t, count);
    if (!copy) return qz_arena_failed(arena);
    memcpy(copy, ids, count * sizeof *ids);
    *out = copy;
    return QZ_OK;
}

qz_status qz_template_read(qz_tokenizer *t, const qz_json_node *node)
{
    if (qz_json_type_of(node) == QZ_JSON_NULL) return QZ_OK;
    template_builder b = {.before_count = 0};
    QZ_TRY(read_part(&b, t, node, "post_processor"));
    QZ_TRY(keep(&t->template.before, b.before, b.before_count, t->arena));
    QZ_TRY(keep(&t->template.after, b.after, b.after_count, t->arena));
    t->template.before_count = b.before_count;
    t->template.after_count = b.after_count;
    return QZ_OK;
}
