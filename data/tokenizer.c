/* tokenizer.json -> a tokenizer, and text -> ids: the order of the steps. See tokenizer_impl.h for who does what. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "data/tokenizer_impl.h"

static const size_t FILE_LIMIT = (size_t)256 << 20;
enum { BLOCK = 1 << 16 }; /* ids that are handed on together */

/* Truncation and padding are left aside: they shape batches, and we want the ids of whole texts. */
static qz_status read_top(const qz_json_node *root)
{
    if (!qz_json_is(root, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(root)));
    const char *version;
    QZ_TRY(qz_part_string(&version, root, "tokenizer", "version", "1.0"));
    if (strcmp(version, "1.0") != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "version: \"%.40s\" is not known; known: 1.0", version);
    return qz_part_known(
        root, "tokenizer",
        "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model");
}

static qz_status read_all(qz_tokenizer *t, const qz_json_node *root)
{
    QZ_TRY(read_top(root));
    QZ_TRY(qz_model_read(t, qz_json_get(root, "model")));
    QZ_TRY(qz_normals_read(&t->normals, qz_json_get(root, "normalizer"), "normalizer", t->arena));
    QZ_TRY(qz_splits_read(&t->splits, qz_json_get(root, "pre_tokenizer"), "pre_tokenizer", t->arena));
    QZ_TRY(qz_added_read(t, qz_json_get(root, "added_tokens")));
    QZ_TRY(qz_decodes_read(&t->decodes, qz_json_get(root, "decoder"), "decoder", t->arena));
    return qz_template_read(t, qz_json_get(root, "post_processor"));
}

static qz_status parse(qz_tokenizer *t, const char *text, size_t size)
{
    qz_json *doc;
    QZ_TRY(qz_arena_new(&t->arena, "tokenizer"));
    QZ_TRY(qz_json_parse(&doc, text, size));
    qz_status status = read_all(t, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

qz_status qz_tokenizer_parse(qz_tokenizer **out, const char *json, size_t size, const char *name)
{
    *out = NULL;
    qz_tokenizer *t = qz_calloc(1, sizeof *t);
    if (!t) return QZ_FAIL(QZ_MEMORY, "out of memory: %s", name);
    qz_status status = parse(t, json, size);
    if (status == QZ_OK) return *out = t, QZ_OK;
    qz_tokenizer_close(t);
    return qz_error_context(status, "%s", name);
}

qz_status qz_tokenizer_open(qz_tokenizer **out, const char *path)
{
    *out = NULL;
    qz_arena *arena;
    char *text;
    size_t size;
    QZ_TRY(qz_arena_new(&arena, "tokenizer file"));
    qz_status status = qz_file_read(&text, &size, path, FILE_LIMIT, arena);
    if (status == QZ_OK) status = qz_tokenizer_parse(out, text, size, path);
    qz_arena_free(arena);
    return status;
}

void qz_tokenizer_close(qz_tokenizer *t)
{
    if (!t) return;
    qz_model_free(&t->model);
    qz_normals_free(&t->normals);
    qz_splits_free(&t->splits);
    qz_decodes_free(&t->decodes);
    qz_free(t->token);
    qz_arena_free(t->arena);
    qz_free(t);
}

int64_t qz_tokenizer_size(const qz_tokenizer *t)
{
    return t->size;
}

int32_t qz_tokenizer_id(const qz_tokenizer *t, const char *token)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (!strcmp(t->added[i].content, token)) return t->added[i].id;
    return (int32_t)qz_strmap_get(t->model.vocab, token, strlen(token));
}

/* ---- encoding ---- */

qz_status qz_encoder_put(qz_encoder *e, int32_t id)
{
    if (e->count == e->room) {
        size_t room = e->room ? 2 * e->room : 64;
        int32_t *ids = qz_realloc(e->ids, room * sizeof *ids);
        if (!ids) return QZ_FAIL(QZ_MEMORY, "out of memory: a tokenizer wanted room for %zu ids", room);
        e->ids = ids;
        e->room = room;
    }
    e->ids[e->count++] = id;
    e->full = e->handed + e->count >= e->limit;
    return QZ_OK;
}

static qz_status hand_on_all(qz_encoder *e)
{
    size_t count = e->count;
    e->count = 0;
    e->handed += count;
    return e->taker->take(e->taker->self, e->ids, count);
}

static qz_status tell_passed(const qz_encoder *e)
{
    const double inside = e->of > 0 ? (e->to - e->from) * e->at / e->of : 0;
    if (!e->taker->passed) return QZ_OK;
    return e->taker->passed(e->taker->self, (uint64_t)(e->from + inside), e->size);
}

qz_status qz_encoder_hand_on(qz_encoder *e)
{
    if (!e->taker || e->count < BLOCK) return QZ_OK;
    QZ_TRY(hand_on_all(e));
    return tell_passed(e);
}

static qz_status put_added(qz_encoder *e, int32_t id)
{
    QZ_TRY(qz_encoder_put(e, id));
    return qz_encoder_hand_on(e);
}

/* The bytes from .. to of the text became `size` bytes, of which this piece is cut next. */
static void aim(qz_encoder *e, double from, double to, const qz_added_piece *piece, size_t size)
{
    e->from = from + (to - from) * (double)piece->start / (double)size;
    e->to = from + (to - from) * (double)piece->end / (double)size;
}

/* Text without raw added tokens: normalized, cut at the tokens that are looked for after that, split. */
static qz_status encode_ordinary(qz_encoder *e, const char *text, size_t size, bool first)
{
    const qz_tokenizer *t = e->t;
    const double from = e->from, to = e->to;
    if (t->normals.count) {
        e->normal.size = 0;
        QZ_TRY(qz_text_add(&e->normal, text, size));
        QZ_TRY(qz_normals_apply(&t->normals, &e->normal, &e->normal_other, &first, e->matcher));
        text = e->normal.data;
        size = e->normal.size;
    }
    qz_added_scan scan = {.set = &t->normalized, .text = text, .size = size};
    qz_added_piece piece;
    while (!e->full && qz_added_next(&scan, &piece)) {
        aim(e, from, to, &piece, size);
        if (piece.token)
            QZ_TRY(put_added(e, piece.token->id));
        else
            QZ_TRY(qz_encoder_split(e, 0, text + piece.start, piece.end - piece.start, first && piece.start == 0));
    }
    return QZ_OK;
}

static qz_status encode_text(qz_encoder *e, const char *text, size_t size)
{
    qz_added_scan scan = {.set = &e->t->raw, .text = text, .size = size};
    qz_added_piece piece;
    while (!e->full && qz_added_next(&scan, &piece)) {
        aim(e, 0, (double)size, &piece, size);
        if (piece.token)
            QZ_TRY(put_added(e, piece.token->id));
        else
            QZ_TRY(encode_ordinary(e, text + piece.start, piece.end - piece.start, piece.start == 0));
    }
    return QZ_OK;
}

static qz_status hand_out(qz_ids *out, const qz_encoder *e, const qz_template *around, qz_arena *arena)
{
    size_t before = around ? around->before_count : 0, after = around ? around->after_count : 0;
    out->count = before + e->count + after;
    out->id = qz_arena_array(arena, int32_t, out->count);
    if (!out->id) return qz_arena_failed(arena);
    if (before) memcpy(out->id, around->before, before * sizeof *out->id);
    if (e->count) memcpy(out->id + before, e->ids, e->count * sizeof *out->id);
    if (after) memcpy(out->id + before + e->count, around->after, after * sizeof *out->id);
    return QZ_OK;
}

static qz_status check_text(const char *text, size_t size)
{
    size_t good = qz_utf8_check(text, size);
    if (good == size) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "text is not UTF-8: byte 0x%02x at offset %zu", (unsigned)(uint8_t)text[good], good);
}

qz_status qz_encoder_open(qz_encoder *e, const qz_tokenizer *t, size_t text_size)
{
    *e = (qz_encoder){.t = t, .limit = SIZE_MAX};
    qz_status status = qz_matcher_new(&e->matcher);
    if (status == QZ_OK) status = qz_word_cache_new(&e->cache, text_size);
    if (status != QZ_OK) qz_encoder_close(e);
    return status;
}

void qz_encoder_close(qz_encoder *e)
{
    qz_matcher_free(e->matcher);
    qz_word_cache_free(e->cache);
    for (int i = 0; i < QZ_TOKENIZER_MAX_STEPS; i++) qz_text_free(&e->scratch[i]);
    qz_text_free(&e->normal);
    qz_text_free(&e->normal_other);
    qz_text_free(&e->word);
    qz_free(e->symbols);
    qz_free(e->heap);
    qz_free(e->ids);
    *e = (qz_encoder){0};
}

qz_status qz_encoder_run(qz_encoder *e, const char *text, size_t size, size_t limit)
{
    e->count = e->handed = 0;
    e->full = false;
    e->limit = limit;
    e->size = size;
    e->from = e->to = e->at = e->of = 0;
    QZ_TRY(check_text(text, size));
    return encode_text(e, text, size);
}

static qz_status encode(const qz_tokenizer *t, const char *text, size_t size, size_t limit, const qz_template *around,
                        qz_ids *out, qz_arena *arena)
{
    qz_encoder e;
    QZ_TRY(qz_encoder_open(&e, t, size));
    qz_status status = qz_encoder_run(&e, text, size, limit);
    if (status == QZ_OK) status = hand_out(out, &e, around, arena);
    qz_encoder_close(&e);
    return status;
}

qz_status qz_tokenizer_encode(const qz_tokenizer *t, const char *text, size_t size, bool special, qz_ids *out,
                              qz_arena *arena)
{
    return encode(t, text, size, SIZE_MAX, special ? &t->template : NULL, out, arena);
}

qz_status qz_tokenizer_encode_some(const qz_tokenizer *t, const char *text, size_t size, size_t limit, qz_ids *out,
                                   qz_arena *arena)
{
    return encode(t, text, size, limit, NULL, out, arena);
}

qz_status qz_tokenizer_encode_to(const qz_tokenizer *t, const char *text, size_t size, size_t limit,
                                 const qz_ids_taker *taker)
{
    qz_encoder e;
    QZ_TRY(qz_encoder_open(&e, t, size));
    e.taker = taker;
    e.normal.folder = e.normal_other.folder = taker->folder;
    for (int i = 0; i < QZ_TOKENIZER_MAX_STEPS; i++) e.scratch[i].folder = taker->folder;
    qz_status status = qz_encoder_run(&e, text, size, limit);
    if (status == QZ_OK && e.count) status = hand_on_all(&e);
    if (status == QZ_OK && taker->passed) status = taker->passed(taker->self, size, size);
    qz_encoder_close(&e);
    return status;
}
