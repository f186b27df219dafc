/* Ids -> text: the "decoder" of tokenizer.json works on the list of token texts, step by step.
 *
 * Bytes that are no valid UTF-8 become U+FFFD, one for each maximal wrong subpart (Unicode 15, section 3.9, table 3-8),
 * as Rust's from_utf8_lossy does; byte tokens that do not form text become one U+FFFD each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "data/tokenizer_impl.h"

#define KNOWN "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, Sequence"

/* ---- reading ---- */

static const struct {
    const char *name;
    qz_decode_kind kind;
    const char *options;
} kinds[] = {
    {"ByteLevel", QZ_DECODE_BYTES, "type add_prefix_space trim_offsets use_regex"},
    {"ByteFallback", QZ_DECODE_FALLBACK, "type"},
    {"Fuse", QZ_DECODE_FUSE, "type"},
    {"Replace", QZ_DECODE_REPLACE, "type pattern content"},
    {"Strip", QZ_DECODE_STRIP, "type content start stop"},
    {"Metaspace", QZ_DECODE_METASPACE, "type replacement add_prefix_space prepend_scheme split str_rep"},
};

static qz_status read_metaspace(qz_decode *d, const qz_json_node *node, const char *where)
{
    bool prefix;
    const char *scheme;
    QZ_TRY(qz_part_bool(&prefix, node, where, "add_prefix_space", true));
    QZ_TRY(qz_part_string(&scheme, node, where, "prepend_scheme", prefix ? "always" : "never"));
    d->drop_first = strcmp(scheme, "never") != 0;
    return QZ_OK;
}

static qz_status read_options(qz_decode *d, const qz_json_node *node, const char *where, qz_arena *arena)
{
    char inner[QZ_WHERE_SIZE];
    switch (d->kind) {
    case QZ_DECODE_REPLACE:
        QZ_TRY(qz_part_copy(&d->content, node, where, "content", arena));
        snprintf(inner, sizeof inner, "%.200s.pattern", where);
        return qz_pattern_read(&d->pattern, qz_json_get(node, "pattern"), inner);
    case QZ_DECODE_STRIP:
        QZ_TRY(qz_part_copy(&d->content, node, where, "content", arena));
        QZ_TRY(qz_part_int(&d->start, node, where, "start", 0, 1 << 20));
        return qz_part_int(&d->stop, node, where, "stop", 0, 1 << 20);
    case QZ_DECODE_METASPACE:
        QZ_TRY(qz_part_copy(&d->content, node, where, "replacement", arena));
        return read_metaspace(d, node, where);
    default:
        return QZ_OK;
    }
}

static qz_status read_part(qz_decodes *out, const qz_json_node *node, const char *where, qz_arena *arena);

static qz_status read_sequence(qz_decodes *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    const qz_json_node *list;
    int i = 0;
    QZ_TRY(qz_part_known(node, where, "type decoders"));
    QZ_TRY(qz_part_array(&list, node, where, "decoders"));
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++) {
        char inner[QZ_WHERE_SIZE];
        snprintf(inner, sizeof inner, "%.200s.decoders[%d]", where, i);
        QZ_TRY(read_part(out, c, inner, arena));
    }
    return QZ_OK;
}

static qz_status read_part(qz_decodes *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    const char *type;
    QZ_TRY(qz_part_type(&type, node, where));
    if (!strcmp(type, "Sequence")) return read_sequence(out, node, where, arena);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, type) != 0) continue;
        QZ_TRY(qz_part_known(node, where, kinds[i].options));
        if (out->count == QZ_TOKENIZER_MAX_STEPS)
            return QZ_FAIL(QZ_UNSUPPORTED, "%s: more than %d decoders", where, QZ_TOKENIZER_MAX_STEPS);
        qz_decode *d = &out->step[out->count++];
        d->kind = kinds[i].kind;
        return read_options(d, node, where, arena);
    }
    return qz_part_unknown(where, type, KNOWN);
}

qz_status qz_decodes_read(qz_decodes *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    if (qz_json_type_of(node) == QZ_JSON_NULL) return QZ_OK;
    out->present = true;
    return read_part(out, node, where, arena);
}

void qz_decodes_free(qz_decodes *d)
{
    for (int i = 0; i < d->count; i++) qz_pattern_free(d->step[i].pattern);
}

/* ---- decoding: the tokens lie in one text, with the end of each in a list ---- */

typedef struct pieces {
    qz_text text;
    size_t *end; /* (count) */
    size_t count, room;
} pieces;

static qz_status close_piece(pieces *p)
{
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 256;
        size_t *end = qz_realloc(p->end, room * sizeof *end);
        if (!end) return QZ_FAIL(QZ_MEMORY, "out of memory: decoding %zu tokens", room);
        p->end = end;
        p->room = room;
    }
    p->end[p->count++] = p->text.size;
    return QZ_OK;
}

static size_t start_of(const pieces *p, size_t i)
{
    return i ? p->end[i - 1] : 0;
}

static const char *piece_at(const pieces *p, size_t i, size_t *size)
{
    *size = p->end[i] - start_of(p, i);
    return *size ? p->text.data + start_of(p, i) : "";
}

static qz_status add_piece(pieces *p, const char *text, size_t size)
{
    QZ_TRY(qz_text_add(&p->text, text, size));
    return close_piece(p);
}

static const char replacement[] = "\xef\xbf\xbd";

/* The length of the longest start of a valid character at p, at least 1. */
static size_t wrong_part(const uint8_t *p, size_t size)
{
    uint8_t c = p[0], low = 0x80, high = 0xbf;
    size_t need = c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 1;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    size_t n = 1;
    for (; n < need && n < size && p[n] >= low && p[n] <= high; n++) low = 0x80, high = 0xbf;
    return n;
}

static qz_status add_repaired(qz_text *out, const char *text, size_t size)
{
    while (size > 0) {
        size_t good = qz_utf8_check(text, size);
        QZ_TRY(qz_text_add(out, text, good));
        if (good == size) return QZ_OK;
        QZ_TRY(qz_text_add(out, replacement, 3));
        good += wrong_part((const uint8_t *)text + good, size - good);
        text += good;
        size -= good;
    }
    return QZ_OK;
}

/* A token that has any character outside the alphabet stands for its own bytes. */
static qz_status add_bytes(qz_text *out, const char *text, size_t size)
{
    size_t n, before = out->size;
    for (size_t i = 0; i < size; i += n) {
        int byte = qz_char_to_byte(qz_utf8_get(text + i, &n));
        if (byte < 0) {
            out->size = before;
            return qz_text_add(out, text, size);
        }
        char c = (char)byte;
        QZ_TRY(qz_text_add(out, &c, 1));
    }
    return QZ_OK;
}

static qz_status decode_bytes(pieces *out, const pieces *in)
{
    qz_text bytes = {0};
    qz_status status = QZ_OK;
    for (size_t i = 0, n; i < in->count && status == QZ_OK; i++) {
        const char *text = piece_at(in, i, &n);
        status = add_bytes(&bytes, text, n);
    }
    if (status == QZ_OK) status = add_repaired(&out->text, bytes.data, bytes.size);
    qz_text_free(&bytes);
    return status == QZ_OK ? close_piece(out) : status;
}

static int byte_of(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    char digits[3] = {text[3], text[4], '\0'}, *end;
    if (strspn(digits, "0123456789abcdefABCDEF") != 2) return -1;
    return (int)strtol(digits, &end, 16);
}

static qz_status flush_bytes(pieces *out, qz_text *bytes)
{
    bool valid = qz_utf8_check(bytes->data, bytes->size) == bytes->size;
    if (bytes->size > 0 && valid) QZ_TRY(add_piece(out, bytes->data, bytes->size));
    for (size_t i = 0; i < bytes->size && !valid; i++) QZ_TRY(add_piece(out, replacement, 3));
    bytes->size = 0;
    return QZ_OK;
}

static qz_status fallback_piece(pieces *out, qz_text *bytes, const char *text, size_t size)
{
    int byte = byte_of(text, size);
    char c = (char)byte;
    if (byte >= 0) return qz_text_add(bytes, &c, 1);
    if (bytes->size) QZ_TRY(flush_bytes(out, bytes));
    return add_piece(out, text, size);
}

static qz_status decode_fallback(pieces *out, const pieces *in)
{
    qz_text bytes = {0};
    qz_status status = QZ_OK;
    for (size_t i = 0, n; i < in->count && status == QZ_OK; i++) {
        const char *text = piece_at(in, i, &n);
        status = fallback_piece(out, &bytes, text, n);
    }
    if (status == QZ_OK && bytes.size) status = flush_bytes(out, &bytes);
    qz_text_free(&bytes);
    return status;
}

static qz_status strip_piece(pieces *out, const qz_decode *d, const char *text, size_t size)
{
    size_t n = strlen(d->content), start = 0, end = size;
    for (int64_t i = 0; i < d->start && n <= end - start && !memcmp(text + start, d->content, n); i++) start += n;
    for (int64_t i = 0; i < d->stop && n <= end - start && !memcmp(text + end - n, d->content, n); i++) end -= n;
    return add_piece(out, text + start, end - start);
}

static qz_status metaspace_piece(pieces *out, const qz_decode *d, const char *text, size_t size, bool first)
{
    size_t n, mark = strlen(d->content);
    for (size_t i = 0; i < size; i += n) {
        qz_utf8_get(text + i, &n);
        if (n != mark || memcmp(text + i, d->content, n) != 0)
            QZ_TRY(qz_text_add(&out->text, text + i, n));
        else if (!first || !d->drop_first)
            QZ_TRY(qz_text_add(&out->text, " ", 1));
    }
    return close_piece(out);
}

static qz_status decode_each(pieces *out, const pieces *in, const qz_decode *d, qz_matcher *m)
{
    for (size_t i = 0, n; i < in->count; i++) {
        const char *text = piece_at(in, i, &n);
        if (d->kind == QZ_DECODE_STRIP) {
            QZ_TRY(strip_piece(out, d, text, n));
        } else if (d->kind == QZ_DECODE_METASPACE) {
            QZ_TRY(metaspace_piece(out, d, text, n, i == 0));
        } else {
            if (n) QZ_TRY(qz_text_replace(&out->text, d->pattern, d->content, text, n, m));
            QZ_TRY(close_piece(out));
        }
    }
    return QZ_OK;
}

static qz_status decode_step(pieces *out, const pieces *in, const qz_decode *d, qz_matcher *m)
{
    switch (d->kind) {
    case QZ_DECODE_BYTES:
        return decode_bytes(out, in);
    case QZ_DECODE_FALLBACK:
        return decode_fallback(out, in);
    case QZ_DECODE_FUSE:
        return add_piece(out, in->text.data, in->text.size);
    default:
        return decode_each(out, in, d, m);
    }
}

static qz_status run_steps(pieces *a, pieces *b, const qz_decodes *d, qz_matcher *m)
{
    for (int i = 0; i < d->count; i++) {
        b->text.size = b->count = 0;
        QZ_TRY(decode_step(b, a, &d->step[i], m));
        pieces swap = *a;
        *a = *b;
        *b = swap;
    }
    return QZ_OK;
}

/* Ids that are no token are left out, as the library does. */
static qz_status collect(pieces *p, const qz_tokenizer *t, const int32_t *ids, size_t count, bool skip_special)
{
    for (size_t i = 0; i < count; i++) {
        const qz_token *token = ids[i] >= 0 && ids[i] < t->size ? &t->token[ids[i]] : NULL;
        if (!token || !token->text || (skip_special && token->special)) continue;
        if (!t->decodes.present && p->count) QZ_TRY(qz_text_add(&p->text, " ", 1));
        QZ_TRY(add_piece(p, token->text, token->size));
    }
    return QZ_OK;
}

static qz_status hand_out(char **out, size_t *size, const qz_text *text, qz_arena *arena)
{
    *out = qz_arena_alloc(arena, text->size + 1);
    if (!*out) return qz_arena_failed(arena);
    if (text->size) memcpy(*out, text->data, text->size);
    (*out)[text->size] = '\0';
    if (size) *size = text->size;
    return QZ_OK;
}

qz_status qz_tokenizer_decode(const qz_tokenizer *t, const int32_t *ids, size_t count, bool skip_special, char **out,
                              size_t *size, qz_arena *arena)
{
    pieces a = {.count = 0}, b = {.count = 0};
    qz_matcher *m = NULL;
    qz_status status = qz_matcher_new(&m);
    if (status == QZ_OK) status = collect(&a, t, ids, count, skip_special);
    if (status == QZ_OK) status = run_steps(&a, &b, &t->decodes, m);
    if (status == QZ_OK) status = hand_out(out, size, &a.text, arena);
    qz_matcher_free(m);
    qz_text_free(&a.text);
    qz_text_free(&b.text);
    qz_free(a.end);
    qz_free(b.end);
    return status;
}
