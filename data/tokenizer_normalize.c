/* Normalizers of tokenizer.json: text -> text before it is split, one step after the other. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "data/tokenizer_impl.h"

#define KNOWN "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, ByteLevel, Sequence"

static const struct {
    const char *name;
    qz_normal_kind kind;
    const char *options;
} kinds[] = {
    {"NFC", QZ_NORMAL_NFC, "type"},
    {"NFD", QZ_NORMAL_NFD, "type"},
    {"NFKC", QZ_NORMAL_NFKC, "type"},
    {"NFKD", QZ_NORMAL_NFKD, "type"},
    {"Lowercase", QZ_NORMAL_LOWERCASE, "type"},
    {"Strip", QZ_NORMAL_STRIP, "type strip_left strip_right"},
    {"Prepend", QZ_NORMAL_PREPEND, "type prepend"},
    {"Replace", QZ_NORMAL_REPLACE, "type pattern content"},
    {"ByteLevel", QZ_NORMAL_BYTES, "type"},
};

static qz_status read_options(qz_normal *n, const qz_json_node *node, const char *where, qz_arena *arena)
{
    char inner[QZ_WHERE_SIZE];
    switch (n->kind) {
    case QZ_NORMAL_STRIP:
        QZ_TRY(qz_part_bool(&n->left, node, where, "strip_left", false));
        return qz_part_bool(&n->right, node, where, "strip_right", false);
    case QZ_NORMAL_PREPEND:
        return qz_part_copy(&n->content, node, where, "prepend", arena);
    case QZ_NORMAL_REPLACE:
        QZ_TRY(qz_part_copy(&n->content, node, where, "content", arena));
        snprintf(inner, sizeof inner, "%.200s.pattern", where);
        return qz_pattern_read(&n->pattern, qz_json_get(node, "pattern"), inner);
    default:
        return QZ_OK;
    }
}

static qz_status read_sequence(qz_normals *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    const qz_json_node *list;
    QZ_TRY(qz_part_known(node, where, "type normalizers"));
    QZ_TRY(qz_part_array(&list, node, where, "normalizers"));
    int i = 0;
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++) {
        char inner[QZ_WHERE_SIZE];
        snprintf(inner, sizeof inner, "%.200s.normalizers[%d]", where, i);
        QZ_TRY(qz_normals_read(out, c, inner, arena));
    }
    return QZ_OK;
}

qz_status qz_normals_read(qz_normals *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    if (qz_json_type_of(node) == QZ_JSON_NULL) return QZ_OK;
    const char *type;
    QZ_TRY(qz_part_type(&type, node, where));
    if (!strcmp(type, "Sequence")) return read_sequence(out, node, where, arena);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, type) != 0) continue;
        QZ_TRY(qz_part_known(node, where, kinds[i].options));
        if (out->count == QZ_TOKENIZER_MAX_STEPS)
            return QZ_FAIL(QZ_UNSUPPORTED, "%s: more than %d normalizers", where, QZ_TOKENIZER_MAX_STEPS);
        qz_normal *n = &out->step[out->count++];
        n->kind = kinds[i].kind;
        return read_options(n, node, where, arena);
    }
    return qz_part_unknown(where, type, KNOWN);
}

void qz_normals_free(qz_normals *n)
{
    for (int i = 0; i < n->count; i++) qz_pattern_free(n->step[i].pattern);
}

/* Character by character as Rust's char::to_lowercase: U+0130 is the only one that becomes two. */
static qz_status lowercase(qz_text *out, const qz_text *in)
{
    size_t n;
    for (size_t i = 0; i < in->size; i += n) {
        uint32_t c = qz_utf8_get(in->data + i, &n);
        if (c == 0x130)
            QZ_TRY(qz_text_add(out, "i\xcc\x87", 3));
        else
            QZ_TRY(qz_text_add_char(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c)));
    }
    return QZ_OK;
}

static qz_status strip(qz_text *out, const qz_text *in, const qz_normal *step, bool *first)
{
    size_t start = 0, end = in->size, n;
    while (step->left && start < end && qz_char_is_space(qz_utf8_get(in->data + start, &n))) start += n;
    while (step->right && end > start) {
        n = qz_utf8_last(in->data + start, in->data + end);
        size_t unused;
        if (!qz_char_is_space(qz_utf8_get(in->data + end - n, &unused))) break;
        end -= n;
    }
    if (start > 0) *first = false;
    return qz_text_add(out, in->data + start, end - start);
}

static qz_status visible_bytes(qz_text *out, const qz_text *in)
{
    for (size_t i = 0; i < in->size; i++) QZ_TRY(qz_text_add_char(out, qz_byte_to_char((uint8_t)in->data[i])));
    return QZ_OK;
}

qz_status qz_text_replace(qz_text *out, const qz_pattern *p, const char *content, const char *text, size_t size,
                          qz_matcher *m)
{
    qz_matches it;
    size_t done = 0, start, end;
    bool found;
    qz_matches_begin(&it, p, m, text, size);
    for (;;) {
        QZ_TRY(qz_matches_next(&it, &found, &start, &end));
        if (!found) return qz_text_add(out, text + done, size - done);
        QZ_TRY(qz_text_add(out, text + done, start - done));
        QZ_TRY(qz_text_add(out, content, strlen(content)));
        done = end;
    }
}

static qz_status replace(qz_text *out, const qz_text *in, const qz_normal *step, bool *first, qz_matcher *m)
{
    qz_matches it;
    size_t start, end;
    bool found = false;
    if (!*step->content) {
        qz_matches_begin(&it, step->pattern, m, in->data, in->size);
        QZ_TRY(qz_matches_next(&it, &found, &start, &end));
        if (found && start == 0 && end > 0) *first = false;
    }
    return qz_text_replace(out, step->pattern, step->content, in->data, in->size, m);
}

static qz_status apply(qz_text *out, const qz_text *in, const qz_normal *step, bool *first, qz_matcher *m)
{
    switch (step->kind) {
    case QZ_NORMAL_NFC:
    case QZ_NORMAL_NFD:
        return qz_unicode_normalize(out, in, step->kind == QZ_NORMAL_NFC, false);
    case QZ_NORMAL_NFKC:
    case QZ_NORMAL_NFKD:
        return qz_unicode_normalize(out, in, step->kind == QZ_NORMAL_NFKC, true);
    case QZ_NORMAL_LOWERCASE:
        return lowercase(out, in);
    case QZ_NORMAL_STRIP:
        return strip(out, in, step, first);
    case QZ_NORMAL_PREPEND:
        if (in->size) QZ_TRY(qz_text_add(out, step->content, strlen(step->content)));
        return qz_text_add(out, in->data, in->size);
    case QZ_NORMAL_REPLACE:
        return in->size ? replace(out, in, step, first, m) : QZ_OK;
    case QZ_NORMAL_BYTES:
        return visible_bytes(out, in);
    }
    return QZ_OK;
}

qz_status qz_normals_apply(const qz_normals *n, qz_text *a, qz_text *b, bool *first, qz_matcher *m)
{
    for (int i = 0; i < n->count; i++) {
        b->size = 0;
        QZ_TRY(apply(b, a, &n->step[i], first, m));
        qz_text swap = *a;
        *a = *b;
        *b = swap;
    }
    return QZ_OK;
}
